//! What an entry says once and then calls by a number: streams, places, and the shapes of stored runs.

use std::sync::Arc;

use super::CodecError;
use super::head::{Head, put_bytes, put_number};
use crate::command::StoredRun;
use crate::engine::GroupKind;
use crate::hash::EngineBlockHash;
use crate::ids::{Group, Registration, StreamId, Tier};
use crate::limits::MAX_NAME_BYTES;
use crate::worker::{HashScheme, ItemForm};

/// A stream, and what is expected of it next. Writer and reader keep the same.
#[derive(Debug, Clone)]
pub(super) struct Stream {
    pub(super) id: StreamId,
    pub(super) registration: Registration,
    pub(super) generation: u64,
    pub(super) next_seq: u64,
    /// Last block of the run that it stored last.
    pub(super) last_stored: Option<EngineBlockHash>,
}

impl Stream {
    pub(super) fn new(id: StreamId, registration: Registration) -> Self {
        Self { id, registration, generation: 0, next_seq: 0, last_stored: None }
    }

    /// Its worker's name, which workers of one deployment share a beginning of.
    pub(super) fn name(&self) -> &[u8] {
        self.id.worker.as_str().as_bytes()
    }
}

/// Where copies lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) tier: Tier,
    pub(super) group: Group,
}

/// All of a stored run but its blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) place: Place,
    pub(super) lora: Option<Arc<str>>,
    pub(super) block_size: u32,
    pub(super) stride: u32,
    pub(super) scheme: HashScheme,
    pub(super) kind: Option<GroupKind>,
    pub(super) sliding_window: Option<u32>,
}

impl Shape {
    pub(super) fn of(run: &StoredRun) -> Self {
        Self {
            place: Place { tier: run.tier.clone(), group: run.group },
            lora: run.lora.clone(),
            block_size: run.block_size,
            stride: run.stride,
            scheme: run.scheme,
            kind: run.kind,
            sliding_window: run.sliding_window,
        }
    }

    pub(super) fn is_of(&self, run: &StoredRun) -> bool {
        self.place.group == run.group
            && self.place.tier == run.tier
            && self.lora == run.lora
            && (self.block_size, self.stride) == (run.block_size, run.stride)
            && self.scheme == run.scheme
            && (self.kind, self.sliding_window) == (run.kind, run.sliding_window)
    }

    /// Local hashes of so many named blocks, when each has its own.
    pub(super) fn locals_of(&self, blocks: usize) -> Option<usize> {
        blocks.checked_mul(self.stride as usize)
    }

    pub(super) fn put(&self, head: &mut Vec<u8>) {
        self.place.put(head);
        let kind = match self.kind {
            None => 0,
            Some(GroupKind::Full) => 1,
            Some(GroupKind::SlidingWindow) => 2,
            Some(GroupKind::Mamba) => 3,
            Some(GroupKind::Other) => 4,
        };
        let items = match self.scheme.items {
            ItemForm::Hidden => 0,
            ItemForm::Bare => 1,
            ItemForm::WithOffset => 2,
        };
        let bits = |flag: bool, bit: u64| u64::from(flag) << bit;
        let flags = bits(self.lora.is_some(), 0)
            | bits(self.sliding_window.is_some(), 1)
            | bits(self.scheme.salt, 2)
            | bits(self.scheme.content_only, 3)
            | bits(self.stride != 1, 4)
            | bits(self.scheme.lookahead != 0, 5)
            | items << 6
            | kind << 8;
        put_number(head, flags);
        put_number(head, self.block_size.into());
        if self.stride != 1 {
            put_number(head, self.stride.into());
        }
        if self.scheme.lookahead != 0 {
            head.push(self.scheme.lookahead);
        }
        if let Some(lora) = &self.lora {
            put_bytes(head, lora.as_bytes());
        }
        if let Some(window) = self.sliding_window {
            put_number(head, window.into());
        }
    }

    pub(super) fn get(head: &mut Head<'_>) -> Result<Self, CodecError> {
        let place = Place::get(head)?;
        let flags = head.at_most((1 << 11) - 1, "a run's flags")?;
        let flag = |bit: u64| flags >> bit & 1 == 1;
        let items = match flags >> 6 & 3 {
            0 => ItemForm::Hidden,
            1 => ItemForm::Bare,
            2 => ItemForm::WithOffset,
            value => return Err(CodecError::TooLarge { what: "how items are visible", value, most: 2 }),
        };
        let kind = match flags >> 8 {
            0 => None,
            1 => Some(GroupKind::Full),
            2 => Some(GroupKind::SlidingWindow),
            3 => Some(GroupKind::Mamba),
            4 => Some(GroupKind::Other),
            value => return Err(CodecError::TooLarge { what: "a group's kind", value, most: 4 }),
        };
        let block_size = get_u32(head, "a block size")?;
        let stride = if flag(4) { get_u32(head, "a stride")? } else { 1 };
        let lookahead = if flag(5) { head.byte("a lookahead")? } else { 0 };
        let lora = if flag(0) { Some(Arc::from(head.text("an adapter's name")?)) } else { None };
        let sliding_window = if flag(1) { Some(get_u32(head, "a window")?) } else { None };
        let scheme = HashScheme { salt: flag(2), items, lookahead, content_only: flag(3) };
        Ok(Self { place, lora, block_size, stride, scheme, kind, sliding_window })
    }
}

/// Number of a tier without a number of its own: its name follows.
const OTHER_TIER: u64 = 4;

impl Place {
    pub(super) fn put(&self, head: &mut Vec<u8>) {
        put_tier(head, &self.tier, self.group.0.into());
    }

    pub(super) fn get(head: &mut Head<'_>) -> Result<Self, CodecError> {
        let (tier, group) = get_tier(head, u16::MAX.into())?;
        Ok(Self { tier, group: Group(group as u16) })
    }
}

/// A tier and a small number beside it, in one byte as a rule.
pub(super) fn put_tier(head: &mut Vec<u8>, tier: &Tier, beside: u64) {
    let number = match tier {
        Tier::Device => 0,
        Tier::Host => 1,
        Tier::Disk => 2,
        Tier::External => 3,
        Tier::Other(_) => OTHER_TIER,
    };
    put_number(head, beside << 3 | number);
    if let Tier::Other(name) = tier {
        put_bytes(head, name.as_bytes());
    }
}

pub(super) fn get_tier(head: &mut Head<'_>, most: u64) -> Result<(Tier, u64), CodecError> {
    let said = head.at_most(most << 3 | 7, "a tier and group")?;
    let tier = match said & 7 {
        0 => Tier::Device,
        1 => Tier::Host,
        2 => Tier::Disk,
        3 => Tier::External,
        OTHER_TIER => {
            let name = head.text("a tier's name")?;
            check_tier_name(name)?;
            Tier::Other(name.to_owned())
        }
        value => return Err(CodecError::TooLarge { what: "a tier", value, most: OTHER_TIER }),
    };
    Ok((tier, said >> 3))
}

/// A tier's name is copied for each change that names it, so that its length must be bounded for the memory to be.
pub(super) fn check_tier_name(name: &str) -> Result<(), CodecError> {
    let (value, most) = (name.len() as u64, MAX_NAME_BYTES as u64);
    if value > most {
        Err(CodecError::TooLarge { what: "the length of a tier's name", value, most })
    } else {
        Ok(())
    }
}

fn get_u32(head: &mut Head<'_>, what: &'static str) -> Result<u32, CodecError> {
    Ok(head.at_most(u32::MAX.into(), what)? as u32)
}
