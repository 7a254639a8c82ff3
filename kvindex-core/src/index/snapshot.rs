//! Snapshots: an index as bytes.
//!
//! Layout: `KVXSNAP\0`, version (u16 LE), 6 zero bytes, length of the body (u64 LE), body, XXH3-64 of all
//! before it (u64 LE). Body: msgpack of [`Snapshot`], structs as arrays, hash columns as little-endian byte
//! strings. Version 2 put what a stream says of its groups behind what version 1 had, version 3 when runs were last
//! touched behind that, version 4 the digest of each stream's last payload; older ones are still read. The same index makes the same bytes; the journal is not
//! part of it.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::ages::Ages;
use super::groups::Groups;
use super::holders::Holders;
use super::holding::HeldBlock;
use super::naming::Book;
use super::owner_blocks::{Content, Orphan};
use super::registry::Owner;
use super::reports::Reports;
use super::spaces::Family;
use super::tree::{Place, Run, Space};
use super::{Coverage, Index, IndexReader, OwnerSlot, StreamStamp};
use crate::hash::{EngineBlockHash, LocalBlockHash, SequenceHash};
use crate::ids::{BatchSeq, DpRank, Generation, Group, StreamId, Tier};
use crate::limits::{IndexLimits, MAX_RUN_BLOCKS};
use crate::worker::{Namespace, WorkerSpec};

const MAGIC: &[u8; 8] = b"KVXSNAP\0";
const VERSION: u16 = 4;
const HEADER: usize = 24;
/// Run number of a block whose position is not known.
const NOWHERE: u32 = u32::MAX;

/// Why bytes are not a usable snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// Not ours at all.
    #[error("not a kvindex snapshot")]
    NotASnapshot,
    /// Written by a newer version.
    #[error("snapshot version {0} is newer than this program, which reads up to {VERSION}")]
    Version(u16),
    /// Cut short or changed since it was written.
    #[error("snapshot is damaged: {0}")]
    Damaged(String),
}

#[derive(Serialize, Deserialize)]
struct Snapshot {
    spaces: Vec<Namespace>,
    runs: Vec<RunRecord>,
    workers: Vec<WorkerRecord>,
    /// Stored events so far.
    #[serde(default)]
    clock: u32,
}

#[derive(Serialize, Deserialize)]
struct RunRecord {
    space: u32,
    #[serde(with = "crate::columns")]
    blocks: Vec<SequenceHash>,
    /// What the clock said when the run was last touched.
    #[serde(default)]
    touched: u32,
}

#[derive(Serialize, Deserialize)]
struct WorkerRecord {
    spec: WorkerSpec,
    streams: Vec<StreamRecord>,
}

#[derive(Serialize, Deserialize)]
struct StreamRecord {
    dp_rank: DpRank,
    generation: Generation,
    applied: Option<BatchSeq>,
    applied_at_ms: u64,
    coverage: Coverage,
    other_tiers: bool,
    owners: Vec<OwnerRecord>,
    #[serde(default)]
    silent_clear: bool,
    #[serde(default)]
    groups: Groups,
    #[serde(default)]
    reports: Reports,
    #[serde(default)]
    payload_digest: Option<u64>,
}

impl StreamRecord {
    /// From version 1, which kept each owner's block size and knew no groups.
    fn upgrade(&mut self) {
        for owner in &mut self.owners {
            self.groups.restore(owner.group, std::mem::take(&mut owner.chunk));
        }
    }
}

#[derive(Serialize, Deserialize)]
struct OwnerRecord {
    tier: Tier,
    group: Group,
    /// Blocks a chunk; in version 1 tokens a block.
    chunk: u32,
    #[serde(with = "crate::columns")]
    hashes: Vec<EngineBlockHash>,
    /// (Run, offset) of each hash.
    places: Vec<(u32, u32)>,
    /// Copies where there is more than one.
    copies: Vec<(EngineBlockHash, u32)>,
    /// (Parent, block, space, local hash).
    orphans: Vec<(EngineBlockHash, EngineBlockHash, u32, LocalBlockHash)>,
    /// (Block, content, positions) of engines that hash content alone.
    contents: Vec<ContentRecord>,
    #[serde(default)]
    by_tokens: bool,
}

type ContentRecord = (EngineBlockHash, Option<LocalBlockHash>, Vec<(u32, SequenceHash)>);

impl Index {
    /// The index as bytes, see the module's page for the layout.
    #[must_use]
    pub fn snapshot(&self) -> Vec<u8> {
        let body = rmp_serde::to_vec(&self.reader().record()).unwrap_or_default();
        let mut bytes = Vec::with_capacity(HEADER + body.len() + 8);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&[0; 6]);
        bytes.extend_from_slice(&(body.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&body);
        let digest = xxh3_64(&bytes);
        bytes.extend_from_slice(&digest.to_le_bytes());
        bytes
    }

