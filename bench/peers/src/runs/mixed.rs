//! Questions while stores run: how much worse their worst hundredth gets.

use super::{Run, alternate, once};
use crate::allocator::trim;
use crate::indexes::{Implementation, KvIndex, Shared, Visitor, prepare};
use crate::machine::Watch;
use crate::timing::{ask_all, quantiles};
use crate::work::zipf::ZipfLoad;

/// Length of the questions.
const LENGTH: usize = 128;
/// Rounds over all questions on the idle index.
const IDLE_ROUNDS: usize = 5;

/// Runs all rounds, on those indexes that several threads may use.
pub(crate) fn run(run: &mut Run, load: &ZipfLoad) -> anyhow::Result<()> {
    alternate("mixed", run.rounds, &run.timed(), |_, which| once(which, Visit { run, load }))
}

struct Visit<'a> {
    run: &'a mut Run,
    load: &'a ZipfLoad,
}

impl Visitor for Visit<'_> {
    fn visit<I: KvIndex>(
        &mut self,
        which: Implementation,
        make: &dyn Fn() -> I,
        shared: Option<Shared<I>>,
    ) -> anyhow::Result<()> {
        let Some(shared) = shared else { return Ok(()) };
        let index = make();
        let mut events = prepare(&index, &self.load.fill);
        let later = events.split_off(events.len() / 2);
        events.into_iter().for_each(|event| index.apply(event));
        index.barrier();
        let questions = self.load.questions(LENGTH, self.run.scale.questions);
        let queries: Vec<I::Query> = questions.iter().map(|q| index.query(&q.locals)).collect();
        let watch = Watch::start(self.run.patience);
        let idle = ask_all(&index, &queries, IDLE_ROUNDS);
        let busy = quantiles((shared.mixed)(&index, later, &queries));
        let others = watch.others();
        let mut add = |figure: &str, value| self.run.samples.add(figure, which, value, others);
        add("match 128 p50, idle", idle.p50 / 1e3);
        add("match 128 p99, idle", idle.p99 / 1e3);
        add("match 128 p50 while stores run", busy.p50 / 1e3);
        add("match 128 p99 while stores run", busy.p99 / 1e3);
        add("match 128 p99, stores running / idle", busy.p99 / idle.p99);
        let mut wrong = crate::answers::Wrong::default();
        wrong.check_all(&index, &questions, &queries);
        self.run.answers.add("mixed, after the stores", which, wrong);
        drop(index);
        trim();
        Ok(())
    }
}
