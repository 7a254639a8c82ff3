//! A Mooncake trace: questions and events as they would come, in one stream.

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use super::{Run, alternate, once};
use crate::allocator::trim;
use crate::answers::Wrong;
use crate::indexes::{Implementation, KvIndex, Shared, Visitor, prepare};
use crate::machine::{Watch, process_cpu};
use crate::timing::quantiles;
use crate::work::trace::{Step, TraceLoad};

/// Times that each request is sent, as so many tenants would.
const COPIES: u64 = 8;
/// Blocks of a worker's cache.
const CAPACITY: usize = 16_384;

/// Runs all rounds.
pub(crate) fn run(run: &mut Run, file: &Path) -> anyhow::Result<()> {
    let load = TraceLoad::read(file, run.scale.workers, COPIES, CAPACITY)?;
    alternate("trace", run.rounds, &run.timed(), |round, which| {
        once(which, Visit { run, load: &load, round })
    })
}

struct Visit<'a> {
    run: &'a mut Run,
    load: &'a TraceLoad,
    round: usize,
}

impl Visit<'_> {
    /// The same steps once more, untimed, with every answer compared.
    fn check<I: KvIndex>(&mut self, which: Implementation, index: &I) {
        let mut wrong = Wrong::default();
        let mut events = prepare(index, &self.load.stream).into_iter();
        let mut waiting = false;
        for step in &self.load.steps {
            match step {
                Step::Ask(at) => {
                    if std::mem::take(&mut waiting) {
                        index.barrier();
                    }
                    let question = &self.load.questions[*at];
                    let answer = index.find(&index.query(&question.locals));
                    wrong.check(&I::credits(&answer), &question.right);
                }
                Step::Apply => {
                    waiting = true;
                    events.next().into_iter().for_each(|event| index.apply(event));
                }
            }
        }
        self.run.answers.add("trace", which, wrong);
    }
}

impl Visitor for Visit<'_> {
    fn visit<I: KvIndex>(
        &mut self,
        which: Implementation,
        make: &dyn Fn() -> I,
        _: Option<Shared<I>>,
    ) -> anyhow::Result<()> {
        let index = make();
        let mut events = prepare(&index, &self.load.stream).into_iter();
        let queries: Vec<I::Query> = self.load.questions.iter().map(|q| index.query(&q.locals)).collect();
        let mut latencies = Vec::with_capacity(queries.len());
        let watch = Watch::start(self.run.patience);
        let started = process_cpu();
        for step in &self.load.steps {
            match step {
                Step::Ask(at) => {
                    let asked = Instant::now();
                    drop(black_box(index.find(&queries[*at])));
                    latencies.push(asked.elapsed().as_nanos() as f64);
                }
                Step::Apply => events.next().into_iter().for_each(|event| index.apply(event)),
            }
        }
        index.barrier();
        let seconds = process_cpu() - started;
        let others = watch.others();
        let asked: usize = self.load.questions.iter().map(|q| q.locals.len()).sum();
        let blocks = (asked + self.load.stream.stored() + self.load.stream.removed()).max(1) as f64;
        let latency = quantiles(latencies);
        self.run.samples.add(
            "trace, a block asked, stored or removed",
            which,
            seconds * 1e9 / blocks,
            others,
        );
        self.run.samples.add("trace match p50", which, latency.p50 / 1e3, others);
        self.run.samples.add("trace match p99", which, latency.p99 / 1e3, others);
        drop(index);
        if self.round == 0 {
            self.check(which, &make());
        }
        trim();
        Ok(())
    }
}
