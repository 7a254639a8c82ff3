//! What snapshots keep of workers, streams and owners, and how that is put back.

use serde::{Deserialize, Serialize};

use super::groups::Groups;
use super::naming::Book;
use super::owner_blocks::{Content, Orphan};
use super::registry::{Owner, Stream};
use super::reports::Reports;
use super::tree::{Place, Space};
use super::{Coverage, Index, OwnerSlot, StreamStamp};
use crate::hash::{EngineBlockHash, LocalBlockHash, SequenceHash};
use crate::ids::{BatchSeq, DpRank, Generation, Group, Registration, StreamId, Tier};
use crate::worker::WorkerSpec;

/// Run number of a block whose position is not known.
pub(super) const NOWHERE: u32 = u32::MAX;

#[derive(Serialize, Deserialize)]
pub(super) struct WorkerRecord {
    pub(super) spec: WorkerSpec,
    pub(super) streams: Vec<StreamRecord>,
    #[serde(default)]
    pub(super) registration: Registration,
}

#[derive(Serialize, Deserialize)]
pub(super) struct StreamRecord {
    pub(super) dp_rank: DpRank,
    generation: Generation,
    applied: Option<BatchSeq>,
    applied_at_ms: u64,
    coverage: Coverage,
    other_tiers: bool,
    pub(super) owners: Vec<OwnerRecord>,
    #[serde(default)]
    silent_clear: bool,
    #[serde(default)]
    groups: Groups,
    #[serde(default)]
    reports: Reports,
    #[serde(default)]
    payload_digest: Option<u64>,
    #[serde(default)]
    missed: bool,
}

#[derive(Serialize, Deserialize)]
pub(super) struct OwnerRecord {
    pub(super) tier: Tier,
    pub(super) group: Group,
    /// Blocks a chunk; in version 1 of a snapshot tokens a block.
    pub(super) chunk: u32,
    #[serde(with = "crate::columns")]
    pub(super) hashes: Vec<EngineBlockHash>,
    /// (Run, offset) of each hash; none at all where no position is known.
    pub(super) places: Vec<(u32, u32)>,
    /// Copies where there is more than one.
    pub(super) copies: Vec<(EngineBlockHash, u32)>,
    /// (Parent, block, space, local hash).
    pub(super) orphans: Vec<(EngineBlockHash, EngineBlockHash, u32, LocalBlockHash)>,
    /// (Block, content, positions) of engines that hash content alone.
    pub(super) contents: Vec<ContentRecord>,
    #[serde(default)]
    pub(super) by_tokens: bool,
}

type ContentRecord = (EngineBlockHash, Option<LocalBlockHash>, Vec<(u32, SequenceHash)>);

impl StreamRecord {
    /// All but what the stream's owners hold.
    pub(super) fn of(stream: &Stream, owners: Vec<OwnerRecord>) -> Self {
        Self {
            dp_rank: stream.id.dp_rank,
            generation: stream.stamp.generation,
            applied: stream.stamp.applied,
            applied_at_ms: stream.stamp.applied_at_ms,
            coverage: stream.stamp.coverage,
            other_tiers: stream.other_tiers,
            owners,
            silent_clear: stream.silent_clear,
            groups: stream.groups.clone(),
            reports: stream.reports.clone(),
            payload_digest: stream.stamp.payload_digest,
            missed: stream.missed,
        }
    }

    /// From version 1 of a snapshot, which kept each owner's block size and knew no groups.
    pub(super) fn restore_groups(&mut self) {
        for owner in &mut self.owners {
            self.groups.restore(owner.group, std::mem::take(&mut owner.chunk));
        }
    }

    /// From before it was kept whether anything was missed: what was not complete may have been for that.
    pub(super) fn suppose_missed(&mut self) {
        self.missed = self.coverage != Coverage::Complete;
    }
}

impl OwnerRecord {
    /// All but the names that it holds.
    pub(super) fn of(owner: &Owner) -> Self {
        let mut copies: Vec<_> = owner.blocks.iter_copies().collect();
        copies.sort_unstable();
        let mut orphans: Vec<_> =
            owner.blocks.iter_waiting().map(|(parent, o)| (parent, o.block, o.space.0, o.local)).collect();
        orphans.sort_unstable();
        let positions = |c: &Content| c.positions.iter().map(|(space, hash)| (space.0, *hash)).collect();
        let mut contents: Vec<_> =
            owner.blocks.iter_contents().map(|(block, c)| (block, c.local, positions(c))).collect();
        contents.sort_unstable();
        Self {
            tier: owner.tier.clone(),
            group: owner.group,
            chunk: owner.chunk,
            hashes: Vec::new(),
            places: Vec::new(),
            copies,
            orphans,
            contents,
            by_tokens: owner.by_tokens,
        }
    }

