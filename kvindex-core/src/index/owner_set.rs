//! Sets of owner slots, the leaf of the index: most blocks have one holder, hot prefixes have all of them.

use super::usage::vec_bytes;

/// Dense number of an owner (worker, dp rank, tier, group) inside one index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct OwnerSlot(pub(crate) u32);

impl OwnerSlot {
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// A set of slots. Kept in its smallest form (no bitmap for members that share a word, no trailing zero words), so
/// that equal sets compare equal. Most sets fit a word: fleets of up to 64 owners, and blocks with one holder.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum OwnerSet {
    #[default]
    Empty,
    /// Members 64·at to 64·at+63, as bits.
    Word { at: u32, bits: u64 },
    /// Twice boxed, so that a set takes two words: most are not of this form.
    Many(Box<Box<[u64]>>),
}

impl OwnerSet {
    /// The set of this one.
    pub(crate) fn one(owner: OwnerSlot) -> Self {
        Self::Word { at: owner.0 / 64, bits: bit(owner) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }

    pub(crate) fn contains(&self, owner: OwnerSlot) -> bool {
        self.word(owner.index() / 64) & bit(owner) != 0
    }

    /// Whether this is the other set and `owner`, which is not in it.
    pub(crate) fn is_with(&self, other: &Self, owner: OwnerSlot) -> bool {
        if let (Self::Word { at, bits }, Self::Word { at: other_at, bits: others }) = (self, other) {
            let added = bit(owner);
            return at == other_at && *at == owner.0 / 64 && others & added == 0 && *bits == others | added;
        }
        let words = self.word_count().max(other.word_count());
        let added = |i: usize| if owner.index() / 64 == i { bit(owner) } else { 0 };
        !other.contains(owner) && (0..words).all(|i| self.word(i) == other.word(i) | added(i))
    }

    pub(crate) fn insert(&mut self, owner: OwnerSlot) {
        match self {
            Self::Empty => *self = Self::one(owner),
            Self::Word { at, bits } if *at == owner.0 / 64 => *bits |= bit(owner),
            Self::Word { at, bits } => {
                let mut words = vec![0; (*at).max(owner.0 / 64) as usize + 1];
                words[*at as usize] = *bits;
                words[owner.index() / 64] = bit(owner);
                *self = Self::Many(Box::new(words.into()));
            }
            Self::Many(words) => {
                let need = owner.index() / 64 + 1;
                if words.len() < need {
                    let mut wider = words.to_vec();
                    wider.resize(need, 0);
                    **words = wider.into();
                }
                words[owner.index() / 64] |= bit(owner);
            }
        }
    }

    pub(crate) fn remove(&mut self, owner: OwnerSlot) {
        match self {
            Self::Word { at, bits } if *at == owner.0 / 64 => {
                *bits &= !bit(owner);
                if *bits == 0 {
                    *self = Self::Empty;
                }
            }
            Self::Empty | Self::Word { .. } => {}
            Self::Many(words) => {
                if let Some(word) = words.get_mut(owner.index() / 64) {
                    *word &= !bit(owner);
                    if *word == 0 {
                        self.shrink();
                    }
                }
            }
        }
    }

    /// Finds the smallest form of a bitmap, one of whose words became zero.
    fn shrink(&mut self) {
        let Self::Many(words) = self else { return };
        let mut used = (0u32..).zip(words.iter().copied()).filter(|(_, word)| *word != 0);
        match (used.next(), used.next()) {
            (None, _) => *self = Self::Empty,
            (Some((at, bits)), None) => *self = Self::Word { at, bits },
            (Some(_), Some(_)) => {
                let kept = words.len() - words.iter().rev().take_while(|w| **w == 0).count();
                if kept < words.len() {
                    **words = words[..kept].into();
                }
            }
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = OwnerSlot> + '_ {
        let (first, words) = self.words();
        (first..).zip(words).flat_map(|(i, word)| bits(i, *word))
    }

    /// The words that cover the set, and the number of the first: words before and after them are zero.
    pub(crate) fn words(&self) -> (usize, &[u64]) {
        match self {
            Self::Empty => (0, &[]),
            Self::Word { at, bits } => (*at as usize, std::slice::from_ref(bits)),
            Self::Many(words) => (0, words),
        }
    }

    /// How many 64-slot words cover the set, from slot 0 on.
    pub(crate) fn word_count(&self) -> usize {
        let (first, words) = self.words();
        first + words.len()
    }

    /// Members 64·i to 64·i+63 as bits.
    pub(crate) fn word(&self, i: usize) -> u64 {
        match self {
            Self::Empty => 0,
            Self::Word { at, bits } if *at as usize == i => *bits,
            Self::Word { .. } => 0,
            Self::Many(words) => words.get(i).copied().unwrap_or(0),
        }
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        match self {
            Self::Many(words) => vec_bytes::<Box<[u64]>>(1) + vec_bytes::<u64>(words.len()),
            _ => 0,
        }
    }
}

/// The slot's bit in its word.
fn bit(owner: OwnerSlot) -> u64 {
    1 << (owner.0 % 64)
}

/// The slots that the bits of word `i` stand for.
pub(crate) fn bits(i: usize, mut word: u64) -> impl Iterator<Item = OwnerSlot> {
    let base = u32::try_from(i * 64).unwrap_or(u32::MAX);
    std::iter::from_fn(move || {
        let bit = (word != 0).then(|| word.trailing_zeros())?;
        word &= word - 1;
        Some(OwnerSlot(base + bit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn behaves_like_a_set_and_stays_canonical() {
        let (mut set, mut model) = (OwnerSet::default(), BTreeSet::new());
        let mut x = 7u32;
        for _ in 0..4000 {
            x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let owner = OwnerSlot((x >> 16) % 200);
            if x & 1 == 0 || (x >> 8).is_multiple_of(4) {
                set.remove(owner);
                model.remove(&owner);
            } else {
                set.insert(owner);
                model.insert(owner);
            }
            assert!(set.iter().eq(model.iter().copied()));
            let rebuilt = model.iter().fold(OwnerSet::default(), |mut s, o| {
                s.insert(*o);
                s
            });
            assert_eq!(set, rebuilt, "one set, one form");
        }
    }
}
