//! Sets of owner slots, the leaf of the index: most blocks have one holder, hot prefixes have all of them.

/// Dense number of an owner (worker, dp rank, tier, group) inside one index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct OwnerSlot(pub(crate) u32);

impl OwnerSlot {
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// A set of slots. Kept in its smallest form (no bitmap for under two members, no trailing zero words), so
/// that equal sets compare equal.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum OwnerSet {
    #[default]
    Empty,
    One(OwnerSlot),
    Many(Box<[u64]>),
}

impl OwnerSet {
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }

    pub(crate) fn contains(&self, owner: OwnerSlot) -> bool {
        match self {
            Self::Empty => false,
            Self::One(only) => *only == owner,
            Self::Many(words) => words.get(owner.index() / 64).is_some_and(|w| w >> (owner.0 % 64) & 1 == 1),
        }
    }

    /// Whether this is the other set and `owner`, which is not in it.
    pub(crate) fn is_with(&self, other: &Self, owner: OwnerSlot) -> bool {
        let words = self.word_count().max(other.word_count());
        let bit = |i: usize| if owner.index() / 64 == i { 1 << (owner.0 % 64) } else { 0 };
        !other.contains(owner) && (0..words).all(|i| self.word(i) == other.word(i) | bit(i))
    }

    pub(crate) fn insert(&mut self, owner: OwnerSlot) {
        match self {
            Self::Empty => *self = Self::One(owner),
            Self::One(only) if *only == owner => {}
            Self::One(only) => {
                let mut words = vec![0; only.index().max(owner.index()) / 64 + 1];
                set_bit(&mut words, *only);
                set_bit(&mut words, owner);
                *self = Self::Many(words.into());
            }
            Self::Many(words) => {
                let need = owner.index() / 64 + 1;
                if words.len() < need {
                    let mut wider = words.to_vec();
                    wider.resize(need, 0);
                    *words = wider.into();
                }
                set_bit(words, owner);
            }
        }
    }

    pub(crate) fn remove(&mut self, owner: OwnerSlot) {
        match self {
            Self::One(only) if *only == owner => *self = Self::Empty,
            Self::Empty | Self::One(_) => {}
            Self::Many(words) => {
                if let Some(word) = words.get_mut(owner.index() / 64) {
                    *word &= !(1 << (owner.0 % 64));
                }
                self.shrink();
            }
        }
    }

    fn shrink(&mut self) {
        let Self::Many(words) = self else { return };
        let mut members = words.iter().map(|w| w.count_ones()).sum::<u32>();
        if members <= 1 {
            let only = self.iter().next();
            *self = only.map_or(Self::Empty, Self::One);
            return;
        }
        members = u32::try_from(words.iter().rev().take_while(|w| **w == 0).count()).unwrap_or(0);
        if members > 0 {
            *words = words[..words.len() - members as usize].into();
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = OwnerSlot> + '_ {
        (0..self.word_count()).flat_map(|i| bits(i, self.word(i)))
    }

    /// How many 64-slot words cover the set.
    pub(crate) fn word_count(&self) -> usize {
        match self {
            Self::Empty => 0,
            Self::One(only) => only.index() / 64 + 1,
            Self::Many(words) => words.len(),
        }
    }

    /// Members 64·i to 64·i+63 as bits.
    pub(crate) fn word(&self, i: usize) -> u64 {
        match self {
            Self::Empty => 0,
            Self::One(only) if only.index() / 64 == i => 1 << (only.0 % 64),
            Self::One(_) => 0,
            Self::Many(words) => words.get(i).copied().unwrap_or(0),
        }
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        match self {
            Self::Many(words) => words.len() * 8,
            _ => 0,
        }
    }
}

fn set_bit(words: &mut [u64], owner: OwnerSlot) {
    if let Some(word) = words.get_mut(owner.index() / 64) {
        *word |= 1 << (owner.0 % 64);
    }
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
