//! Digests: whether two indexes hold the same, in eight bytes. What enters is what decides answers and what further
//! commands do: not the order of other workers' commands, not how blocks are cut into runs, not which names are
//! shared, not the ages of runs, not times, not the journal.

use serde::Serialize;
use xxhash_rust::xxh3::xxh3_64;

use super::reader::IndexReader;
use super::registry::{Owner, Stream};
use super::tree::Place;
use super::{Coverage, Index};
use crate::hash::EngineBlockHash;
use crate::ids::WorkerId;

fn digest_of_words(words: &[u64]) -> u64 {
    let mut bytes = [0; 64];
    let (chunks, _) = bytes.as_chunks_mut::<8>();
    for (chunk, word) in chunks.iter_mut().zip(words) {
        *chunk = word.to_le_bytes();
    }
    xxh3_64(&bytes[..words.len().min(8) * 8])
}

fn digest_of_record(record: &impl Serialize) -> u64 {
    xxh3_64(&rmp_serde::to_vec(record).unwrap_or_default())
}

/// Adds up, so that order does not count.
fn sum(digests: impl Iterator<Item = u64>) -> u64 {
    digests.fold(0, u64::wrapping_add)
}

impl IndexReader<'_> {
    /// A digest of the content: workers, streams, and every held block with its copies. Two indexes with
    /// equal histories have equal digests, whatever order other streams' commands came in between.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest_of(|_| true)
    }

    /// The [`digest`](Self::digest) of what is known and held of some workers alone. No other worker has a part in
    /// it.
    #[must_use]
    pub fn digest_of(&self, keep: impl Fn(&WorkerId) -> bool) -> u64 {
        let registry = self.registry();
        let kept: Vec<_> = registry.workers().filter(|worker| keep(&worker.spec.id)).collect();
        let streams = kept.iter().flat_map(|worker| worker.streams.values());
        let streams: Vec<&Stream> = streams.filter_map(|number| registry.stream(*number)).collect();
        let mut wanted = vec![false; registry.slot_count()];
        streams.iter().flat_map(|stream| &stream.slots).for_each(|slot| wanted[slot.index()] = true);
        let blocks = self.sums_of_blocks(&wanted);
        let mut words: Vec<u64> =
            kept.iter().flat_map(|worker| [digest_of_record(&*worker.spec), worker.registration.0]).collect();
        for stream in streams {
            words.extend(words_of_stream(stream));
            let owners = stream.slots.iter().filter_map(|slot| Some((*slot, registry.owner(*slot)?)));
            words.extend(owners.flat_map(|(slot, owner)| words_of_owner(owner, blocks[slot.index()])));
        }
        xxh3_64(&words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>())
    }

    /// For each wanted slot a sum over the blocks that its owner holds.
    fn sums_of_blocks(&self, wanted: &[bool]) -> Vec<u64> {
        let (holdings, spaces) = (self.holdings(), self.spaces().all());
        let spaces: Vec<u64> = spaces.iter().map(digest_of_record).collect();
        let block_at = |at: Place| -> Option<[u64; 2]> {
            let run = holdings.tree.run(at.run)?;
            Some([*spaces.get(run.space as usize)?, run.blocks.get(at.offset as usize)?.0])
        };
        let digest = |owner: &Owner, name: EngineBlockHash, [space, block]: [u64; 2]| {
            digest_of_words(&[name.0, space, block, u64::from(owner.blocks.copies(name))])
        };
        let mut sums = vec![0u64; wanted.len()];
        let is_wanted = |slot: usize| wanted.get(slot).copied().unwrap_or(false);
        for (slot, owner) in holdings.registry.owners().filter(|(slot, _)| is_wanted(slot.index())) {
            let own = owner.blocks.iter_own();
            let place = |place: Option<Place>| place.and_then(block_at).unwrap_or_default();
            sums[slot.index()] = sum(own.map(|(name, at)| digest(owner, name, place(at))));
        }
        for (number, run) in holdings.tree.runs() {
            let mut from = 0;
            for segment in run.holders.segments() {
                for slot in segment.owners.iter().filter(|slot| is_wanted(slot.index())) {
                    let owner = holdings.registry.owner(slot).filter(|owner| owner.blocks.shared() > 0);
                    let Some(owner) = owner.filter(|_| !holdings.naming.is_apart(number, slot)) else {
                        continue;
                    };
                    let places = (from..segment.end).map(|offset| Place { run: number, offset });
                    let held = places
                        .filter_map(|at| Some(digest(owner, holdings.naming.name_at(at)?, block_at(at)?)));
                    let more = sum(held);
                    sums[slot.index()] = sums[slot.index()].wrapping_add(more);
                }
                from = segment.end;
            }
        }
        sums
    }
}

fn words_of_stream(stream: &Stream) -> [u64; 9] {
    let stamp = &stream.stamp;
    let coverage = match stamp.coverage {
        Coverage::Complete => 0,
        Coverage::Incomplete => 1,
        Coverage::Suspect => 2,
    };
    [
        xxh3_64(stream.id.worker.as_str().as_bytes()),
        u64::from(stream.id.dp_rank.0),
        stamp.generation.0,
        stamp.applied.map_or(u64::MAX, |seq| seq.0),
        coverage,
        stamp.payload_digest.unwrap_or(0),
        u64::from(stream.other_tiers) | u64::from(stream.silent_clear) << 1 | u64::from(stream.missed) << 2,
        digest_of_record(&stream.groups),
        digest_of_record(&stream.reports),
    ]
}

fn words_of_owner(owner: &Owner, blocks: u64) -> [u64; 7] {
    let orphans = owner.blocks.iter_waiting();
    let orphans = orphans.map(|(parent, it)| digest_of_words(&[parent.0, it.block.0, it.local.0]));
    let contents = owner.blocks.iter_contents().map(|(block, content)| {
        let places: Vec<u64> = content.positions.iter().map(|(_, hash)| hash.0).collect();
        digest_of_words(&[block.0, content.local.map_or(0, |local| local.0), digest_of_record(&places)])
    });
    [
        xxh3_64(owner.tier.name().as_bytes()),
        u64::from(owner.group.0),
        u64::from(owner.chunk) << 1 | u64::from(owner.by_tokens),
        owner.blocks.len() as u64,
        blocks,
        sum(orphans),
        sum(contents),
    ]
}

impl Index {
    /// Content digest; see [`IndexReader::digest`].
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.reader().digest()
    }
}
