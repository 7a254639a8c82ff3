//! Random lives of an engine, with losses, duplicates, reorderings and dying replays: what was applied must
//! be exactly the engine's batches of its current life minus the declared gaps, in order, once.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, VecDeque};

use kvindex_core::Generation;
use proptest::prelude::*;

use super::{Action, Arrival, Input, Phase, Sequencer, SequencerConfig};

type Content = (u64, u64);

/// What the outside world does next.
#[derive(Debug, Clone)]
enum Step {
    /// The engine publishes this many batches; the flags say which reach the subscriber.
    Publish {
        arrives: Vec<bool>,
    },
    /// The last batch that arrived comes again.
    Repeat,
    /// The two oldest undelivered batches swap.
    Swap,
    /// The subscriber reads this many.
    Deliver {
        count: usize,
    },
    /// The replay socket sends this many more frames.
    Answer {
        count: usize,
    },
    /// The running replay dies.
    ReplayDies,
    /// The engine starts again: a TCP connection cannot survive that, so a reconnect is noticed. (Without
    /// that, a new life whose first arriving number is the one expected looks like the old one.)
    Restart,
    /// The encoder throws: a number is used up and nothing is sent or buffered.
    BurnNumber,
    Silence,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop::collection::vec(prop::bool::weighted(0.85), 1..6).prop_map(|arrives| Step::Publish { arrives }),
        1 => Just(Step::Repeat),
        1 => Just(Step::Swap),
        8 => (1usize..8).prop_map(|count| Step::Deliver { count }),
        8 => (1usize..8).prop_map(|count| Step::Answer { count }),
        1 => Just(Step::ReplayDies),
        1 => Just(Step::Restart),
        1 => Just(Step::BurnNumber),
        1 => Just(Step::Silence),
    ]
}

/// An engine with its replay buffer, the wire to it, and the index's view of what was applied.
struct World {
    sequencer: Sequencer<Content>,
    has_replay: bool,
    buffer_steps: usize,
    now_ms: u64,
    life: u64,
    next: u64,
    buffer: VecDeque<Content>,
    wire: VecDeque<Content>,
    last: Option<Content>,
    answer: Option<VecDeque<Content>>,
    generation: Generation,
    /// Of the generation: each number either applied with a content or declared lost.
    view: BTreeMap<u64, Option<Content>>,
}

impl World {
    fn new(has_replay: bool, buffer_steps: usize) -> Self {
        let config = SequencerConfig { has_replay, max_buffered_batches: 8, ..SequencerConfig::default() };
        Self {
            sequencer: Sequencer::new(config, None),
            has_replay,
            buffer_steps,
            now_ms: 0,
            life: 1,
            next: 0,
            buffer: VecDeque::new(),
            wire: VecDeque::new(),
            last: None,
            answer: None,
            generation: Generation(0),
            view: BTreeMap::new(),
        }
    }

    fn input(&mut self, input: Input<Content>) {
        self.now_ms += 1;
        let mut out = Vec::new();
        self.sequencer.step(input, self.now_ms, &mut out);
        out.iter().for_each(|action| self.obey(action));
    }

    /// Does what an index does, and asserts what it relies on: numbers without holes, in order, once.
    fn obey(&mut self, action: &Action<Content>) {
        let next = self.view.last_key_value().map_or(0, |(seq, _)| seq + 1);
        match *action {
            Action::Apply { generation, seq, batch, .. } => {
                assert_eq!((generation, seq.0), (self.generation, next), "order");
                assert_eq!(batch.1, seq.0, "content under its own number");
                self.view.insert(seq.0, Some(batch));
            }
            Action::Gap { generation, first, last } => {
                assert_eq!((generation, first.0), (self.generation, next), "order");
                assert!(last >= first);
                self.view.extend((first.0..=last.0).map(|seq| (seq, None)));
            }
            Action::NewGeneration(generation) => {
                assert_eq!(generation.0, self.generation.0 + 1);
                self.generation = generation;
                self.view.clear();
            }
            Action::RequestReplay { from } => {
                assert!(self.has_replay);
                self.answer = Some(self.buffer.iter().filter(|b| b.1 >= from.0).copied().collect());
            }
            Action::Duplicate => {}
        }
    }

