//! Random event histories against the naive oracle, with shrinking.

use kvindex_core::{Command, Index, IndexLimits, KvEvent, WorkerId};
use proptest::prelude::*;

use crate::oracle::{Oracle, TIERS};
use crate::rig::{Rig, ask, compare_scores, on_host, removed, spec, stored, stream};

const WORKERS: [&str; 3] = ["a", "b", "c"];

#[derive(Debug, Clone)]
enum Step {
    Store { worker: usize, host: bool, path: Vec<u8>, from: usize },
    Remove { worker: usize, host: bool, path: Vec<u8> },
    Clear { worker: usize },
    Restart { worker: usize },
    Leave { worker: usize },
    Repeat,
    Snapshot,
}

/// Paths over two letters, so that chains meet, part in the middle of runs and come back.
fn path() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(b"xy".to_vec()), 1..9)
}

fn step() -> impl Strategy<Value = Step> {
    let worker = 0..WORKERS.len();
    prop_oneof![
        12 => (worker.clone(), prop::bool::weighted(0.2), path(), 0usize..8).prop_map(|(worker, host, path, from)| {
            let from = from.saturating_sub(4).min(path.len() - 1);
            Step::Store { worker, host, path, from }
        }),
        10 => (worker.clone(), prop::bool::weighted(0.2), path()).prop_map(|(worker, host, path)| Step::Remove { worker, host, path }),
        1 => worker.clone().prop_map(|worker| Step::Clear { worker }),
        1 => worker.clone().prop_map(|worker| Step::Restart { worker }),
        1 => worker.prop_map(|worker| Step::Leave { worker }),
        1 => Just(Step::Repeat),
        1 => Just(Step::Snapshot),
    ]
}

struct World {
    rig: Rig,
    oracle: Oracle,
    last: Option<Command>,
}

impl World {
    fn event(&mut self, worker: &str, host: bool, event: KvEvent) {
        let event = if host { on_host(event) } else { event };
        let command = self.rig.next_batch(worker, vec![event]);
        self.rig.index.apply(&command);
        self.last = Some(command);
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Store { worker, host, path, from } => {
                let worker = WORKERS[worker];
                self.event(worker, host, KvEvent::BlockStored(stored(worker, &path, from)));
                self.oracle.store(worker, TIERS[usize::from(host)], &path, from);
            }
            Step::Remove { worker, host, path } => {
                let worker = WORKERS[worker];
                self.event(worker, host, KvEvent::BlockRemoved(removed(worker, &path)));
                self.oracle.remove(worker, TIERS[usize::from(host)], &path);
            }
            Step::Clear { worker } => {
                self.event(WORKERS[worker], false, KvEvent::AllBlocksCleared);
                self.oracle.clear(WORKERS[worker], Some("device"));
            }
            Step::Restart { worker } => {
                let worker = WORKERS[worker];
                let now = self.rig.index.reader().stream(&stream(worker)).unwrap_or_default().generation.0;
                self.rig.restart(worker, now + 1);
                self.oracle.clear(worker, None);
            }
            Step::Leave { worker } => {
                let id = WorkerId::new(WORKERS[worker]).unwrap();
                self.rig.index.apply(&Command::Unregister { worker: id });
                self.rig.index.apply(&Command::Register(Box::new(spec(WORKERS[worker]))));
                self.oracle.clear(WORKERS[worker], None);
                self.last = None;
            }
            Step::Repeat => {
                if let Some(Command::Events(_)) = &self.last {
                    let again = self.last.clone().unwrap();
                    let outcome = self.rig.index.apply(&again);
                    assert_eq!(outcome.batches, 0, "a batch is applied once");
                }
            }
            Step::Snapshot => {
                let bytes = self.rig.index.snapshot();
                let restored = Index::restore(&bytes, IndexLimits::default()).unwrap();
                assert_eq!(restored.digest(), self.rig.index.digest());
                assert_eq!(restored.snapshot(), bytes);
                self.rig.index = restored;
            }
        }
    }

    fn compare(&self, path: &[u8]) {
        compare_scores(&self.rig.index, path);
        for found in ask(&self.rig.index, path) {
            let worker = found.worker.id.as_str();
            let whole = self.oracle.prefix(worker, 2, path);
            assert_eq!(found.matched_blocks, whole, "{worker} on {:?}", String::from_utf8_lossy(path));
            assert_eq!(found.matched_tokens, whole * 2);
            for tier in &found.tiers {
                let at = TIERS.iter().position(|name| *name == tier.tier.name()).unwrap();
                let prefix = self.oracle.prefix(worker, at + 1, path);
                assert_eq!(tier.prefix_blocks, prefix, "{worker} up to {}", tier.tier);
                let on_tier = (1..=whole).filter(|end| self.oracle.holds(worker, TIERS[at], &path[..*end]));
                assert_eq!(tier.blocks, on_tier.count(), "{worker} on {}", tier.tier);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(800), ..ProptestConfig::default() })]

    #[test]
    fn answers_equal_the_oracles(steps in prop::collection::vec(step(), 1..80), asked in prop::collection::vec(path(), 4)) {
        let mut world = World { rig: Rig::new(&WORKERS), oracle: Oracle::default(), last: None };
        for step in steps {
            let about = match &step {
                Step::Store { path, .. } | Step::Remove { path, .. } => Some(path.clone()),
                _ => None,
            };
            world.step(step);
            world.rig.index.check_invariants().unwrap();
            asked.iter().chain(&about).for_each(|path| world.compare(path));
            prop_assert_eq!(world.rig.index.stats().entries, world.oracle.entries());
        }
        for worker in WORKERS {
            world.rig.index.apply(&Command::Unregister { worker: WorkerId::new(worker).unwrap() });
        }
        world.rig.index.check_invariants().unwrap();
        let stats = world.rig.index.stats();
        prop_assert_eq!((stats.entries, stats.blocks, stats.runs, stats.orphans), (0, 0, 0, 0));
    }

    /// Commands of different streams commute: any interleaving of two histories gives one content.
    #[test]
    fn streams_commute(a in prop::collection::vec((any::<bool>(), path()), 1..20), b in prop::collection::vec((any::<bool>(), path()), 1..20)) {
        let play = |order: &[(&str, &(bool, Vec<u8>))]| {
            let mut rig = Rig::new(&["a", "b"]);
            for (worker, (store, path)) in order {
                let event = if *store { KvEvent::BlockStored(stored(worker, path, 0)) } else { KvEvent::BlockRemoved(removed(worker, path)) };
                rig.send(worker, vec![event]);
            }
            rig.index.check_invariants().unwrap();
            rig.index.digest()
        };
        let one: Vec<_> = a.iter().map(|s| ("a", s)).chain(b.iter().map(|s| ("b", s))).collect();
        let mut other = Vec::new();
        for i in 0..a.len().max(b.len()) {
            other.extend(b.get(i).map(|s| ("b", s)));
            other.extend(a.get(i).map(|s| ("a", s)));
        }
        prop_assert_eq!(play(&one), play(&other));
    }

    /// Arbitrary bytes are never a snapshot, and never a panic.
    #[test]
    fn damaged_snapshots_are_refused(at in any::<prop::sample::Index>(), flip in 1u8..255, cut in any::<prop::sample::Index>()) {
        let mut rig = Rig::new(&["a"]);
        rig.store("a", "xyxy", 0);
        let mut bytes = rig.index.snapshot();
        let shorter = &bytes[..cut.index(bytes.len())];
        prop_assert!(Index::restore(shorter, IndexLimits::default()).is_err());
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        prop_assert!(Index::restore(&bytes, IndexLimits::default()).is_err());
    }
}
