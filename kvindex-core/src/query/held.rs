//! What the last question's walk found of its prompt, for whoever counts which prefixes are asked for: the hashes of
//! the longest prefix that somebody holds, where chains part on the way, and how many hold how much of it.

use super::found::{Scratch, Walk};
use crate::hash::SequenceHash;
use crate::index::IndexReader;

/// The longest prefix of a prompt that some owner holds, and who holds how much of it.
#[derive(Debug, Clone)]
pub struct HeldPrefix<'a> {
    /// Tokens a block.
    pub block_size: u32,
    /// Its blocks' sequence hashes, first to last.
    pub hashes: &'a [SequenceHash],
    walk: &'a Walk,
    /// Blocks that each stream holds, fewest first.
    depths: Vec<u32>,
}

impl Scratch {
    /// The longest prefix that some owner holds of the prompt that [`find_hashed`](crate::find_hashed) answered with
    /// this scratch last, by the same reader; `None` where nobody holds any, and for engine block hashes, which have
    /// no walk.
    #[must_use]
    pub fn held_prefix<'a>(&'a self, reader: &IndexReader<'_>) -> Option<HeldPrefix<'a>> {
        let tokens = |walk: &&Walk| walk.longest_held() * walk.block_size as usize;
        let walk = self.walks.iter().max_by_key(tokens)?;
        let hashes = walk.hashes.get(..walk.longest_held()).filter(|hashes| !hashes.is_empty())?;
        let registry = reader.registry();
        let stream = |(slot, depth)| Some((registry.owner(slot)?.stream, depth));
        let mut streams: Vec<(u32, u32)> = walk.held().filter_map(stream).collect();
        // Of a stream's owners, one a tier and group, the one that holds most.
        streams.sort_unstable();
        let deepest = streams.chunk_by(|a, b| a.0 == b.0).filter_map(<[_]>::last);
        let mut depths: Vec<u32> = deepest.map(|(_, depth)| *depth).collect();
        depths.sort_unstable();
        Some(HeldPrefix { block_size: walk.block_size, hashes, walk, depths })
    }
}

impl HeldPrefix<'_> {
    /// Lengths in blocks at which other chains part from this one, or the index kept one apart; the last is its own.
    pub fn partings(&self) -> impl Iterator<Item = usize> {
        let whole = self.hashes.len();
        let ends = self.walk.path.iter().map(|stretch| stretch.end);
        ends.take_while(move |end| *end < whole).chain([whole])
    }

    /// How many streams hold its first so many blocks, each on one tier.
    #[must_use]
    pub fn held_by(&self, blocks: usize) -> usize {
        self.depths.len() - self.depths.partition_point(|depth| (*depth as usize) < blocks)
    }
}