    fn publish(&mut self, arrives: bool) {
        let batch = (self.life, self.next);
        self.next += 1;
        self.buffer.push_back(batch);
        if self.buffer.len() > self.buffer_steps {
            self.buffer.pop_front();
        }
        if arrives {
            self.wire.push_back(batch);
        }
    }

    fn arrival((life, seq): Content) -> Arrival<Content> {
        Arrival { seq, digest: life << 32 | seq, bytes: 1, batch: (life, seq) }
    }

    fn deliver(&mut self, count: usize) {
        for _ in 0..count {
            let Some(batch) = self.wire.pop_front() else { return };
            self.last = Some(batch);
            self.input(Input::Live(Self::arrival(batch)));
        }
    }

    fn answer(&mut self, count: usize) {
        for done in 0..count {
            assert!(done < 10_000, "replays without end");
            match self.answer.as_mut().map(VecDeque::pop_front) {
                None => return,
                Some(Some(batch)) => self.input(Input::Replayed(Self::arrival(batch))),
                Some(None) => {
                    self.answer = None;
                    self.input(Input::ReplayEnd);
                }
            }
        }
    }

    fn restart(&mut self) {
        // What is under way on the old connection is read before the new one is noticed.
        self.deliver(usize::MAX);
        self.life += 1;
        self.next = 0;
        self.buffer.clear();
        self.last = None;
        if self.answer.take().is_some() {
            self.input(Input::ReplayFailed);
        }
        self.input(Input::Disconnected);
        self.input(Input::Connected);
    }

    fn play(&mut self, step: &Step) {
        match step {
            Step::Publish { arrives } => arrives.iter().for_each(|arrives| self.publish(*arrives)),
            Step::Repeat => self.wire.extend(self.last),
            Step::Swap if self.wire.len() > 1 => self.wire.swap(0, 1),
            Step::Swap => {}
            Step::Deliver { count } => self.deliver(*count),
            Step::Answer { count } => self.answer(*count),
            Step::ReplayDies => {
                if self.answer.take().is_some() {
                    self.input(Input::ReplayFailed);
                }
            }
            Step::Restart => self.restart(),
            Step::BurnNumber => self.next += 1,
            Step::Silence => {
                self.now_ms += 100_000;
                self.input(Input::Tick);
            }
        }
    }

    /// Lets everything under way arrive, twice publishing one more batch that does, with replays that answer.
    fn settle(&mut self) {
        for _ in 0..3 {
            self.publish(true);
            for _ in 0..64 {
                self.deliver(usize::MAX);
                self.answer(usize::MAX);
            }
            self.play(&Step::Silence);
            self.answer(usize::MAX);
        }
        assert!(self.wire.is_empty() && self.answer.is_none(), "it comes to rest");
    }

    /// What must hold at rest. A replay that died may leave losses it could have mended, and lives it
    /// could have told apart.
    fn check(&self, replay_died: bool) {
        let of_other_lives = self.view.values().flatten().filter(|batch| batch.0 != self.life).count();
        if self.has_replay && !replay_died {
            assert_eq!(of_other_lives, 0, "only the current life: {:?}", self.view);
            // What the engine still buffers can be had, so only older numbers may be missing.
            for batch in &self.buffer {
                assert_eq!(self.view.get(&batch.1), Some(&Some(*batch)), "{:?}", self.view);
            }
        }
        assert_eq!(self.view.len() as u64, self.next, "every number applied or declared lost");
        assert_eq!(self.sequencer.phase(), Phase::Live);
        assert_eq!(self.sequencer.behind_since_ms(), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn with_replay_everything_buffered_is_applied_once_and_in_order(
        steps in prop::collection::vec(step(), 1..60),
        buffer_steps in prop_oneof![Just(4usize), Just(20), Just(10_000)],
    ) {
        let mut world = World::new(true, buffer_steps);
        world.input(Input::Connected);
        steps.iter().for_each(|step| world.play(step));
        world.settle();
        world.check(steps.iter().any(|step| matches!(step, Step::ReplayDies)));
    }

    #[test]
    fn without_replay_every_loss_is_declared(steps in prop::collection::vec(step(), 1..60)) {
        let mut world = World::new(false, 1);
        steps.iter().for_each(|step| world.play(step));
        world.settle();
        world.check(false);
    }
}
