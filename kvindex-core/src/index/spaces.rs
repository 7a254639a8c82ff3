//! Interned namespaces, and which of them one model's prompts must be looked up in.

use foldhash::fast::FixedState;
use hashbrown::{Equivalent, HashMap};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::tree::Space;
use crate::worker::{HashScheme, Namespace};

/// Most namespaces in one index: a bound on what made-up adapter names can cost.
const MAX_SPACES: usize = 65_536;

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

/// [`FamilyKey`] by reference, so that a look-up allocates nothing.
#[derive(Clone, Copy)]
pub(crate) struct Family<'a> {
    pub(crate) tenant: &'a str,
    pub(crate) model: &'a str,
    pub(crate) lora: Option<&'a str>,
}

impl Hash for FamilyKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.borrow().hash(state);
    }
}

impl FamilyKey {
    fn borrow(&self) -> Family<'_> {
        Family { tenant: &self.tenant, model: &self.model, lora: self.lora.as_deref() }
    }
}

impl Hash for Family<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.tenant, self.model, self.lora).hash(state);
    }
}

impl Equivalent<FamilyKey> for Family<'_> {
    fn equivalent(&self, key: &FamilyKey) -> bool {
        let key = key.borrow();
        (self.tenant, self.model, self.lora) == (key.tenant, key.model, key.lora)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Spaces {
    all: Vec<Namespace>,
    families: HashMap<FamilyKey, Vec<Space>, FixedState>,
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
        if let Some(space) = self.find(family, block_size, scheme) {
            return Some(space);
        }
        if self.all.len() >= MAX_SPACES || self.family(family).len() >= MAX_SPACES_PER_FAMILY {
            return None;
        }
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
        self.families.entry(key).or_default().push(space);
        Some(space)
    }

    fn find(&self, family: Family<'_>, block_size: u32, scheme: HashScheme) -> Option<Space> {
        let is_it = |space: &&Space| {
            self.get(**space).is_some_and(|n| n.block_size == block_size && n.scheme == scheme)
        };
        self.family(family).iter().find(is_it).copied()
    }

    /// All namespaces of one tenant, model and adapter.
    pub(crate) fn family(&self, family: Family<'_>) -> &[Space] {
        self.families.get(&family).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn get(&self, space: Space) -> Option<&Namespace> {
        self.all.get(space.0 as usize)
    }

    pub(crate) fn all(&self) -> &[Namespace] {
        &self.all
    }
}
