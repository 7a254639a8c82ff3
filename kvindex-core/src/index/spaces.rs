//! Interned namespaces, and which of them one model's prompts must be looked up in.

use foldhash::fast::FixedState;
use hashbrown::{HashMap, HashTable};
use std::hash::BuildHasher;
use std::sync::Arc;

use super::tree::Space;
use super::usage::{allocated, vec_bytes};
use crate::limits::{MAX_NAMESPACES, MAX_NAMESPACES_PER_TENANT};
use crate::worker::{HashScheme, Namespace};

/// Most block sizes and schemes of one tenant, model and adapter: every one costs a query a hashing of its
/// prompt.
const MAX_SPACES_PER_FAMILY: usize = 64;

/// Namespaces that answer the same question: one tenant, model and adapter; block sizes and schemes differ.
#[derive(Debug, Clone, PartialEq, Eq)]
struct FamilyKey {
    tenant: Arc<str>,
    model: Arc<str>,
    lora: Option<Arc<str>>,
}

/// A family's names by reference, so that a look-up allocates nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Family<'a> {
    pub(crate) tenant: &'a str,
    pub(crate) model: &'a str,
    pub(crate) lora: Option<&'a str>,
}

impl FamilyKey {
    fn borrow(&self) -> Family<'_> {
        Family { tenant: &self.tenant, model: &self.model, lora: self.lora.as_deref() }
    }
}

