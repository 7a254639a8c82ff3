//! What a run comes to, in a few numbers.

use super::replay::Served;

/// One policy's run on one fleet.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Figures {
    pub(super) requests: usize,
    pub(super) prompt_tokens: u64,
    pub(super) saved_tokens: u64,
    /// Seconds from arrival to first token.
    pub(super) ttft_mean: f64,
    pub(super) ttft_p50: f64,
    pub(super) ttft_p90: f64,
    pub(super) ttft_p99: f64,
    /// Requests finished a second, from the first arrival to the last end.
    pub(super) rate: f64,
    /// Prompt tokens that the busiest engine computed, to the mean of all.
    pub(super) imbalance: f64,
    /// Tokens believed cached that were not, and the other way round.
    pub(super) believed_wrongly: u64,
    pub(super) not_known: u64,
}

impl Figures {
    pub(super) fn of(served: &[Served], engines: usize) -> Self {
        let mut times: Vec<f64> = served.iter().map(|one| one.first_token_s - one.came_s).collect();
        times.sort_unstable_by(f64::total_cmp);
        let mut computed = vec![0u64; engines];
        for one in served {
            if let Some(place) = computed.get_mut(one.engine) {
                *place += one.tokens - one.saved;
            }
        }
        let mean = computed.iter().sum::<u64>() as f64 / engines.max(1) as f64;
        let first = served.iter().map(|one| one.came_s).fold(f64::INFINITY, f64::min);
        let last = served.iter().map(|one| one.finished_s).fold(0.0, f64::max);
        Self {
            requests: served.len(),
            prompt_tokens: served.iter().map(|one| one.tokens).sum(),
            saved_tokens: served.iter().map(|one| one.saved).sum(),
            ttft_mean: times.iter().sum::<f64>() / times.len().max(1) as f64,
            ttft_p50: quantile(&times, 0.50),
            ttft_p90: quantile(&times, 0.90),
            ttft_p99: quantile(&times, 0.99),
            rate: served.len() as f64 / (last - first),
            imbalance: computed.iter().copied().max().unwrap_or(0) as f64 / mean,
            believed_wrongly: served.iter().map(|one| one.believed.saturating_sub(one.saved)).sum(),
            not_known: served.iter().map(|one| one.saved.saturating_sub(one.believed)).sum(),
        }
    }

    /// Share of the prompts' tokens that were cached.
    pub(super) fn hit_rate(&self) -> f64 {
        self.share(self.saved_tokens)
    }

    /// A number of tokens as a share of the prompts'.
    pub(super) fn share(&self, tokens: u64) -> f64 {
        tokens as f64 / self.prompt_tokens.max(1) as f64
    }
}

/// The least of the sorted values that this share of all does not exceed.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_up_by_hand() {
        let served = |engine, came_s, first_token_s, finished_s, tokens, saved, believed| Served {
            engine,
            came_s,
            first_token_s,
            finished_s,
            tokens,
            saved,
            believed,
        };
        let figures = Figures::of(
            &[
                served(0, 1.0, 2.0, 4.0, 1000, 512, 512),
                served(1, 2.0, 5.0, 6.0, 600, 0, 512),
                served(0, 3.0, 5.0, 5.0, 1000, 512, 0),
            ],
            2,
        );
        assert_eq!((figures.ttft_mean, figures.ttft_p50, figures.ttft_p90), (2.0, 2.0, 3.0));
        assert_eq!((figures.prompt_tokens, figures.saved_tokens), (2600, 1024));
        assert_eq!((figures.believed_wrongly, figures.not_known), (512, 512));
        assert_eq!(figures.rate, 3.0 / 5.0);
        assert_eq!(figures.imbalance, 976.0 / 788.0);
    }

    #[test]
    fn quantiles_are_of_the_values() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!([0.5, 0.9, 0.99].map(|share| quantile(&values, share)), [50.0, 90.0, 99.0]);
        assert_eq!(quantile(&[7.0], 0.01), 7.0);
    }
}
