//! KV-cache groups of a stream: what its events and its registration say of them, and what each needs of a
//! prefix. vLLM's rule: a hit is the longest length that every group can serve.

use serde::{Deserialize, Serialize};

use crate::command::StoredRun;
use crate::engine::{GroupKind, GroupSpec, gcd};
use crate::ids::{Group, Tier};
use crate::limits::MAX_OWNERS_PER_STREAM;

/// What a stream announced of one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Announced {
    pub(crate) group: Group,
    pub(crate) kind: Option<GroupKind>,
    /// Tokens a block: the most announced, because partial blocks are announced with fewer.
    pub(crate) block_size: u32,
    /// Tokens that divide every size announced.
    pub(crate) unit: u32,
    pub(crate) sliding_window: Option<u32>,
}

/// All groups that a stream announced, in order of their numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Groups(Vec<Announced>);

/// What a group needs of a prefix for the engine to go on from its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// All its blocks.
    All,
    /// The last so many blocks.
    Last(usize),
    /// The state stored at its end.
    State,
}

/// One group, as a query sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) group: Group,
    pub(crate) need: Need,
    /// Hash units a block.
    pub(crate) stride: usize,
    /// Whether it is known what the group needs.
    pub(crate) known: bool,
}

impl Groups {
    /// Takes note of what a stored run says of its group; answers whether the chains of the stream, a hybrid
    /// model's, are cut in other units from now on.
    pub(crate) fn learn(&mut self, run: &StoredRun, configured: &[GroupSpec]) -> bool {
        let before = self.unit(configured);
        let size = run.block_size.saturating_mul(run.stride.max(1));
        let at = match self.0.binary_search_by_key(&run.group, |known| known.group) {
            Ok(at) => at,
            Err(_) if self.0.len() >= MAX_OWNERS_PER_STREAM => return false,
            Err(at) => {
                let (group, unit) = (run.group, run.block_size);
                let new = Announced { group, kind: None, block_size: 0, unit, sliding_window: None };
                self.0.insert(at, new);
                at
            }
        };
        let known = &mut self.0[at];
        // What a group is does not change in one life of an engine: the first word counts.
        known.kind = known.kind.or(run.kind);
        known.sliding_window = known.sliding_window.or(run.sliding_window).filter(|window| *window > 0);
        if self.is_simple(configured) {
            // A tier behind the device may come in blocks of its own; the device's are the engine's.
            let known = &mut self.0[at];
            if size > 0 && (run.tier == Tier::Device || known.block_size == 0) {
                (known.block_size, known.unit) = (size, run.block_size);
            }
        } else {
            let known = &mut self.0[at];
            known.block_size = known.block_size.max(size);
            known.unit = gcd(known.unit, run.block_size);
        }
        let several = !self.is_simple(configured) || run.stride > 1;
        several && before != 0 && before != self.unit(configured)
    }

    /// Takes over a group of which no more than the block size is known.
    pub(crate) fn restore(&mut self, group: Group, block_size: u32) {
        if block_size > 0
            && let Err(at) = self.0.binary_search_by_key(&group, |known| known.group)
        {
            let new = Announced { group, kind: None, block_size, unit: block_size, sliding_window: None };
            self.0.insert(at, new);
        }
    }

    /// Whether there is one group, which needs every block: the ordinary model.
    pub(crate) fn is_simple(&self, configured: &[GroupSpec]) -> bool {
        configured.is_empty()
            && self.0.len() <= 1
            && self.0.iter().all(|g| !matches!(g.kind, Some(GroupKind::SlidingWindow | GroupKind::Mamba)))
    }

    /// Tokens of one hash: what all groups' sizes have in common; 0 when nothing is known yet.
    pub(crate) fn unit(&self, configured: &[GroupSpec]) -> u32 {
        let announced = self.0.iter().fold(0, |unit, group| gcd(unit, group.unit));
        configured.iter().fold(announced, |unit, group| gcd(unit, group.block_size))
    }

    /// Every group, announced or configured; what is configured counts.
    pub(crate) fn shapes(&self, configured: &[GroupSpec]) -> Vec<Shape> {
        let unit = self.unit(configured).max(1);
        let mut groups: Vec<Announced> = self.0.clone();
        for spec in configured {
            let (kind, unit) = (Some(spec.kind), spec.block_size);
            let GroupSpec { group, block_size, sliding_window, .. } = *spec;
            let told = Announced { group, kind, block_size, unit, sliding_window };
            match groups.iter_mut().find(|known| known.group == group) {
                Some(known) => *known = told,
                None => groups.push(told),
            }
        }
        groups.sort_by_key(|known| known.group);
        let several = groups.len() > 1;
        groups.iter().map(|known| known.shape(unit, several)).collect()
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        super::usage::vec_bytes::<Announced>(self.0.capacity())
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

impl Announced {
    fn shape(&self, unit: u32, several: bool) -> Shape {
        let need = match (self.kind, self.sliding_window) {
            (Some(GroupKind::Mamba), _) => Need::State,
            // The token before the boundary sees itself and the window's other tokens.
            (Some(GroupKind::SlidingWindow), Some(window)) => {
                Need::Last((window.saturating_sub(1).div_ceil(self.block_size.max(1)) as usize).max(1))
            }
            _ => Need::All,
        };
        let unclear = match self.kind {
            Some(GroupKind::Full | GroupKind::Mamba) => false,
            Some(GroupKind::SlidingWindow) => self.sliding_window.is_none(),
            Some(GroupKind::Other) => true,
            None => several,
        };
        let stride = (self.block_size / unit).max(1) as usize;
        Shape { group: self.group, need, stride, known: !unclear }
    }
}
