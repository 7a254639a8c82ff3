//! Where a worker's data-parallel ranks publish, from what an operator wrote: one endpoint and a number of
//! ranks, or a list of streams.
//!
//! **A port that two sockets would share is an error, not a warning.** With the usual pair 5557 and 5558 and two
//! ranks, rank 1 publishes on the port where rank 0 replays. On one host such an engine does not even start,
//! because the second socket finds the port taken; so a definition like this is either a slip of the pen or
//! describes an engine that is not there, and following it would ask a publisher for replays and wait for events
//! from a replay socket, both in silence. Ranks on several hosts may share a port number; listed as streams, with
//! their hosts, they do not collide.

use std::collections::{BTreeMap, BTreeSet};

use kvindex_core::DpRank;
use kvindex_core::limits::MAX_DP_RANKS;

use crate::endpoints::{Endpoint, spread};
use crate::workers::{FieldError, RawStream, StreamSource};

/// What an operator is told to do about a shared port.
const KEEP_APART: &str = "ports count up with the rank, so the engine's publishing and replaying ports must start at \
                          least as far apart as there are ranks";

/// What a listed endpoint is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Publishing,
    Replaying,
}

impl Use {
    const fn field(self) -> &'static str {
        match self {
            Self::Publishing => "endpoint",
            Self::Replaying => "replay_endpoint",
        }
    }

    fn verb(self) -> &'static str {
        match self {
            Self::Publishing => "publishes",
            Self::Replaying => "replays",
        }
    }

    fn parse(self, text: &str) -> Result<Endpoint, String> {
        match self {
            Self::Publishing => Endpoint::parse(text),
            Self::Replaying => Endpoint::parse_replay(text),
        }
    }
}

/// Sources of streams that are listed one by one.
///
/// # Errors
/// The first field that is malformed, or whose rank or endpoint an earlier one has.
pub(crate) fn listed(streams: &[RawStream]) -> Result<Vec<StreamSource>, FieldError> {
    let (mut ranks, mut taken) = (BTreeSet::new(), BTreeMap::new());
    let mut sources = Vec::with_capacity(streams.len());
    for (i, stream) in streams.iter().enumerate() {
        let at_fault = |name: &str, message: String| FieldError::new(format!("streams[{i}].{name}"), message);
        let rank = stream.dp_rank;
        if rank >= MAX_DP_RANKS {
            return Err(at_fault("dp_rank", format!("is {rank}, the limit is {}", MAX_DP_RANKS - 1)));
        }
        if !ranks.insert(rank) {
            return Err(at_fault("dp_rank", format!("rank {rank} is listed twice")));
        }
        let mut claim = |used: Use, text: &str| {
            let endpoint = used.parse(text).map_err(|message| at_fault(used.field(), message))?;
            match taken.insert(endpoint.place(), (i, rank, used)) {
                Some(other) => Err(at_fault(used.field(), shared(text, (rank, used), other))),
                None => Ok(endpoint.to_string()),
            }
        };
        let endpoint = claim(Use::Publishing, &stream.endpoint)?;
        let replay = match stream.replay_endpoint.as_str() {
            "" => None,
            text => Some(claim(Use::Replaying, text)?),
        };
        let dp_rank = DpRank(rank);
        sources.push(StreamSource {
            dp_rank,
            endpoint,
            replay_endpoint: replay,
            topic: stream.topic.clone(),
        });
    }
    sources.sort_by_key(|source| source.dp_rank);
    Ok(sources)
}

fn shared(text: &str, (rank, used): (u32, Use), (i, other_rank, other): (usize, u32, Use)) -> String {
    let field = format!("streams[{i}].{}", other.field());
    let both = format!("rank {rank} {}, rank {other_rank} {} there", used.verb(), other.verb());
    let advice = if used == other { "every rank has sockets of its own" } else { KEEP_APART };
    format!("{text} is also {field} ({both}): {advice}")
}

/// Sources of ranks 0 to `ranks` - 1 of one engine: rank n publishes on port + n and replays on port + n.
///
/// # Errors
/// When an endpoint is malformed, there are too many ranks, or a port would be used twice.
pub(crate) fn computed(
    endpoint: &str,
    replay_endpoint: &str,
    topic: &str,
    ranks: u32,
) -> Result<Vec<StreamSource>, FieldError> {
    if ranks > MAX_DP_RANKS {
        let message = format!("is {ranks}, the limit is {MAX_DP_RANKS}");
        return Err(FieldError::new("data_parallel_size", message));
    }
    let spread = |used: Use, text: &str| {
        let spread = used.parse(text).and_then(|base| spread(&base, ranks));
        spread.map_err(|message| FieldError::new(used.field(), message))
    };
    let publish = spread(Use::Publishing, endpoint)?;
    let replay = match replay_endpoint {
        "" => Vec::new(),
        text => spread(Use::Replaying, text)?,
    };
    if let Some(message) = collision(&publish, &replay) {
        return Err(FieldError::new("replay_endpoint", message));
    }
    let mut replay = replay.into_iter();
    let sources = (0..).zip(publish).map(|(rank, endpoint)| StreamSource {
        dp_rank: DpRank(rank),
        endpoint: endpoint.to_string(),
        replay_endpoint: replay.next().map(|endpoint| endpoint.to_string()),
        topic: topic.to_owned(),
    });
    Ok(sources.collect())
}

fn collision(publish: &[Endpoint], replay: &[Endpoint]) -> Option<String> {
    let shared = |endpoint: &Endpoint| replay.iter().position(|other| other.place() == endpoint.place());
    let mut ranks = publish.iter().enumerate();
    let (rank, endpoint, other) =
        ranks.find_map(|(rank, endpoint)| shared(endpoint).map(|other| (rank, endpoint, other)))?;
    let range = |all: &[Endpoint]| match all {
        [first, .., last] => format!("{first} to {last}"),
        all => all.iter().map(ToString::to_string).collect(),
    };
    Some(format!(
        "rank {rank} would publish on {endpoint}, where rank {other} replays (publishing on {}, replaying on {}): \
         {KEEP_APART} ({})",
        range(publish),
        range(replay),
        publish.len(),
    ))
}

#[cfg(test)]
#[path = "sources_test.rs"]
mod tests;