    /// Every number of a namespace in it.
    pub(super) fn spaces(&mut self) -> impl Iterator<Item = &mut u32> {
        let positions = self.contents.iter_mut().flat_map(|(_, _, positions)| positions);
        let orphans = self.orphans.iter_mut().map(|(_, _, space, _)| space);
        positions.map(|(space, _)| space).chain(orphans)
    }
}

impl Index {
    /// Makes a stream of its record, and answers its number. Its owners are not there yet.
    pub(super) fn restore_stream(&mut self, id: &StreamId, record: StreamRecord) -> Option<u32> {
        let stream = self.registry.open_stream(id, Registration(0)).ok()?;
        // The journal starts anew: it cannot speak of anything before the snapshot.
        let before = self.journal.forgotten_until_ms.unwrap_or(0);
        self.journal.forgotten_until_ms = Some(before.max(record.applied_at_ms));
        let state = self.registry.stream_mut(stream)?;
        state.other_tiers = record.other_tiers;
        state.silent_clear = record.silent_clear;
        state.missed = record.missed;
        state.groups = record.groups;
        state.reports = record.reports;
        state.stamp = StreamStamp {
            generation: record.generation,
            applied: record.applied,
            applied_at_ms: record.applied_at_ms,
            coverage: record.coverage,
            payload_digest: record.payload_digest,
        };
        self.review(stream);
        Some(stream)
    }

    /// Makes an owner of its record, with the names in it.
    pub(super) fn restore_owner(&mut self, stream: u32, record: OwnerRecord) -> Option<OwnerSlot> {
        let slot = self.open_owner(stream, &record.tier, record.group)?;
        let owner = self.registry.owner_mut(slot)?;
        owner.chunk = record.chunk;
        owner.by_tokens = record.by_tokens;
        if !record.places.is_empty() && record.places.len() != record.hashes.len() {
            return None;
        }
        // First, because blocks that are named by content have no shared names.
        for (block, local, positions) in record.contents {
            let positions: Vec<_> = positions.into_iter().map(|(space, hash)| (Space(space), hash)).collect();
            for position in &positions {
                owner.blocks.claim(*position);
            }
            *owner.blocks.content(block) = Content { local, positions };
        }
        let places = record.places.into_iter().chain(std::iter::repeat((NOWHERE, 0)));
        for (block, (run, offset)) in record.hashes.into_iter().zip(places) {
            self.restore_block(slot, block, Place { run, offset })?;
        }
        let owner = self.registry.owner_mut(slot)?;
        for (block, copies) in record.copies {
            owner.blocks.set_copies(block, copies);
        }
        for (parent, block, space, local) in record.orphans {
            owner.blocks.wait_for(parent, Orphan { block, space: Space(space), local });
        }
        Some(slot)
    }

    fn restore_block(&mut self, slot: OwnerSlot, block: EngineBlockHash, at: Place) -> Option<()> {
        if self.holdings().place(slot, block).is_some() {
            return None;
        }
        let owner = self.registry.owner_mut(slot)?;
        owner.blocks.add(block);
        self.entries += 1;
        self.stand_by_content(slot, block);
        if at.run != NOWHERE {
            let run = self.view.tree.run(at.run).filter(|run| (at.offset as usize) < run.blocks.len())?;
            let namespace = self.view.spaces.get(Space(run.space))?;
            self.note_stray(slot, Book::of(&namespace.tenant, &namespace.model));
            self.seat(slot, block, at);
        }
        Some(())
    }

    /// A block that is named by its content stands wherever it was announced.
    pub(super) fn stand_by_content(&mut self, slot: OwnerSlot, block: EngineBlockHash) {
        let content = self.registry.owner(slot).and_then(|owner| owner.blocks.content_of(block));
        for (space, hash) in content.map(|content| content.positions.clone()).unwrap_or_default() {
            let at = self.stretch(space, None, &[hash]).place;
            self.view.edit(|view| view.tree.hold(at.run, at.offset..at.offset + 1, slot));
            self.ages.touch(at.run);
        }
    }

    /// An owner is put among the blocks of this book: takes note when that is not its worker's present one.
    pub(super) fn note_stray(&mut self, slot: OwnerSlot, book: Book) {
        let stray = |owner: &&mut Owner| owner.book != book && !owner.strayed;
        if let Some(owner) = self.registry.owner_mut(slot).filter(stray) {
            owner.strayed = true;
            let stream = owner.stream;
            self.review(stream);
        }
    }
}
