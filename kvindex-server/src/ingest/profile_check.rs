//! Does a stream's engine hash its blocks as its hash profile says? A caller who computes engine hashes by a wrong
//! profile finds nothing, ever, and nothing else would tell why. So the first blocks of each life of the engine
//! are recomputed from what their events show.

use kvindex_core::mirror::{Comparison, Difference, HashProfile};
use kvindex_core::{BlockStored, EventBatch, KvEvent, StreamId};

/// How a stream's hashes compare with its hash profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HashCheck {
    /// There is no profile, or no event has yet shown what its hashes cover.
    #[default]
    Unchecked,
    /// They are the profile's.
    Matches,
    /// They are not.
    Differs,
}

impl HashCheck {
    /// All states, for metrics.
    pub const ALL: [Self; 3] = [Self::Unchecked, Self::Matches, Self::Differs];

    /// The state's word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unchecked => "unchecked",
            Self::Matches => "matches",
            Self::Differs => "differs",
        }
    }
}

/// Blocks of one event that are looked at. A single equal one is a match, for 64 bits are no accident; waiting for
/// more could take for ever, because prompts that share their first block announce it once.
const BLOCKS: usize = 8;

/// Events of either kind that are looked at, plain ones and those with a salt, images or the like: what the latter
/// hash changed with the releases, and an SGLang format may show in few of the former.
const EVENTS: usize = 64;

/// Differences that are no proof each, but are taken for one together while nothing was equal. Few, because a
/// wrong profile must not stay unseen; an equal block later on takes it back.
const DOUBTS: usize = 4;

/// The check of one stream.
#[derive(Debug)]
pub(super) struct ProfileCheck {
    profile: HashProfile,
    /// Whether the profile was made for the engine's release, or for a guess.
    release_known: bool,
    state: HashCheck,
    plain_events: usize,
    keyed_events: usize,
    doubts: usize,
    /// Whether a difference was proof.
    proven: bool,
}

/// A state that a check came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) state: HashCheck,
    /// What decided it, where a block differed.
    pub(super) difference: Option<Difference>,
}

impl ProfileCheck {
    pub(super) fn new(profile: HashProfile, release_known: bool) -> Self {
        let state = HashCheck::Unchecked;
        Self { profile, release_known, state, plain_events: 0, keyed_events: 0, doubts: 0, proven: false }
    }

    /// Begins anew: an engine that started again may have got another seed.
    pub(super) fn restart(&mut self) {
        *self = Self::new(self.profile, self.release_known);
    }

    /// Looks at a batch; tells when it changes the state. Once enough was seen, nothing is hashed.
    pub(super) fn look(&mut self, batch: &EventBatch) -> Option<Verdict> {
        let seen_enough =
            self.plain_events.min(self.keyed_events) >= EVENTS && self.state == HashCheck::Matches;
        if seen_enough || self.proven {
            return None;
        }
        let before = self.state;
        for event in &batch.events {
            if let KvEvent::BlockStored(stored) = event
                && self.wants(stored)
                && let Some(compared) = self.profile.compare(stored, self.release_known, BLOCKS)
            {
                let known = self.state;
                self.take(&compared);
                if self.state != known && self.state == HashCheck::Differs {
                    return Some(Verdict { state: self.state, difference: compared.difference });
                }
            }
        }
        (self.state != before).then_some(Verdict { state: self.state, difference: None })
    }

    fn wants(&self, stored: &BlockStored) -> bool {
        let keyed =
            !stored.extra_keys.is_empty() || stored.cache_salt.is_some() || !stored.lookahead.is_empty();
        let seen = if keyed { self.keyed_events } else { self.plain_events };
        seen < EVENTS || self.state != HashCheck::Matches
    }

    fn take(&mut self, compared: &Comparison) {
        let seen = if compared.keyed { &mut self.keyed_events } else { &mut self.plain_events };
        *seen += 1;
        if compared.equal > 0 {
            self.state = HashCheck::Matches;
        }
        if let Some(difference) = compared.difference {
            self.doubts += 1;
            self.proven |= difference.proof;
            let doubtful = self.state == HashCheck::Unchecked && self.doubts >= DOUBTS;
            if self.proven || doubtful {
                self.state = HashCheck::Differs;
            }
        }
    }
}

impl Verdict {
    /// One line for the operator.
    pub(super) fn tell(&self, stream: &StreamId) {
        let hash_check = self.state.name();
        let Some(Difference { expected, announced, .. }) = self.difference else {
            tracing::info!(%stream, hash_check, "the engine hashes as its hash_profile says");
            return;
        };
        tracing::warn!(
            %stream,
            hash_check,
            %expected,
            %announced,
            "the engine hashes blocks otherwise than its hash_profile says: hashes computed by that profile find \
             nothing here; check algorithm, hash_seed (PYTHONHASHSEED) and engine_version"
        );
    }
}

#[cfg(test)]
#[path = "profile_check_test.rs"]
mod tests;
