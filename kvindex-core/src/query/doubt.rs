//! Doubts: what an engine's events leave open about an answer, and in which direction.

use std::fmt;

/// One reason why an answer may differ from what the engine itself would say although every event was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Doubt {
    /// Requests to this engine may carry what its events do not show (SGLang's `extra_key`, salts and images in
    /// old versions, another path under an adapter's name): equal tokens may not mean equal blocks. The match
    /// may be too long. Only in answers by tokens or sequence hashes.
    HiddenIdentity,
    /// The engine names blocks by their content alone (SGLang before 0.5.6), so their places are guessed. The
    /// match may be wrong either way.
    ContentHashes,
    /// The engine announces hits again as if they were new copies (vLLM's report mode `full`). They are told from
    /// copies by the order of events, which is no proof. The match may be wrong either way.
    RepeatedReports,
    /// The model has several KV-cache groups, and of one it is not known what it needs of a prefix; it is taken
    /// to need all. The match may be too short.
    UnknownGroups,
    /// The engine announced blocks without saying where in a prompt they stand. The match may be too short. Only
    /// in answers by tokens or sequence hashes.
    UnplacedBlocks,
    /// The engine cleared its cache without saying whether the tiers behind device memory were cleared too. The
    /// match may be too long there, or too short if the worker's clear policy is to clear them all.
    SilentClear,
    /// A tier moves blocks in chunks whose size is guessed from the events, and the match would be longer if it did
    /// not. The match may be too short.
    GuessedChunk,
}

/// All kinds, in order.
const ALL: [Doubt; 7] = [
    Doubt::HiddenIdentity,
    Doubt::ContentHashes,
    Doubt::RepeatedReports,
    Doubt::UnknownGroups,
    Doubt::UnplacedBlocks,
    Doubt::SilentClear,
    Doubt::GuessedChunk,
];

impl Doubt {
    /// The doubt's name in APIs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::HiddenIdentity => "hidden_identity",
            Self::ContentHashes => "content_hashes",
            Self::RepeatedReports => "repeated_reports",
            Self::UnknownGroups => "unknown_groups",
            Self::UnplacedBlocks => "unplaced_blocks",
            Self::SilentClear => "silent_clear",
            Self::GuessedChunk => "guessed_chunk",
        }
    }

    /// The doubt of this name; `None` for one that this version does not know.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        ALL.into_iter().find(|doubt| doubt.name() == name)
    }

    /// What is open, in a sentence for people.
    #[must_use]
    pub fn sentence(self) -> &'static str {
        match self {
            Self::HiddenIdentity => {
                "requests may carry what the events do not show: an extra key, a salt, an image, an adapter's path"
            }
            Self::ContentHashes => {
                "the engine names blocks by their content alone, so their places are guessed"
            }
            Self::RepeatedReports => "the engine announces hits again as if they were new copies",
            Self::UnknownGroups => {
                "what a KV-cache group needs of a prefix is not known, so it is taken to need all"
            }
            Self::UnplacedBlocks => "the engine announced blocks without saying where in a prompt they stand",
            Self::SilentClear => {
                "a clear named no tier, so what lies behind device memory may be gone or not"
            }
            Self::GuessedChunk => "how many blocks a tier moves at once is guessed from its events",
        }
    }

    /// Whether the match may be longer than what the engine would serve.
    #[must_use]
    pub fn may_be_too_long(self) -> bool {
        !matches!(self, Self::UnknownGroups | Self::UnplacedBlocks | Self::GuessedChunk)
    }

    /// Whether the match may be shorter than what the engine would serve.
    #[must_use]
    pub fn may_be_too_short(self) -> bool {
        self != Self::HiddenIdentity
    }
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of doubts; empty when the answer is as good as the events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Doubts(u8);

impl Doubts {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether this one is among them.
    #[must_use]
    pub fn contains(self, doubt: Doubt) -> bool {
        self.0 & Self::bit(doubt) != 0
    }

    /// The doubts, in the order of their definition.
    pub fn iter(self) -> impl Iterator<Item = Doubt> {
        ALL.into_iter().filter(move |doubt| self.contains(*doubt))
    }

    /// Adds a doubt if there is reason for it.
    pub(crate) fn add(&mut self, doubt: Doubt, reason: bool) {
        self.0 |= if reason { Self::bit(doubt) } else { 0 };
    }

    fn bit(doubt: Doubt) -> u8 {
        1 << (doubt as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_doubts() {
        let mut doubts = Doubts::default();
        doubts.add(Doubt::SilentClear, true);
        doubts.add(Doubt::ContentHashes, true);
        doubts.add(Doubt::UnknownGroups, false);
        let names: Vec<&str> = doubts.iter().map(Doubt::name).collect();
        assert_eq!(names, ["content_hashes", "silent_clear"]);
        assert!(!doubts.contains(Doubt::UnknownGroups) && !doubts.is_empty());
        assert!(ALL.iter().all(|doubt| Doubt::from_name(doubt.name()) == Some(*doubt)));
        assert_eq!(Doubt::from_name("of another version"), None);
    }
}
