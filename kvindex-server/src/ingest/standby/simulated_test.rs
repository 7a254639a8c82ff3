//! The parts of the simulated world: a node with its wire, and the index that all nodes agree on.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use kvindex_core::{BatchSeq, Generation};

use super::Follower;
use crate::ingest::sequencer::{Arrival, Resume, SequencerConfig};

/// A batch: life and number.
pub(super) type Content = (u64, u64);

/// What is under way to a node.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wire {
    Batch(Content),
    /// The connection came about.
    Up,
}

pub(super) struct Node {
    pub(super) follower: Follower<Content>,
    pub(super) wire: VecDeque<Wire>,
    pub(super) last: Option<Content>,
    /// What was heard on the connection that stands, and what was the first of its life heard on its connection.
    pub(super) heard: BTreeSet<Content>,
    pub(super) firsts: BTreeSet<Content>,
    /// Numbers that others declared lost, or that went with those: the index is past them.
    pub(super) lost_by_others: BTreeSet<u64>,
}

impl Node {
    pub(super) fn new(config: SequencerConfig) -> Self {
        Self {
            follower: Follower::new(config),
            wire: [Wire::Up].into(),
            last: None,
            heard: BTreeSet::new(),
            firsts: BTreeSet::new(),
            lost_by_others: BTreeSet::new(),
        }
    }

    pub(super) fn link_up(&mut self, newer: usize) {
        self.follower.link_changed(false, newer);
        self.follower.link_changed(true, newer);
        self.heard.clear();
        self.last = None;
    }

    /// What was heard on the connection that stands.
    fn note(&mut self, heard: &[Content]) {
        for (life, seq) in heard {
            if !self.heard.iter().any(|batch| batch.0 == *life) {
                self.firsts.insert((*life, *seq));
            }
            self.heard.insert((*life, *seq));
        }
    }

    /// What the thread does in a turn before it feeds the sequencer.
    pub(super) fn read(&mut self, count: usize, early: bool, now_ms: u64) {
        // A node that has heard nothing yet has no earlier connection of which something could be left.
        let fresh = self.firsts.is_empty();
        if early && !fresh {
            let ups = self.wire.iter().filter(|item| matches!(item, Wire::Up)).count();
            self.wire.retain(|item| matches!(item, Wire::Batch(_)));
            (0..ups).for_each(|_| self.link_up(0));
        }
        let was_unread = self.follower.must_drain();
        let (mut heard, mut ups, mut read) = (Vec::new(), 0, 0);
        while read < count
            && let Some(item) = self.wire.pop_front()
        {
            match item {
                Wire::Up if fresh => {
                    self.note(&std::mem::take(&mut heard));
                    self.link_up(0);
                }
                Wire::Up => ups += 1,
                Wire::Batch(batch) => {
                    read += 1;
                    heard.push(batch);
                    self.last = Some(batch);
                    assert_eq!(self.follower.hear(arrival(batch), now_ms), 0, "the backlog is large enough");
                }
            }
        }
        (0..ups).for_each(|_| self.link_up(heard.len()));
        self.note(&heard);
        if was_unread && self.wire.is_empty() {
            self.follower.drained();
            self.last = None;
            self.heard.clear(); // of these nobody can tell on which connection they came
        }
    }
}

pub(super) fn arrival((life, seq): Content) -> Arrival<Content> {
    Arrival { seq, digest: life << 32 | seq, bytes: 1, batch: (life, seq) }
}

/// What all nodes agreed on: of the generation, each number either applied or declared lost.
#[derive(Default)]
pub(super) struct Index {
    pub(super) generation: Generation,
    pub(super) view: BTreeMap<u64, Option<Content>>,
    pub(super) ever: BTreeSet<Content>,
}

impl Index {
    pub(super) fn resume(&self) -> Option<Resume> {
        let last = self.view.last_key_value();
        let known = last.is_some() || self.generation > Generation(0);
        let digest = last.and_then(|(_, content)| content.map(|content| arrival(content).digest));
        let applied = last.map(|(seq, _)| BatchSeq(*seq));
        known.then_some(Resume { generation: self.generation, applied, payload_digest: digest })
    }

    pub(super) fn next(&self) -> u64 {
        self.view.last_key_value().map_or(0, |(seq, _)| seq + 1)
    }

    /// Whether the generation is the index's; a later one empties it.
    pub(super) fn enter(&mut self, generation: Generation) -> bool {
        if generation > self.generation {
            self.generation = generation;
            self.view.clear();
        }
        generation == self.generation
    }
}
