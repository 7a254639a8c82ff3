//! Bugs put in on purpose, to see that the invariants find them. A simulation that finds none of these proves
//! nothing by finding nothing else.

use std::str::FromStr;

/// A bug to put in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mutation {
    /// None.
    #[default]
    None,
    /// The disk says "flushed" and has not.
    SkipFlush,
    /// Votes are not kept.
    SkipVote,
    /// A batch that comes again is applied again.
    SkipDedup,
    /// A write is acknowledged before a quorum has it.
    AnswerEarly,
    /// A linearizable read does not wait.
    SkipBarrier,
    /// A snapshot's blocks are not taken in: what was there stays.
    KeepOnImport,
    /// A follower that takes a stream over believes its own number instead of the replicated one.
    ForgetStamp,
    /// What is decided of a stream does not say for which registration of its worker.
    ForgetRegistration,
}

impl Mutation {
    /// All of them, by the name that the command line uses.
    pub const ALL: [(Self, &'static str); 9] = [
        (Self::None, "none"),
        (Self::SkipFlush, "skip-flush"),
        (Self::SkipVote, "skip-vote"),
        (Self::SkipDedup, "skip-dedup"),
        (Self::AnswerEarly, "answer-early"),
        (Self::SkipBarrier, "skip-barrier"),
        (Self::KeepOnImport, "keep-on-import"),
        (Self::ForgetStamp, "forget-stamp"),
        (Self::ForgetRegistration, "forget-registration"),
    ];

    /// The name that the command line uses.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(mutation, _)| *mutation == self).map_or("none", |(_, name)| name)
    }
}

impl FromStr for Mutation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|(_, name)| *name == text);
        let names = || Self::ALL.map(|(_, name)| name).join(", ");
        found.map(|(mutation, _)| *mutation).ok_or_else(|| format!("no mutation \"{text}\": {}", names()))
    }
}
