//! Taking entries away so that an index stays below a cap: at once by what this index knows, or as commands that say
//! block by block what goes, for indexes that must stay equal. What goes first is in
//! [`eviction_plan`](super::eviction_plan).

use super::changes::Applying;
use super::eviction_plan::Plan;
use super::fairness::Giving;
use super::journal::Cause;
use super::outcome::{Notice, Outcome};
use super::owner_blocks::Copies;
use super::owner_set::OwnerSlot;
use super::{Index, IndexReader};
use crate::command::{Command, ForgottenBlocks};
use crate::hash::EngineBlockHash;
use crate::ids::WorkerId;

/// Most blocks that one command of a plan names: a command that fits into a log entry, and is applied in some ten
/// milliseconds.
const BLOCKS_PER_COMMAND: usize = 16_384;

impl IndexReader<'_> {
    /// What [`Command::Evict`] would take of the workers that `of` chooses, as commands that say it block by block:
    /// they do the same on every index that holds the same of these workers, whatever it holds of others and whatever
    /// it thinks to be old.
    #[must_use]
    pub fn plan_eviction(&self, entries: u64, at_ms: u64, of: impl Fn(&WorkerId) -> bool) -> Vec<Command> {
        self.forgetting(Plan::new(*self, entries, of), at_ms)
    }

    /// Commands that take of each tenant as many entries as it gives, of the workers that `of` chooses: what no event
    /// touched for longest. They do the same on every index that holds the same of these workers.
    #[must_use]
    pub fn plan_giving(&self, giving: &Giving, at_ms: u64, of: impl Fn(&WorkerId) -> bool) -> Vec<Command> {
        self.forgetting(Plan::giving(*self, giving, of), at_ms)
    }

    fn forgetting(&self, plan: Plan<'_>, at_ms: u64) -> Vec<Command> {
        let registry = self.registry();
        let mut commands = Vec::new();
        for (slot, hashes) in plan.victims() {
            let Some(owner) = registry.owner(slot) else { continue };
            let Some(stream) = registry.stream(owner.stream) else { continue };
            commands.extend(hashes.chunks(BLOCKS_PER_COMMAND).map(|hashes| {
                Command::Forget(ForgottenBlocks {
                    stream: stream.id.clone(),
                    generation: stream.stamp.generation,
                    tier: owner.tier.clone(),
                    group: owner.group,
                    hashes: hashes.to_vec(),
                    at_ms,
                    registration: stream.registration,
                })
            }));
        }
        commands
    }
}

impl Index {
    /// Takes at least so many entries away, all when there are fewer.
    pub(super) fn evict(
        &mut self,
        entries: u64,
        at_ms: u64,
        notice: &mut dyn FnMut(Notice<'_>),
        outcome: &mut Outcome,
    ) {
        for (slot, hashes) in Plan::new(self.reader(), entries, |_| true).victims() {
            self.evict_from(slot, &hashes, at_ms, notice, outcome);
        }
    }

    /// Takes the named blocks away, unless the stream's cache is another one by now.
    pub(super) fn forget(
        &mut self,
        blocks: &ForgottenBlocks,
        notice: &mut dyn FnMut(Notice<'_>),
        outcome: &mut Outcome,
    ) {
        let Some(number) = self.registry.stream_number_of(&blocks.stream) else {
            outcome.unknown_worker += 1;
            return;
        };
        let Some(stream) = self.registry.stream(number) else { return };
        if !stream.takes(blocks.registration) {
            outcome.other_registration += 1;
            return;
        }
        if stream.stamp.generation != blocks.generation {
            outcome.stale += 1;
            return;
        }
        if let Some(slot) = self.registry.find_owner(number, &blocks.tier, blocks.group) {
            self.evict_from(slot, &blocks.hashes, blocks.at_ms, notice, outcome);
        }
    }

    fn evict_from(
        &mut self,
        slot: OwnerSlot,
        hashes: &[EngineBlockHash],
        at_ms: u64,
        notice: &mut dyn FnMut(Notice<'_>),
        outcome: &mut Outcome,
    ) {
        let Some(stream) = self.registry.owner(slot).map(|owner| owner.stream) else { return };
        let batch = self.registry.stream(stream).and_then(|stream| stream.stamp.applied);
        self.applying(stream, batch.unwrap_or_default(), at_ms, notice, outcome).evict(slot, hashes);
    }
}

impl Applying<'_> {
    /// Takes all copies of these blocks away from an owner. The stream may hold more than the index knows then.
    fn evict(&mut self, slot: OwnerSlot, hashes: &[EngineBlockHash]) {
        let Some(owner) = self.index.registry.owner(slot) else { return };
        let (tier, group) = (owner.tier.clone(), owner.group);
        let before = self.outcome.evicted;
        for block in hashes {
            let Some(owner) = self.index.registry.owner_mut(slot) else { return };
            owner.blocks.drop_copies(*block);
            if let Copies::Last(place) = self.index.take_copy(slot, *block) {
                self.outcome.evicted += 1;
                self.lose(slot, *block, place, Cause::Evicted, (&tier, group));
            }
        }
        if self.outcome.evicted == before {
            return;
        }
        // Names leave holes that would keep the index above its cap.
        if let Some(owner) = self.index.registry.owner_mut(slot) {
            owner.blocks.tighten();
        }
        self.doubt();
    }
}
