//! Stores, questions, threads and removals on the Zipf load.

use super::{Run, alternate, once};
use crate::allocator::trim;
use crate::answers::Wrong;
use crate::indexes::{Implementation, KvIndex, Shared, Visitor};
use crate::machine::Watch;
use crate::timing::{apply_all, ask_all};
use crate::work::Question;
use crate::work::stream::Stream;
use crate::work::zipf::ZipfLoad;

/// Length of the questions that threads ask.
const THREADED: usize = 4096;
/// Length of the questions asked after everything is removed.
const AFTERWARDS: usize = 128;

/// Runs all rounds.
pub(crate) fn run(run: &mut Run, load: &ZipfLoad) -> anyhow::Result<()> {
    let questions: Vec<(usize, Vec<Question>)> =
        run.scale.lengths().map(|len| (len, load.questions(len, run.scale.questions))).collect();
    alternate("zipf", run.rounds, &run.timed(), |round, which| {
        once(which, Visit { run, load, questions: &questions, round })
    })
}

struct Visit<'a> {
    run: &'a mut Run,
    load: &'a ZipfLoad,
    questions: &'a [(usize, Vec<Question>)],
    round: usize,
}

impl Visit<'_> {
    /// CPU nanoseconds a block of a stream.
    fn stream<I: KvIndex>(&mut self, which: Implementation, index: &I, stream: &Stream, figure: &str) {
        let watch = Watch::start(self.run.patience);
        let seconds = apply_all(index, stream);
        let blocks = (stream.stored() + stream.removed()).max(1) as f64;
        self.run.samples.add(figure, which, seconds * 1e9 / blocks, watch.others());
    }

    fn ask<I: KvIndex>(&mut self, which: Implementation, index: &I, len: usize, queries: &[I::Query]) {
        let watch = Watch::start(self.run.patience);
        let latency = ask_all(index, queries, rounds_for(len));
        let others = watch.others();
        self.run.samples.add(&format!("zipf match {len} p50"), which, latency.p50 / 1e3, others);
        self.run.samples.add(&format!("zipf match {len} p99"), which, latency.p99 / 1e3, others);
    }
}

/// Rounds over all questions of a length: the longer, the fewer.
fn rounds_for(len: usize) -> usize {
    match len {
        0..=8 => 40,
        9..=128 => 20,
        129..=1024 => 10,
        _ => 4,
    }
}

impl Visitor for Visit<'_> {
    fn visit<I: KvIndex>(
        &mut self,
        which: Implementation,
        make: &dyn Fn() -> I,
        shared: Option<Shared<I>>,
    ) -> anyhow::Result<()> {
        let index = make();
        self.stream(which, &index, &self.load.fill, "zipf store");
        let mut wrong = Wrong::default();
        let (load, all) = (self.load, self.questions);
        for (len, questions) in all {
            let queries: Vec<I::Query> = questions.iter().map(|q| index.query(&q.locals)).collect();
            if self.round == 0 {
                wrong.check_all(&index, questions, &queries);
            }
            self.ask(which, &index, *len, &queries);
            if let Some(shared) = shared.as_ref().filter(|_| *len == THREADED.min(self.run.scale.depth)) {
                let watch = Watch::start(self.run.patience);
                let one = (shared.rate)(&index, &queries, 1);
                let two = (shared.rate)(&index, &queries, 2);
                self.run.samples.add("zipf match 4096, 2 threads / 1", which, two / one, watch.others());
            }
        }
        self.stream(which, &index, &load.evict_single, "zipf remove, one hash an event");
        self.stream(which, &index, &load.evict_batch, "zipf remove, up to 32 an event");
        if self.round == 0 {
            let nobody = |question: &Question| (index.query(&question.locals), Vec::new());
            let left = load.questions(AFTERWARDS, self.run.scale.questions);
            for (query, right) in left.iter().map(nobody) {
                wrong.check(&I::credits(&index.find(&query)), &right);
            }
            self.run.answers.add("zipf", which, wrong);
        }
        drop(index);
        trim();
        Ok(())
    }
}