impl Family<'_> {
    /// Fixed, because equal commands must make equal indexes.
    fn hash(self) -> u64 {
        FixedState::default().hash_one(self)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Spaces {
    all: Vec<Namespace>,
    /// With the namespaces of each, in order of what they are.
    families: Vec<(FamilyKey, Vec<Space>)>,
    /// Their numbers, by the hash of their names.
    by_name: HashTable<usize>,
    /// How many namespaces each tenant has.
    by_tenant: HashMap<Arc<str>, usize, FixedState>,
    /// Namespaces in which chains may have holes that a match can go over, by number.
    with_holes: Vec<bool>,
}

impl Spaces {
    /// Notes that a group which needs less than every block stores in this namespace.
    pub(crate) fn allow_holes(&mut self, space: Space) {
        if let Some(holes) = self.with_holes.get_mut(space.0 as usize) {
            *holes = true;
        }
    }

    /// Whether a walk must look for blocks behind a hole.
    pub(crate) fn has_holes(&self, space: Space) -> bool {
        self.with_holes.get(space.0 as usize).copied().unwrap_or(false)
    }

    /// The namespace's number, made when new; `None` when there are too many.
    pub(crate) fn intern(
        &mut self,
        family: Family<'_>,
        block_size: u32,
        scheme: HashScheme,
    ) -> Option<Space> {
        let known = self.find(family, block_size, scheme);
        known.or_else(|| self.has_room(family).then(|| self.add(family, block_size, scheme)))
    }

    /// The same for a namespace that was made before, here or on another replica: whether there was room was decided
    /// then.
    pub(crate) fn restore(&mut self, family: Family<'_>, block_size: u32, scheme: HashScheme) -> Space {
        let known = self.find(family, block_size, scheme);
        known.unwrap_or_else(|| self.add(family, block_size, scheme))
    }

    fn has_room(&self, family: Family<'_>) -> bool {
        self.all.len() < MAX_NAMESPACES
            && self.family(family).len() < MAX_SPACES_PER_FAMILY
            && self.by_tenant.get(family.tenant).is_none_or(|count| *count < MAX_NAMESPACES_PER_TENANT)
    }

    fn add(&mut self, family: Family<'_>, block_size: u32, scheme: HashScheme) -> Space {
        let key = FamilyKey {
            tenant: family.tenant.into(),
            model: family.model.into(),
            lora: family.lora.map(Into::into),
        };
        let space = Space(self.all.len() as u32);
        self.all.push(Namespace {
            tenant: Arc::clone(&key.tenant),
            model: Arc::clone(&key.model),
            lora: key.lora.clone(),
            block_size,
            scheme,
        });
        self.with_holes.push(false);
        *self.by_tenant.entry_ref(family.tenant).or_insert(0) += 1;
        match self.find_family(family).and_then(|number| self.families.get_mut(number)) {
            Some((_, spaces)) => {
                // Not in the order in which they came: of several that serve as much, the first answers.
                let before = |other: &Space| self.all.get(other.0 as usize) < self.all.last();
                let at = spaces.partition_point(before);
                spaces.insert(at, space);
            }
            None => {
                let number = self.families.len();
                self.families.push((key, vec![space]));
                let rehash = |number: &usize| self.families[*number].0.borrow().hash();
                self.by_name.insert_unique(family.hash(), number, rehash);
            }
        }
        space
    }

    pub(crate) fn find(&self, family: Family<'_>, block_size: u32, scheme: HashScheme) -> Option<Space> {
        let is_it = |space: &&Space| {
            self.get(**space).is_some_and(|n| n.block_size == block_size && n.scheme == scheme)
        };
        self.family(family).iter().find(is_it).copied()
    }

    /// All namespaces of one tenant, model and adapter.
    pub(crate) fn family(&self, family: Family<'_>) -> &[Space] {
        self.find_family(family).map_or(&[], |number| self.spaces_of(number))
    }

    /// [`Self::family`] for a caller that remembers where the last one was: mostly it is the same, and comparing
    /// names is quicker than hashing them. Any number may be given.
    pub(crate) fn family_again(&self, family: Family<'_>, last: &mut usize) -> &[Space] {
        if self.families.get(*last).is_none_or(|(key, _)| key.borrow() != family) {
            let Some(number) = self.find_family(family) else { return &[] };
            *last = number;
        }
        self.spaces_of(*last)
    }

    fn spaces_of(&self, number: usize) -> &[Space] {
        self.families.get(number).map_or(&[], |(_, spaces)| spaces)
    }

    fn find_family(&self, family: Family<'_>) -> Option<usize> {
        let is_it = |number: &usize| self.families[*number].0.borrow() == family;
        self.by_name.find(family.hash(), is_it).copied()
    }

    pub(crate) fn get(&self, space: Space) -> Option<&Namespace> {
        self.all.get(space.0 as usize)
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        let texts = self.all.iter().map(|namespace| {
            let lora = namespace.lora.as_ref().map_or(0, |lora| allocated(16 + lora.len()));
            allocated(16 + namespace.tenant.len()) + allocated(16 + namespace.model.len()) + lora
        });
        let lists = self.families.iter().map(|(_, spaces)| vec_bytes::<Space>(spaces.capacity()));
        texts.sum::<usize>()
            + lists.sum::<usize>()
            + vec_bytes::<Namespace>(self.all.capacity())
            + vec_bytes::<(FamilyKey, Vec<Space>)>(self.families.capacity())
            + vec_bytes::<bool>(self.with_holes.capacity())
            + allocated(self.by_name.allocation_size())
            + allocated(self.by_tenant.allocation_size())
            + self.by_tenant.keys().map(|tenant| allocated(16 + tenant.len())).sum::<usize>()
    }

    pub(crate) fn all(&self) -> &[Namespace] {
        &self.all
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn of<'a>(tenant: &'a str, lora: &'a str) -> Family<'a> {
        Family { tenant, model: "m", lora: Some(lora) }
    }

    #[test]
    fn made_up_adapters_use_up_their_own_tenants_share_only() {
        let mut spaces = Spaces::default();
        let mut intern = |tenant: &str, adapter: usize| {
            spaces.intern(of(tenant, &adapter.to_string()), 16, HashScheme::default())
        };
        assert!((0..MAX_NAMESPACES_PER_TENANT).all(|adapter| intern("glutton", adapter).is_some()));
        assert_eq!(intern("glutton", MAX_NAMESPACES_PER_TENANT), None);
        assert!(intern("glutton", 0).is_some(), "one that is there is no new one");
        assert!(intern("other", 0).is_some());
        // What was made elsewhere is taken as it is.
        let more = of("glutton", "from another replica");
        let space = spaces.restore(more, 16, HashScheme::default());
        assert_eq!(spaces.intern(more, 16, HashScheme::default()), Some(space));
    }
}
