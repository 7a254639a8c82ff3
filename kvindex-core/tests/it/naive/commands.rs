//! A history's steps as commands.

use kvindex_core::{
    Batch, BatchSeq, Change, Command, GapPolicy, Generation, Registration, StreamEvents, StreamId,
};

use super::fleet::Fleet;
use super::history::Step;

impl Step {
    /// The step as a command that follows on what was applied, where `stands` says what that is, and `entries` how
    /// much is held; none for a fork.
    pub(crate) fn command(
        &self,
        fleet: &Fleet,
        stands: impl Fn(&StreamId) -> Option<(Generation, Option<BatchSeq>)>,
        entries: usize,
    ) -> Option<Command> {
        let streams = &fleet.streams;
        let stands = |stream: usize| stands(&streams[stream]).unwrap_or_default();
        let next = |stream: usize| stands(stream).1.map_or(0, |applied| applied.0 + 1);
        let events = |stream: usize, generation, seq: u64, batches: &[Vec<Change>]| {
            let batch = |(seq, changes): (u64, &Vec<Change>)| Batch {
                seq: BatchSeq(seq),
                changes: changes.clone().into(),
            };
            let batches = (seq..).zip(batches).map(batch).collect();
            Command::Events(StreamEvents {
                stream: streams[stream].clone(),
                generation,
                at_ms: 5,
                payload_digest: None,
                registration: Registration::default(),
                batches,
            })
        };
        Some(match self {
            Step::Batches(stream, batches) => events(*stream, stands(*stream).0, next(*stream), batches),
            Step::Again { stream, back, changes } => {
                let (generation, applied) = stands(*stream);
                let seq = applied.map_or(0, |applied| applied.0.saturating_sub(*back));
                events(*stream, generation, seq, std::slice::from_ref(changes))
            }
            Step::Stale { stream, changes } => {
                let before = Generation(stands(*stream).0.0.checked_sub(1)?);
                events(*stream, before, next(*stream), std::slice::from_ref(changes))
            }
            Step::Restart { stream, first } => {
                let generation = Generation(stands(*stream).0.0 + 1);
                match first {
                    Some(first) => events(*stream, generation, 0, std::slice::from_ref(first)),
                    None => {
                        let stream = streams[*stream].clone();
                        let registration = Registration::default();
                        Command::NewGeneration { stream, generation, at_ms: 6, registration }
                    }
                }
            }
            Step::Gap { stream, lost, purge } => {
                let (generation, next) = (stands(*stream).0, next(*stream));
                let first = BatchSeq(if *lost == 0 { next.saturating_sub(1) } else { next });
                let last = BatchSeq(first.0 + lost.saturating_sub(1));
                let policy = if *purge { GapPolicy::Purge } else { GapPolicy::KeepAsSuspect };
                let (stream, registration) = (streams[*stream].clone(), Registration::default());
                Command::Gap { stream, generation, first, last, policy, at_ms: 7, registration }
            }
            Step::Register(spec) => Command::Register(spec.clone()),
            Step::Unregister(worker) => Command::Unregister { worker: worker.clone() },
            Step::Evict { percent } => {
                Command::Evict { entries: (entries * percent).div_ceil(100) as u64, at_ms: 8 }
            }
            Step::Fork => return None,
        })
    }
}
