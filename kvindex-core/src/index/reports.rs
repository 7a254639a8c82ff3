//! Telling hits that are announced again from second copies.
//!
//! In vLLM's report mode `full` (0.26 and later, asked for by a request) a hit is announced like a new copy: a
//! stored event without parent whose blocks are all held already. A second physical copy looks the same on the
//! wire. What gives the mode away is the next event of the same step: the request goes on below the announced
//! hit with new blocks, which a request that computed all of it again would have announced in the same event.
//! Requests of an ordinary engine line up like that now and then, so one such pair proves nothing, and two
//! close together do. From then on such events count no copies, the ones counted so far are taken back, and
//! every answer is marked.
//!
//! In a hybrid model the other groups echo the announcement with the same blocks, also with those that they do
//! not hold: window blocks that were let go.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::hash::EngineBlockHash;
use crate::ids::{BatchSeq, Group};

/// What one sign weighs, in stored events that it takes to be forgotten.
const SIGN: u32 = 32;
/// The mode counts as seen when signs weigh more than this: two signs within 32 events.
const SEEN: u32 = SIGN;
/// Most blocks remembered to be taken back; beyond it all are forgotten.
const MAX_REMEMBERED: usize = 65_536;

/// What a stream gave away of its report mode.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reports {
    weight: u32,
    seen: bool,
    /// The last event that only repeated what was held: its batch and group, and its last block.
    last: Option<(BatchSeq, Group, EngineBlockHash)>,
    /// Repeated blocks that were counted as copies, and how often; none of what has left since.
    counted: BTreeMap<(Group, EngineBlockHash), u32>,
}

impl Reports {
    pub(crate) fn heap_bytes(&self) -> usize {
        super::usage::tree_bytes::<(Group, EngineBlockHash), u32>(self.counted.len())
    }

    /// Whether the engine announces hits again.
    pub(crate) fn seen(&self) -> bool {
        self.seen
    }

    /// An event without parent repeated held blocks only; answers whether it is not to be counted.
    pub(crate) fn repeated(&mut self, batch: BatchSeq, group: Group, blocks: &[EngineBlockHash]) -> bool {
        let Some(last) = blocks.last() else { return self.seen };
        self.last = Some((batch, group, *last));
        self.remember(group, blocks)
    }

    /// Another event without parent; answers whether it only echoes what another group repeated just before.
    pub(crate) fn echoed(&mut self, batch: BatchSeq, group: Group, blocks: &[EngineBlockHash]) -> bool {
        let repeated = self.last.filter(|(at, other, _)| *at == batch && *other != group);
        repeated.is_some_and(|(_, _, last)| blocks.last() == Some(&last)) && self.remember(group, blocks)
    }

    /// Whether the next event of this group and batch may be a sign.
    pub(crate) fn awaits(&self, batch: BatchSeq, group: Group) -> bool {
        self.last.is_some_and(|(at, of, _)| at == batch && of == group)
    }

    fn remember(&mut self, group: Group, blocks: &[EngineBlockHash]) -> bool {
        if !self.seen {
            for block in blocks {
                *self.counted.entry((group, *block)).or_default() += 1;
            }
            if self.counted.len() > MAX_REMEMBERED {
                self.counted.clear();
            }
        }
        self.seen
    }

    /// The last copy of a block has left: nothing of it can be taken back.
    pub(crate) fn gone(&mut self, group: Group, block: EngineBlockHash) {
        if !self.counted.is_empty() {
            self.counted.remove(&(group, block));
        }
    }

    /// Any other stored event, and whether its first block is `new`. Answers the copies to take back,
    /// when it is the sign that decides.
    pub(crate) fn went_on(
        &mut self,
        batch: BatchSeq,
        group: Group,
        parent: Option<EngineBlockHash>,
        new: bool,
    ) -> Vec<(Group, EngineBlockHash)> {
        let last = self.last;
        if last.is_some_and(|(at, of, _)| at != batch || of == group) {
            self.last = None;
        }
        if self.seen {
            return Vec::new();
        }
        self.weight = self.weight.saturating_sub(1);
        if parent.is_none_or(|parent| last != Some((batch, group, parent))) || !new {
            return Vec::new();
        }
        self.weight += SIGN;
        if self.weight <= SEEN {
            return Vec::new();
        }
        self.seen = true;
        let counted = std::mem::take(&mut self.counted).into_iter();
        counted.flat_map(|(block, times)| std::iter::repeat_n(block, times as usize)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const G: Group = Group(0);

    fn pair(reports: &mut Reports, batch: u64) -> usize {
        let blocks = [EngineBlockHash(1), EngineBlockHash(2)];
        reports.repeated(BatchSeq(batch), G, &blocks);
        reports.went_on(BatchSeq(batch), G, Some(blocks[1]), true).len()
    }

    #[test]
    fn two_signs_close_together_decide() {
        let mut reports = Reports::default();
        assert_eq!(pair(&mut reports, 1), 0);
        assert!(!reports.seen());
        assert_eq!(pair(&mut reports, 2), 4, "what was counted twice is given back");
        assert!(reports.seen());
    }

    #[test]
    fn signs_far_apart_do_not() {
        let mut reports = Reports::default();
        for batch in 0..10 {
            assert_eq!(pair(&mut reports, batch * 100), 0);
            for _ in 0..SIGN {
                reports.went_on(BatchSeq(batch * 100 + 1), G, None, true);
            }
        }
        assert!(!reports.seen());
    }

    #[test]
    fn another_groups_echo_is_taken_back_too() {
        let blocks = [EngineBlockHash(1), EngineBlockHash(2)];
        let mut reports = Reports::default();
        let mut step = |batch: u64| {
            reports.repeated(BatchSeq(batch), G, &blocks);
            reports.echoed(BatchSeq(batch), Group(1), &blocks);
            reports.went_on(BatchSeq(batch), G, Some(blocks[1]), true).len()
        };
        assert_eq!((step(1), step(2), step(3)), (0, 8, 0));
        assert!(!reports.echoed(BatchSeq(3), Group(1), &blocks), "the step has gone on");
    }

    #[test]
    fn only_the_very_next_event_of_the_step_is_a_sign() {
        let mut reports = Reports::default();
        for batch in 0..4 {
            reports.repeated(BatchSeq(batch), G, &[EngineBlockHash(1)]);
            reports.went_on(BatchSeq(batch + 1), G, Some(EngineBlockHash(1)), true);
            reports.repeated(BatchSeq(batch), G, &[EngineBlockHash(1)]);
            reports.went_on(BatchSeq(batch), G, Some(EngineBlockHash(9)), true);
        }
        assert!(!reports.seen());
    }
}
