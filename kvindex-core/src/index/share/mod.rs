//! Shares: what an index holds of some of its workers, as bytes that another index takes in beside what it holds of
//! others. A shard's snapshot is the shares of its workers, taken some workers at a time.
//!
//! In the envelope of [`sealed`](super::sealed) with the magic `KVXSHARE`: msgpack of [`Share`], structs as arrays,
//! hash columns as little-endian byte strings. Runs are listed once a share, as far as its owners hold them, and the
//! names that owners share once a run. Version 1 had no numbers of registrations, and did not say whether anything was
//! missed; it is still read. A share says nothing of other workers, but runs and the order of names follow
//! from how the index came to be: two indexes with equal content may write other bytes.

mod check;
mod export;
mod import;

use serde::{Deserialize, Serialize};
use std::ops::Range;

use super::records::WorkerRecord;
use super::sealed::Seal;
use crate::hash::{EngineBlockHash, SequenceHash};
use crate::worker::Namespace;

const SEAL: Seal = Seal { magic: b"KVXSHARE", version: 2 };

/// Owners are numbered as they stand in `workers`, namespaces as in `spaces`.
#[derive(Serialize, Deserialize)]
struct Share {
    spaces: Vec<Namespace>,
    /// In the owners only what lies nowhere: names without a known position, and those of content.
    workers: Vec<WorkerRecord>,
    /// For each run: namespace, blocks, shared names, parts held under those, parts held under own names; then for
    /// each part its owner, first block and length.
    layout: Vec<u32>,
    #[serde(with = "crate::columns")]
    blocks: Vec<SequenceHash>,
    /// The runs' shared names, from each run's first block on; 0 where a block has none that counts.
    #[serde(with = "crate::columns")]
    shared: Vec<EngineBlockHash>,
    /// The names of all parts held under own names.
    #[serde(with = "crate::columns")]
    own: Vec<EngineBlockHash>,
}

/// A stretch of a run that one owner holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    owner: u32,
    start: u32,
    n: u32,
}

/// A run of a share, read from its columns.
#[derive(Debug, Clone, Copy)]
struct RunShare<'a> {
    space: u32,
    blocks: &'a [SequenceHash],
    shared: &'a [EngineBlockHash],
    own: &'a [EngineBlockHash],
    /// Three numbers a part.
    shared_parts: &'a [u32],
    own_parts: &'a [u32],
}

impl Part {
    fn end(self) -> u32 {
        self.start + self.n
    }

    fn range(self) -> Range<usize> {
        self.start as usize..self.start as usize + self.n as usize
    }
}

fn parts(numbers: &[u32]) -> impl Iterator<Item = Part> {
    numbers.as_chunks::<3>().0.iter().map(|[owner, start, n]| Part { owner: *owner, start: *start, n: *n })
}

impl<'a> RunShare<'a> {
    /// Parts that are held under shared names, and the names.
    fn shared(self) -> impl Iterator<Item = (Part, &'a [EngineBlockHash])> {
        parts(self.shared_parts).map(move |part| (part, self.shared.get(part.range()).unwrap_or_default()))
    }

    /// Parts that are held under their owners' own names, and the names.
    fn own(self) -> impl Iterator<Item = (Part, &'a [EngineBlockHash])> {
        let mut rest = self.own;
        parts(self.own_parts).map(move |part| {
            let (names, after) = rest.split_at_checked(part.n as usize).unwrap_or_default();
            rest = after;
            (part, names)
        })
    }
}

/// Takes so much off the front of a column; `None` when there is not as much.
fn take<'a, T>(column: &mut &'a [T], n: usize) -> Option<&'a [T]> {
    let (front, rest) = column.split_at_checked(n)?;
    *column = rest;
    Some(front)
}

impl Share {
    /// The runs, in order; the last one is `None` when the columns do not agree.
    fn runs(&self) -> impl Iterator<Item = Option<RunShare<'_>>> {
        let (mut layout, mut blocks) = (self.layout.as_slice(), self.blocks.as_slice());
        let (mut shared, mut own) = (self.shared.as_slice(), self.own.as_slice());
        let mut next = move || -> Option<RunShare<'_>> {
            let [space, len, names, shared_parts, own_parts] = *take(&mut layout, 5)?.first_chunk()?;
            let shared_parts = take(&mut layout, (shared_parts as usize).checked_mul(3)?)?;
            let own_parts = take(&mut layout, (own_parts as usize).checked_mul(3)?)?;
            let own_names =
                parts(own_parts).try_fold(0usize, |sum, part| sum.checked_add(part.n as usize))?;
            Some(RunShare {
                space,
                blocks: take(&mut blocks, len as usize)?,
                shared: take(&mut shared, names as usize)?,
                own: take(&mut own, own_names)?,
                shared_parts,
                own_parts,
            })
        };
        let (mut left, whole) = (self.layout.len(), self.blocks.len() + self.shared.len() + self.own.len());
        let mut named = 0;
        std::iter::from_fn(move || {
            if left == 0 {
                // What no run speaks of is damage too.
                return (std::mem::replace(&mut named, whole) != whole).then_some(None);
            }
            let run = next();
            left = run.as_ref().map_or(0, |run| left - 5 - run.shared_parts.len() - run.own_parts.len());
            named =
                run.as_ref().map_or(whole, |run| named + run.blocks.len() + run.shared.len() + run.own.len());
            Some(run)
        })
    }
}