    /// Reads a snapshot back. The result is checked as a whole before it is handed out.
    ///
    /// # Errors
    /// When the bytes are no snapshot, of a newer version, or damaged.
    pub fn restore(bytes: &[u8], limits: IndexLimits) -> Result<Self, SnapshotError> {
        let damaged = |what: &str| SnapshotError::Damaged(what.to_owned());
        let header = bytes.first_chunk::<HEADER>().ok_or(SnapshotError::NotASnapshot)?;
        if !header.starts_with(MAGIC) {
            return Err(SnapshotError::NotASnapshot);
        }
        let version = u16::from_le_bytes([header[8], header[9]]);
        if !(1..=VERSION).contains(&version) {
            return Err(SnapshotError::Version(version));
        }
        let (content, digest) = bytes.split_last_chunk::<8>().ok_or_else(|| damaged("too short"))?;
        let body = content.get(HEADER..).ok_or_else(|| damaged("too short"))?;
        let length = header.last_chunk::<8>().map(|len| u64::from_le_bytes(*len));
        if length != Some(body.len() as u64) {
            return Err(damaged("length does not agree"));
        }
        if u64::from_le_bytes(*digest) != xxh3_64(content) {
            return Err(damaged("checksum does not agree"));
        }
        let mut record: Snapshot =
            rmp_serde::from_slice(body).map_err(|e| SnapshotError::Damaged(e.to_string()))?;
        if version == 1 {
            record.workers.iter_mut().flat_map(|worker| &mut worker.streams).for_each(StreamRecord::upgrade);
        }
        Self::from_record(record, limits)
    }

    fn from_record(record: Snapshot, limits: IndexLimits) -> Result<Self, SnapshotError> {
        let damaged = |what: &str| SnapshotError::Damaged(what.to_owned());
        let mut index = Self::new(limits);
        for namespace in &record.spaces {
            let (tenant, model, lora) = (&*namespace.tenant, &*namespace.model, namespace.lora.as_deref());
            let family = Family { tenant, model, lora };
            index.intern(family, namespace.block_size, namespace.scheme);
        }
        if index.view.spaces.all() != record.spaces {
            return Err(damaged("namespaces repeat"));
        }
        let touched = record.runs.iter().map(|run| run.touched).collect();
        for run in record.runs {
            let known = index.view.spaces.get(Space(run.space)).is_some();
            let twice =
                run.blocks.first().is_none_or(|head| index.view.tree.head(Space(run.space), *head).is_some());
            if !known || twice || run.blocks.len() > MAX_RUN_BLOCKS {
                return Err(damaged("a run is empty, too long, doubled or in no namespace"));
            }
            let holders = Holders::none(run.blocks.len() as u32);
            let run = Run { space: run.space, blocks: run.blocks, holders };
            index.view.edit(|view| view.tree.insert_run(run));
        }
        for worker in record.workers {
            let id = worker.spec.id.clone();
            index.registry.register(worker.spec);
            for stream in worker.streams {
                let stream_id = StreamId { worker: id.clone(), dp_rank: stream.dp_rank };
                index.restore_stream(&stream_id, stream).ok_or_else(|| damaged("a block lies nowhere"))?;
            }
        }
        // Last, because putting blocks into their places touches runs.
        index.ages = Ages::restored(record.clock, touched);
        index.check_invariants().map_err(SnapshotError::Damaged)?;
        Ok(index)
    }

    fn restore_stream(&mut self, id: &StreamId, record: StreamRecord) -> Option<()> {
        let stream = self.registry.open_stream(id)?;
        // The journal starts anew: it cannot speak of anything before the snapshot.
        let before = self.journal.forgotten_until_ms.unwrap_or(0);
        self.journal.forgotten_until_ms = Some(before.max(record.applied_at_ms));
        let state = self.registry.stream_mut(stream)?;
        state.other_tiers = record.other_tiers;
        state.silent_clear = record.silent_clear;
        state.groups = record.groups;
        state.reports = record.reports;
        self.review(stream);
        let state = self.registry.stream_mut(stream)?;
        state.stamp = StreamStamp {
            generation: record.generation,
            applied: record.applied,
            applied_at_ms: record.applied_at_ms,
            coverage: record.coverage,
            payload_digest: record.payload_digest,
        };
        for owner in record.owners {
            self.restore_owner(stream, owner)?;
        }
        self.allow_holes(stream)
    }

