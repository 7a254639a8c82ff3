//! What followers have acknowledged to this node as a leader, so that a log that went back is noticed.
//!
//! A follower that lacks what it acknowledged in the same term has lost it: it runs from an old copy of its data, or
//! the power took the end of a log that was not flushed. It counted for commits that it knows nothing of and may vote
//! for a leader that lacks them, so it must not go on under its id. openraft takes such a follower for a bug of its
//! own: in builds with debug assertions the healthy leader panics.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::ids::NodeId;
use super::raft::{LogId, Vote};

/// The last entry that each follower has, as of its last answer in this term. Clones are one and the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Promises(Arc<Mutex<BTreeMap<NodeId, (Vote, LogId)>>>);

impl Promises {
    /// What a follower has acknowledged under this vote.
    pub(crate) fn of(&self, follower: NodeId, vote: &Vote) -> Option<LogId> {
        self.0.lock().get(&follower).filter(|(under, _)| under == vote).map(|(_, last)| *last)
    }

    /// The follower has everything up to `last`.
    pub(crate) fn note(&self, follower: NodeId, vote: &Vote, last: Option<LogId>) {
        let Some(last) = last else { return };
        let mut promises = self.0.lock();
        let promise = promises.entry(follower).or_insert((*vote, last));
        // Answers of two links may overtake each other.
        let later_term = promise.0 < *vote;
        if later_term || promise.0 == *vote && promise.1 < last {
            *promise = (*vote, last);
        }
    }
}
