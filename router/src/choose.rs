//! Which engine a request goes to: pure, so that it can be read and tested by itself.
//!
//! An engine computes prompts one after the other, so the time to a request's first token is the prompt tokens that are
//! to be computed before it, its own among them. That sum is an engine's cost, and the least one wins. Waiting requests
//! are those that this router has sent; other routers' are not seen.

/// What a request that is being decoded counts for in tokens, where a decode engine is chosen: it slows each step of
/// all others a little. A prompt's transfer is the same from wherever it comes.
pub const DECODING: u64 = 256;

/// An engine that could take the request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Candidate {
    /// Its worker id.
    pub worker: String,
    /// `prefill`, `decode` or `aggregate`; without one it is the last.
    pub role: String,
    /// Its prefill-decode group.
    pub group: Option<String>,
    /// Prompt tokens that it holds a prefix of, as far as that is to be believed ([`believed`]).
    pub held: u64,
    /// Prompt tokens that it has been sent and has not computed yet.
    pub queued: u64,
    /// Requests that it works on.
    pub running: u64,
}

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// One engine does all of it.
    Whole(String),
    /// One computes the prompt, another one of its group goes on.
    Pair {
        /// Worker id of the engine for the prompt.
        prefill: String,
        /// Worker id of the engine for what follows.
        decode: String,
    },
}

/// How much of what a worker is said to hold counts: all of it where the stream is live or its answer can only be too
/// low, half where it may be wrong either way.
#[must_use]
pub fn believed(matched_tokens: u64, is_suspect: bool) -> u64 {
    if is_suspect { matched_tokens / 2 } else { matched_tokens }
}

/// The choice with the least cost for a prompt of so many tokens; among equals the first: callers begin with
/// the engine that was chosen longest ago, or all of a cold prompt's kind meet at one. `None` without anybody who can do it.
#[must_use]
pub fn choose(prompt_tokens: u64, candidates: &[Candidate]) -> Option<Choice> {
    let cost = |candidate: &Candidate| candidate.queued + prompt_tokens.saturating_sub(candidate.held);
    let whole =
        candidates.iter().filter(|candidate| candidate.role == "aggregate" || candidate.role.is_empty());
    // What it decodes slows an engine's prompts as well.
    let whole = whole.map(|candidate| {
        let cost = cost(candidate) + candidate.running * DECODING;
        (cost, Choice::Whole(candidate.worker.clone()))
    });
    // In the order of their first engines.
    let mut groups: Vec<(&str, Vec<&Candidate>)> = Vec::new();
    for candidate in candidates {
        let Some(group) = candidate.group.as_deref() else { continue };
        match groups.iter_mut().find(|(name, _)| *name == group) {
            Some((_, members)) => members.push(candidate),
            None => groups.push((group, vec![candidate])),
        }
    }
    let pairs = groups.into_iter().filter_map(|(_, group)| {
        let prefill = group.iter().filter(|c| c.role == "prefill").min_by_key(|c| cost(c))?;
        // Its own prefix need not be transferred, which decides among those that have as much to do.
        let decode = group.iter().filter(|c| c.role == "decode");
        let decode = decode.min_by_key(|c| (c.running, std::cmp::Reverse(c.held)))?;
        let pair = Choice::Pair { prefill: prefill.worker.clone(), decode: decode.worker.clone() };
        Some((cost(prefill) + decode.running * DECODING, pair))
    });
    whole.chain(pairs).min_by_key(|(cost, _)| *cost).map(|(_, choice)| choice)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engine(worker: &str, held: u64, queued: u64) -> Candidate {
        Candidate { worker: worker.into(), held, queued, ..Candidate::default() }
    }

    fn part(worker: &str, role: &str, group: &str, held: u64) -> Candidate {
        Candidate { role: role.into(), group: Some(group.into()), ..engine(worker, held, 0) }
    }

    fn whole(worker: &str) -> Option<Choice> {
        Some(Choice::Whole(worker.into()))
    }

    #[test]
    fn a_prefix_is_worth_its_tokens_and_a_queue_costs_them() {
        assert_eq!(choose(1000, &[engine("a", 0, 0), engine("b", 800, 0)]), whole("b"));
        assert_eq!(choose(1000, &[engine("a", 0, 0), engine("b", 800, 700)]), whole("b"));
        assert_eq!(choose(1000, &[engine("a", 0, 0), engine("b", 800, 900)]), whole("a"));
        assert_eq!(choose(1000, &[engine("a", 0, 0), engine("b", 0, 0)]), whole("a"), "the first of equals");
        assert_eq!(choose(1000, &[]), None);
    }

    #[test]
    fn a_suspect_prefix_counts_half() {
        let suspect = engine("a", believed(900, true), 0);
        assert_eq!(choose(1000, &[suspect.clone(), engine("b", believed(500, false), 0)]), whole("b"));
        assert_eq!(choose(1000, &[suspect, engine("b", believed(400, false), 0)]), whole("a"));
    }

    #[test]
    fn a_pair_is_of_one_group_and_needs_both() {
        let two = [
            part("p1", "prefill", "one", 0),
            part("d1", "decode", "one", 0),
            part("p2", "prefill", "two", 640),
            part("d2", "decode", "two", 0),
            part("d3", "decode", "two", 640),
        ];
        let pair = Choice::Pair { prefill: "p2".into(), decode: "d3".into() };
        assert_eq!(choose(1000, &two), Some(pair));
        assert_eq!(choose(1000, &two[..1]), None, "nobody decodes");
        let cold = [part("p2", "prefill", "two", 0), part("p1", "prefill", "one", 0)];
        let decode = [part("d1", "decode", "one", 0), part("d2", "decode", "two", 0)];
        let pair = Choice::Pair { prefill: "p2".into(), decode: "d2".into() };
        assert_eq!(
            choose(1000, &[cold, decode].concat()),
            Some(pair),
            "the first of equals, whatever its name"
        );
        // Three requests decoded beside it weigh more than what it holds.
        let mut busy = two;
        for engine in busy.iter_mut().skip(3) {
            engine.running = 3;
        }
        let pair = Choice::Pair { prefill: "p1".into(), decode: "d1".into() };
        assert_eq!(choose(1000, &busy), Some(pair));
    }
}