    fn restore_owner(&mut self, stream: u32, record: OwnerRecord) -> Option<()> {
        let slot = self.open_owner(stream, &record.tier, record.group)?;
        let owner = self.registry.owner_mut(slot)?;
        owner.chunk = record.chunk;
        owner.by_tokens = record.by_tokens;
        if record.places.len() != record.hashes.len() {
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
        for (block, (run, offset)) in record.hashes.into_iter().zip(record.places) {
            self.restore_block(slot, block, Place { run, offset })?;
        }
        let owner = self.registry.owner_mut(slot)?;
        for (block, copies) in record.copies {
            owner.blocks.set_copies(block, copies);
        }
        for (parent, block, space, local) in record.orphans {
            owner.blocks.wait_for(parent, Orphan { block, space: Space(space), local });
        }
        Some(())
    }

    fn restore_block(&mut self, slot: OwnerSlot, block: EngineBlockHash, at: Place) -> Option<()> {
        if self.holdings().place(slot, block).is_some() {
            return None;
        }
        let owner = self.registry.owner_mut(slot)?;
        owner.blocks.add(block);
        self.entries += 1;
        let positions = owner.blocks.content_of(block).map(|content| content.positions.clone());
        for (space, hash) in positions.unwrap_or_default() {
            let run = self.view.tree.head(space, hash)?;
            self.view.edit(|view| view.tree.hold(run, 0..1, slot));
        }
        if at.run != NOWHERE {
            let run = self.view.tree.run(at.run).filter(|run| (at.offset as usize) < run.blocks.len())?;
            let namespace = self.view.spaces.get(Space(run.space))?;
            let book = Book::of(&namespace.tenant, &namespace.model);
            if let Some(owner) = self.registry.owner_mut(slot).filter(|owner| owner.book != book) {
                owner.strayed = true;
                let stream = owner.stream;
                self.review(stream);
            }
            self.seat(slot, block, at);
        }
        Some(())
    }
}

impl IndexReader<'_> {
    fn record(&self) -> Snapshot {
        let mut runs: Vec<_> = self.tree().runs().collect();
        runs.sort_unstable_by_key(|(_, run)| (run.space, run.blocks[0]));
        let mut number = vec![NOWHERE; runs.iter().map(|(id, _)| *id as usize + 1).max().unwrap_or(0)];
        for (n, (id, _)) in (0u32..).zip(&runs) {
            number[*id as usize] = n;
        }
        let runs = runs.into_iter().map(|(id, run)| RunRecord {
            space: run.space,
            blocks: run.blocks.clone(),
            touched: self.ages().touched(id),
        });
        let registry = self.registry();
        let mut held = self.holdings().blocks_of_all();
        let workers = registry.workers().map(|worker| {
            let streams = worker.streams.values().filter_map(|stream| {
                let stream = registry.stream(*stream)?;
                let owners = stream.slots.iter().filter_map(|slot| Some((*slot, registry.owner(*slot)?)));
                let mut owners: Vec<_> = owners.collect();
                owners.sort_by_key(|(_, owner)| (&owner.tier, owner.group));
                let mut record_of = |(slot, owner): (OwnerSlot, &Owner)| {
                    record_owner(owner, std::mem::take(&mut held[slot.index()]), &number)
                };
                Some(StreamRecord {
                    dp_rank: stream.id.dp_rank,
                    generation: stream.stamp.generation,
                    applied: stream.stamp.applied,
                    applied_at_ms: stream.stamp.applied_at_ms,
                    coverage: stream.stamp.coverage,
                    other_tiers: stream.other_tiers,
                    owners: owners.into_iter().map(&mut record_of).collect(),
                    silent_clear: stream.silent_clear,
                    groups: stream.groups.clone(),
                    reports: stream.reports.clone(),
                    payload_digest: stream.stamp.payload_digest,
                })
            });
            WorkerRecord { spec: (*worker.spec).clone(), streams: streams.collect() }
        });
        Snapshot {
            spaces: self.spaces().all().to_vec(),
            runs: runs.collect(),
            workers: workers.collect(),
            clock: self.ages().clock(),
        }
    }
}

fn record_owner(owner: &Owner, mut blocks: Vec<HeldBlock>, number: &[u32]) -> OwnerRecord {
    blocks.sort_unstable();
    let place = |place: Option<Place>| match place {
        Some(at) => (number[at.run as usize], at.offset),
        None => (NOWHERE, 0),
    };
    let mut orphans: Vec<_> =
        owner.blocks.iter_waiting().map(|(parent, o)| (parent, o.block, o.space.0, o.local)).collect();
    orphans.sort_unstable();
    let positions = |c: &Content| c.positions.iter().map(|(space, hash)| (space.0, *hash)).collect();
    let mut contents: Vec<_> =
        owner.blocks.iter_contents().map(|(block, c)| (block, c.local, positions(c))).collect();
    contents.sort_unstable();
    OwnerRecord {
        tier: owner.tier.clone(),
        group: owner.group,
        chunk: owner.chunk,
        hashes: blocks.iter().map(|(block, _, _)| *block).collect(),
        places: blocks.iter().map(|(_, at, _)| place(*at)).collect(),
        copies: blocks.iter().filter(|b| b.2 > 1).map(|(block, _, copies)| (*block, *copies)).collect(),
        orphans,
        contents,
        by_tokens: owner.by_tokens,
    }
}
