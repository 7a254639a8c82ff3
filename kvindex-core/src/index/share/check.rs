//! Reading a share: everything that putting it into an index relies on is checked before anything is changed.

use std::hash::Hash;

use super::{Part, RunShare, SEAL, Share};
use crate::hash::{EngineBlockHash, SequenceHash};
use crate::index::SnapshotError;
use crate::index::owner_blocks::Set;
use crate::index::records::{OwnerRecord, StreamRecord};
use crate::limits::{MAX_OWNERS_PER_STREAM, MAX_RUN_BLOCKS};

/// What is wrong with a share, as a part of a sentence.
type Wrong = &'static str;

impl Share {
    pub(super) fn read(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let (version, body) = SEAL.open(bytes)?;
        let mut share: Self =
            rmp_serde::from_slice(body).map_err(|error| SnapshotError::Damaged(error.to_string()))?;
        if version < 2 {
            let streams = share.workers.iter_mut().flat_map(|worker| &mut worker.streams);
            streams.for_each(StreamRecord::suppose_missed);
        }
        share.check().map_err(|wrong| SnapshotError::Damaged(wrong.to_owned()))?;
        Ok(share)
    }

    fn check(&mut self) -> Result<(), Wrong> {
        if !distinct(self.spaces.iter()) {
            return Err("namespaces repeat");
        }
        self.check_workers()?;
        let mut held = self.check_runs()?;
        if held.iter_mut().any(|names| repeats(names)) {
            return Err("an owner holds a name twice");
        }
        let content_only: Vec<bool> = self.spaces.iter().map(|space| space.scheme.content_only).collect();
        for (owner, held) in self.owners_mut().zip(held) {
            check_owner(owner, &held, &content_only)?;
        }
        Ok(())
    }

    pub(super) fn owners_mut(&mut self) -> impl Iterator<Item = &mut OwnerRecord> {
        let streams = self.workers.iter_mut().flat_map(|worker| &mut worker.streams);
        streams.flat_map(|stream| &mut stream.owners)
    }

    fn check_workers(&self) -> Result<(), Wrong> {
        let streams = || self.workers.iter().flat_map(|worker| &worker.streams);
        let once = distinct(self.workers.iter().map(|worker| &worker.spec.id))
            && self.workers.iter().all(|worker| distinct(worker.streams.iter().map(|stream| stream.dp_rank)))
            && streams().all(|stream| distinct(stream.owners.iter().map(|o| (&o.tier, o.group))));
        if !once {
            return Err("a worker, stream or owner is there twice");
        }
        let few = streams().all(|stream| stream.owners.len() <= MAX_OWNERS_PER_STREAM);
        let nowhere = streams().flat_map(|stream| &stream.owners).all(|owner| owner.places.is_empty());
        if few && nowhere { Ok(()) } else { Err("an owner's record is another one's") }
    }

    /// Checks every run; answers the names that each owner holds, those without a place among them.
    fn check_runs(&self) -> Result<Vec<Vec<EngineBlockHash>>, Wrong> {
        let owners = self.workers.iter().flat_map(|worker| &worker.streams).flat_map(|stream| &stream.owners);
        let mut held: Vec<Vec<EngineBlockHash>> = owners.map(|owner| owner.hashes.clone()).collect();
        let mut blocks: Vec<(u32, SequenceHash)> = Vec::with_capacity(self.blocks.len());
        for run in self.runs() {
            let run = run.ok_or("columns do not agree")?;
            let space = self.spaces.get(run.space as usize).ok_or("a run is in no namespace")?;
            if space.scheme.content_only || !(1..=MAX_RUN_BLOCKS).contains(&run.blocks.len()) {
                return Err("a run is empty or too long, or its blocks are named by content");
            }
            blocks.extend(run.blocks.iter().map(|block| (run.space, *block)));
            check_parts(run, &mut held)?;
        }
        if repeats(&mut blocks) {
            return Err("a block lies twice");
        }
        Ok(held)
    }
}

fn check_parts(run: RunShare<'_>, held: &mut [Vec<EngineBlockHash>]) -> Result<(), Wrong> {
    let within = |part: Part, len: usize| {
        part.n > 0 && part.start.checked_add(part.n).is_some_and(|end| end as usize <= len)
    };
    let ends = run.shared.len() <= run.blocks.len()
        && run.shared().all(|(part, _)| within(part, run.shared.len()))
        && run.own().all(|(part, _)| within(part, run.blocks.len()));
    if !ends {
        return Err("a part ends behind its run");
    }
    if run.shared().any(|(_, names)| names.contains(&EngineBlockHash(0))) {
        return Err("a shared name is missing");
    }
    for (part, names) in run.shared().chain(run.own()) {
        held.get_mut(part.owner as usize).ok_or("a part is nobody's")?.extend_from_slice(names);
    }
    Ok(())
}

/// `held` are the names that the owner holds, in order.
fn check_owner(
    owner: &mut OwnerRecord,
    held: &[EngineBlockHash],
    content_only: &[bool],
) -> Result<(), Wrong> {
    let is_held = |block: &EngineBlockHash| held.binary_search(block).is_ok();
    if !owner.copies.iter().all(|(block, copies)| *copies > 1 && is_held(block)) {
        return Err("copies of a block that is not held");
    }
    owner.hashes.sort_unstable();
    let waits = |(_, block, space, _): &(_, EngineBlockHash, u32, _)| {
        owner.hashes.binary_search(block).is_ok() && content_only.get(*space as usize) == Some(&false)
    };
    if !owner.orphans.iter().all(waits) || !distinct(owner.orphans.iter().map(|orphan| orphan.1)) {
        return Err("an orphan that is not one");
    }
    let positions = || owner.contents.iter().flat_map(|(_, _, positions)| positions);
    let once = distinct(positions()) && distinct(owner.contents.iter().map(|content| content.0));
    if !once || !positions().all(|(space, _)| content_only.get(*space as usize) == Some(&true)) {
        return Err("a content stands where it cannot");
    }
    Ok(())
}

fn distinct<T: Eq + Hash>(mut items: impl Iterator<Item = T>) -> bool {
    let mut seen = Set::default();
    items.all(|item| seen.insert(item))
}

/// Whether something is there twice. Sorts.
fn repeats<T: Ord>(items: &mut [T]) -> bool {
    items.sort_unstable();
    items.windows(2).any(|pair| pair[0] == pair[1])
}
