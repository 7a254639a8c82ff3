//! The few numbers of a metrics page that the screen shows. No other series is read.

use std::collections::BTreeMap;

/// Calls that carry questions one by one or by the dozen. Those on streams are not counted as calls.
const METHODS: [&str; 2] = ["match", "match_batch"];

/// What a metrics page said.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Page {
    pub(super) version: Option<String>,
    pub(super) bytes: Option<f64>,
    pub(super) max_bytes: Option<f64>,
    pub(super) cpu_seconds: Option<f64>,
    /// Calls since the node started that took at most so long, by the bound in seconds as it is written.
    pub(super) calls_within: BTreeMap<String, f64>,
}

impl Page {
    pub(super) fn read(text: &str) -> Self {
        let mut page = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((name, rest)) = line.split_once(['{', ' ']) else { continue };
            let value = || rest.rsplit(' ').next()?.parse::<f64>().ok();
            match name {
                "kvindex_build_info" | "kvindex_build" => {
                    page.version = label(rest, "version").map(str::to_owned);
                }
                "kvindex_index_bytes" => page.bytes = value(),
                "kvindex_index_max_bytes" => page.max_bytes = value().filter(|bytes| *bytes > 0.0),
                "process_cpu_seconds_total" | "kvindex_process_cpu_seconds_total" => {
                    page.cpu_seconds = value();
                }
                "kvindex_api_call_seconds_bucket"
                    if label(rest, "method").is_some_and(|method| METHODS.contains(&method)) =>
                {
                    if let (Some(bound), Some(calls)) = (label(rest, "le"), value()) {
                        *page.calls_within.entry(bound.to_owned()).or_default() += calls;
                    }
                }
                _ => {}
            }
        }
        page
    }

    /// Questions between two pages, and how fast they were answered.
    pub(super) fn since(&self, before: &Self) -> Option<Answered> {
        let mut buckets = Vec::new();
        for (bound, calls) in &self.calls_within {
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().ok()? };
            let earlier = before.calls_within.get(&self.key_of(bound)?).copied().unwrap_or(0.0);
            // Fewer than before: the node is another one.
            buckets.push((bound, (*calls >= earlier).then_some(calls - earlier)?));
        }
        buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
        let calls = buckets.last().map_or(0.0, |(_, calls)| *calls);
        Some(Answered { calls, p50: quantile(&buckets, 0.5), p99: quantile(&buckets, 0.99) })
    }

    fn key_of(&self, bound: f64) -> Option<String> {
        let is = |key: &&String| {
            if bound.is_infinite() { key.as_str() == "+Inf" } else { key.parse() == Ok(bound) }
        };
        self.calls_within.keys().find(is).cloned()
    }
}

/// Questions in some time. Quantiles in seconds; none where nothing was asked, or beyond the last bound.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Answered {
    pub(super) calls: f64,
    pub(super) p50: Option<f64>,
    pub(super) p99: Option<f64>,
}

/// As Prometheus estimates it: evenly spread within a bucket.
fn quantile(buckets: &[(f64, f64)], share: f64) -> Option<f64> {
    let rank = buckets.last().map(|(_, calls)| *calls).filter(|calls| *calls > 0.0)? * share;
    let (mut below, mut counted) = (0.0, 0.0);
    for (bound, calls) in buckets {
        if *calls >= rank {
            let part = if *calls > counted { (rank - counted) / (calls - counted) } else { 1.0 };
            return bound.is_finite().then_some(below + (bound - below) * part);
        }
        (below, counted) = (*bound, *calls);
    }
    None
}

/// A label's value. The names that are looked for hold no character that would be escaped.
fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = labels.split_once(&format!("{name}=\""))?;
    rest.split_once('"').map(|(value, _)| value)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn page(within_1_ms: u32, within_10_ms: u32, all: u32) -> Page {
        let series = |bound: &str, calls: u32| {
            format!(
                "kvindex_api_call_seconds_bucket{{le=\"{bound}\",method=\"match\",transport=\"grpc\"}} {calls}\n\
                 kvindex_api_call_seconds_bucket{{le=\"{bound}\",method=\"explain\",transport=\"grpc\"}} 1000\n"
            )
        };
        let buckets = [series("0.001", within_1_ms), series("0.01", within_10_ms), series("+Inf", all)];
        Page::read(&format!(
            "# HELP kvindex_index_bytes x\nkvindex_index_bytes 1048576\nkvindex_index_max_bytes 0\n\
             kvindex_build_info{{version=\"1.2.3\"}} 1\n{}# EOF\n",
            buckets.concat()
        ))
    }

    #[test]
    fn numbers_are_found_by_name_and_label() {
        let page = page(1, 2, 3);
        assert_eq!(
            (page.version.as_deref(), page.bytes, page.max_bytes),
            (Some("1.2.3"), Some(1_048_576.0), None)
        );
        assert_eq!(page.calls_within.values().copied().collect::<Vec<_>>(), [3.0, 1.0, 2.0]);
    }

    #[test]
    fn quantiles_are_of_the_time_between() {
        let answered = page(150, 200, 200).since(&page(50, 50, 50)).unwrap();
        assert_eq!(answered.calls, 150.0);
        // 100 of 150 within 1 ms, 50 more within 10 ms.
        assert!((answered.p50.unwrap() - 0.00075).abs() < 1e-9, "{answered:?}");
        assert!((answered.p99.unwrap() - (0.001 + 0.009 * 48.5 / 50.0)).abs() < 1e-9, "{answered:?}");
        let slow = page(0, 0, 10).since(&page(0, 0, 0)).unwrap();
        assert_eq!((slow.p50, slow.p99), (None, None));
        assert_eq!(page(5, 5, 5).since(&page(5, 5, 5)).unwrap().p50, None);
        assert_eq!(page(1, 1, 1).since(&page(5, 5, 5)), None);
    }
}
