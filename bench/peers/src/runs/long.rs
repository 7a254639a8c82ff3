//! Stores and questions on the long chains.

use super::{Run, alternate, once};
use crate::allocator::trim;
use crate::answers::Wrong;
use crate::indexes::{Implementation, KvIndex, Shared, Visitor};
use crate::machine::Watch;
use crate::timing::{apply_all, ask_all};
use crate::work::long::{LongLoad, LongShape};

/// Questions asked of each length, over all chains; a quarter of it for the longest.
const ASKED: usize = 8000;

/// Runs all rounds of one shape.
pub(crate) fn run(run: &mut Run, shape: LongShape) -> anyhow::Result<()> {
    let load = LongLoad::new(shape, &run.scale);
    alternate(shape.name, run.rounds, &run.timed(), |round, which| {
        once(which, Visit { run, load: &load, shape, round })
    })
}

struct Visit<'a> {
    run: &'a mut Run,
    load: &'a LongLoad,
    shape: LongShape,
    round: usize,
}

impl Visitor for Visit<'_> {
    fn visit<I: KvIndex>(
        &mut self,
        which: Implementation,
        make: &dyn Fn() -> I,
        _: Option<Shared<I>>,
    ) -> anyhow::Result<()> {
        let (index, name) = (make(), self.shape.name);
        let watch = Watch::start(self.run.patience);
        let nanoseconds = apply_all(&index, &self.load.fill) * 1e9 / self.load.fill.stored() as f64;
        self.run.samples.add(&format!("{name} store"), which, nanoseconds, watch.others());
        let mut wrong = Wrong::default();
        for len in self.run.scale.lengths() {
            let questions = self.load.questions(len);
            let queries: Vec<I::Query> = questions.iter().map(|q| index.query(&q.locals)).collect();
            if self.round == 0 {
                wrong.check_all(&index, &questions, &queries);
            }
            let share = if len > 1024 { 4 } else { 1 };
            let watch = Watch::start(self.run.patience);
            let latency = ask_all(&index, &queries, ASKED / queries.len().max(1) / share);
            let others = watch.others();
            self.run.samples.add(&format!("{name} match {len} p50"), which, latency.p50 / 1e3, others);
            self.run.samples.add(&format!("{name} match {len} p99"), which, latency.p99 / 1e3, others);
        }
        if self.round == 0 {
            self.run.answers.add(name, which, wrong);
        }
        drop(index);
        trim();
        Ok(())
    }
}
