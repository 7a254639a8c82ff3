//! What a client counted: a value to look at, for any metrics library, instead of hooks into one.

use std::net::SocketAddr;
use std::time::Duration;

/// Upper bounds of the buckets in [`EndpointStats::buckets`]; the last bucket has none.
pub const LATENCY_BOUNDS: [Duration; 10] = [
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_millis(2),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(20),
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_secs(1),
];

/// What a client counted since it was made.
///
/// ```no_run
/// # fn export(client: &kvindex_client::Client) {
/// let stats = client.stats();
/// for endpoint in &stats.endpoints {
///     println!("kvindex_client_calls{{server={:?},outcome=\"answered\"}} {}", endpoint.server, endpoint.answered);
///     println!("kvindex_client_calls{{server={:?},outcome=\"timed_out\"}} {}", endpoint.server, endpoint.timed_out);
/// }
/// println!("kvindex_client_hedges {}", stats.hedges);
/// # }
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct ClientStats {
    /// Each endpoint, in the order of the configuration.
    pub endpoints: Vec<EndpointStats>,
    /// Routing calls, each batch as one; the questions of match streams are not among them.
    pub routing_calls: u64,
    /// Those of them whose answer was unknown.
    pub unknown: u64,
    /// Calls repeated at another endpoint because the first one failed or was behind.
    pub retries: u64,
    /// Calls that were not repeated because too many had been.
    pub retries_refused: u64,
    /// Second calls made because the first one took long.
    pub hedges: u64,
    /// Those of them that were answered first.
    pub hedges_won: u64,
    /// Second calls that were not made because too many had been.
    pub hedges_refused: u64,
    /// Prompts that count as held where they were routed to, because nothing else is known yet.
    pub speculative_prompts: usize,
}

/// What a client counted of one endpoint.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct EndpointStats {
    /// The address as configured.
    pub server: String,
    /// Which of the name's addresses, with [`ClientConfig::every_address`](crate::ClientConfig::every_address).
    pub address: Option<SocketAddr>,
    /// Whether it is asked.
    pub state: EndpointState,
    /// Why it is not, for people.
    pub left_out: Option<String>,
    /// Calls that wait for it.
    pub outstanding: u32,
    /// Moving mean of routing calls, which jumps up at once and comes down slowly.
    pub latency: Option<Duration>,
    /// Calls answered.
    pub answered: u64,
    /// Calls answered with something older than asked for.
    pub stale: u64,
    /// Calls without an answer in time.
    pub timed_out: u64,
    /// Calls that found no connection, lost it, or met a node that could not answer.
    pub unavailable: u64,
    /// Calls refused because the node has too much to do, or the token asked too often.
    pub overloaded: u64,
    /// Calls refused for what they say.
    pub refused: u64,
    /// Calls given up because another endpoint answered first, or because nobody waited any more.
    pub overtaken: u64,
    /// How long the calls in `buckets` took, all together.
    pub answered_for: Duration,
    /// Answered calls by how long they took, up to each of [`LATENCY_BOUNDS`] and beyond. A stream's answer that lay here
    /// before it was read is not among them: how long the node took is not known.
    pub buckets: [u64; LATENCY_BOUNDS.len() + 1],
}

/// Whether an endpoint is asked. Those left out are asked when there is no other; broken ones are not even then, but by
/// admin calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum EndpointState {
    /// It is.
    #[default]
    Asked,
    /// Left out: its answers were older than [`ClientConfig::max_age`](crate::ClientConfig::max_age).
    Behind,
    /// Left out: it says that it is not ready, or does not answer probes.
    NotReady,
    /// Left out: calls to it failed, and its circuit breaker is open.
    Broken,
}

/// How a call to one endpoint ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Answered,
    /// A stream's answer that lay here before it was read.
    ReadLate,
    Stale,
    TimedOut,
    Unavailable,
    Overloaded,
    Refused,
    Overtaken,
    /// A stream was opened, which is no answer.
    Opened,
}

impl EndpointStats {
    pub(crate) fn count(&mut self, outcome: Outcome, took: Duration) {
        match outcome {
            Outcome::Answered => {
                self.answered += 1;
                self.answered_for += took;
                let bucket = LATENCY_BOUNDS.iter().take_while(|bound| took > **bound).count();
                if let Some(count) = self.buckets.get_mut(bucket) {
                    *count += 1;
                }
            }
            Outcome::ReadLate => self.answered += 1,
            Outcome::Stale => self.stale += 1,
            Outcome::TimedOut => self.timed_out += 1,
            Outcome::Unavailable => self.unavailable += 1,
            Outcome::Overloaded => self.overloaded += 1,
            Outcome::Refused => self.refused += 1,
            Outcome::Overtaken => self.overtaken += 1,
            Outcome::Opened => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_how_long_they_took() {
        let mut stats = EndpointStats::default();
        stats.count(Outcome::Answered, Duration::from_micros(250));
        stats.count(Outcome::Answered, Duration::from_micros(251));
        stats.count(Outcome::Answered, Duration::from_secs(60));
        stats.count(Outcome::TimedOut, Duration::from_secs(60));
        assert_eq!(stats.buckets, [1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!((stats.answered, stats.timed_out), (3, 1));
        assert_eq!(stats.answered_for, Duration::from_secs(60) + Duration::from_micros(501));
    }
}
