//! Snapshots: an index as bytes.
//!
//! In the envelope of [`sealed`](super::sealed) with the magic `KVXSNAP\0`: msgpack of [`Snapshot`], structs as
//! arrays, hash columns as little-endian byte strings. Version 2 put what a stream says of its groups behind what
//! version 1 had, version 3 when runs were last touched behind that, version 4 the digest of each stream's last
//! payload, version 5 numbers of registrations and whether anything was missed; older ones are still read. The same index makes the same bytes; the journal is not part of it.

use serde::{Deserialize, Serialize};

use super::ages::Ages;
use super::holders::Holders;
use super::holding::HeldBlock;
use super::records::{NOWHERE, OwnerRecord, StreamRecord, WorkerRecord};
use super::registry::Owner;
use super::sealed::Seal;
use super::spaces::Family;
use super::tree::{Place, Run, Space};
use super::{Index, IndexReader, OwnerSlot};
use crate::hash::SequenceHash;
use crate::ids::StreamId;
use crate::limits::{IndexLimits, MAX_RUN_BLOCKS};
use crate::worker::Namespace;

const SEAL: Seal = Seal { magic: b"KVXSNAP\0", version: 5 };

/// Why bytes are not a usable snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// Not ours at all.
    #[error("not a kvindex snapshot")]
    NotASnapshot,
    /// Written by a newer version.
    #[error("snapshot version {found} is newer than this program, which reads up to {newest}")]
    Version {
        /// The version of the bytes.
        found: u16,
        /// The newest one that this program reads.
        newest: u16,
    },
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

impl Index {
    /// The index as bytes. The same index makes the same bytes.
    #[must_use]
    pub fn snapshot(&self) -> Vec<u8> {
        SEAL.close(&self.reader().record())
    }

    /// Reads a snapshot back. The result is checked as a whole before it is handed out.
    ///
    /// # Errors
    /// When the bytes are no snapshot, of a newer version, or damaged.
    pub fn restore(bytes: &[u8], limits: IndexLimits) -> Result<Self, SnapshotError> {
        let (version, body) = SEAL.open(bytes)?;
        let mut record: Snapshot =
            rmp_serde::from_slice(body).map_err(|e| SnapshotError::Damaged(e.to_string()))?;
        if version == 1 {
            streams(&mut record).for_each(StreamRecord::restore_groups);
        }
        if version < 5 {
            streams(&mut record).for_each(StreamRecord::suppose_missed);
        }
        Self::from_record(record, limits)
    }

    fn from_record(record: Snapshot, limits: IndexLimits) -> Result<Self, SnapshotError> {
        let damaged = |what: &str| SnapshotError::Damaged(what.to_owned());
        let mut index = Self::new(limits);
        for namespace in &record.spaces {
            let (tenant, model, lora) = (&*namespace.tenant, &*namespace.model, namespace.lora.as_deref());
            let family = Family { tenant, model, lora };
            index.restore_space(family, namespace.block_size, namespace.scheme);
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
            index.registry.register(worker.spec, worker.registration);
            for stream in worker.streams {
                let stream_id = StreamId { worker: id.clone(), dp_rank: stream.dp_rank };
                index.restore_whole(&stream_id, stream).ok_or_else(|| damaged("a block lies nowhere"))?;
            }
        }
        // Last, because putting blocks into their places touches runs.
        index.ages = Ages::restored(record.clock, touched);
        index.check_invariants().map_err(SnapshotError::Damaged)?;
        Ok(index)
    }

    fn restore_whole(&mut self, id: &StreamId, mut record: StreamRecord) -> Option<()> {
        let owners = std::mem::take(&mut record.owners);
        let stream = self.restore_stream(id, record)?;
        for owner in owners {
            self.restore_owner(stream, owner)?;
        }
        self.allow_holes(stream)
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
                Some(StreamRecord::of(stream, owners.into_iter().map(&mut record_of).collect()))
            });
            let (spec, registration) = ((*worker.spec).clone(), worker.registration);
            WorkerRecord { spec, streams: streams.collect(), registration }
        });
        Snapshot {
            spaces: self.spaces().all().to_vec(),
            runs: runs.collect(),
            workers: workers.collect(),
            clock: self.ages().clock(),
        }
    }
}

fn streams(record: &mut Snapshot) -> impl Iterator<Item = &mut StreamRecord> {
    record.workers.iter_mut().flat_map(|worker| &mut worker.streams)
}

fn record_owner(owner: &Owner, mut blocks: Vec<HeldBlock>, number: &[u32]) -> OwnerRecord {
    blocks.sort_unstable();
    let place = |place: Option<Place>| match place {
        Some(at) => (number[at.run as usize], at.offset),
        None => (NOWHERE, 0),
    };
    OwnerRecord {
        hashes: blocks.iter().map(|(block, _, _)| *block).collect(),
        places: blocks.iter().map(|(_, at, _)| place(*at)).collect(),
        ..OwnerRecord::of(owner)
    }
}
