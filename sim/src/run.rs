//! One run of one seed.

use std::cell::RefCell;
use std::sync::Once;
use std::time::Duration;

use crate::faults::Kind;
use crate::invariants::Violation;
use crate::mutation::Mutation;
use crate::plan::Plan;
use crate::world::World;

/// Real time after which a run counts as stuck; an ordinary one takes a fraction of a second.
const MOST_VIRTUAL: Duration = Duration::from_secs(300);

thread_local! {
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// What to run.
#[derive(Debug, Clone, Default)]
pub struct Run {
    /// Which seed.
    pub seed: u64,
    /// Only faults of these kinds; all when empty.
    pub only: Vec<Kind>,
    /// A bug to put in.
    pub mutation: Mutation,
    /// Whether to print every event.
    pub loud: bool,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Report {
    /// What was run.
    pub seed: u64,
    /// Its plan in a few words.
    pub plan: String,
    /// The faults that struck.
    pub faults: Vec<Kind>,
    /// The first rule that was broken, if any.
    pub violation: Option<Violation>,
    /// The last events.
    pub recent: Vec<String>,
    /// Digest of all events, and how many there were.
    pub trace: (u64, u64),
    /// Entries applied, in each shard.
    pub committed: Vec<usize>,
    /// Virtual milliseconds.
    pub took_ms: u64,
}

impl Run {
    /// Lives through it.
    ///
    /// # Panics
    /// When the machine gives no thread or memory for a runtime.
    #[must_use]
    pub fn go(&self) -> Report {
        note_panics();
        PANICS.with_borrow_mut(Vec::clear);
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_time().start_paused(true);
        // Without it, tokio wakes those who wait for one watch in a random order.
        #[cfg(tokio_unstable)]
        builder.rng_seed(tokio::runtime::RngSeed::from_bytes(&self.seed.to_le_bytes()));
        let runtime = match builder.build() {
            Ok(runtime) => runtime,
            Err(error) => panic!("no runtime: {error}"),
        };
        let plan = Plan::of(self.seed, &self.only);
        let report = runtime.block_on(async {
            let world = World::new(plan.clone(), self.mutation, self.loud);
            if tokio::time::timeout(MOST_VIRTUAL, world.live()).await.is_err() {
                world.judge.fail("ends", format!("it did not within {MOST_VIRTUAL:?}"));
            }
            // Whatever else was seen may come of that.
            let panicked = PANICS.with_borrow(|panics| panics.first().cloned()).map(|detail| Violation {
                invariant: "no panic",
                detail,
                at_ms: world.trace.now_ms(),
            });
            Report {
                seed: self.seed,
                plan: plan.to_string(),
                faults: plan.faults.iter().map(|fault| fault.kind).collect(),
                violation: panicked.or(world.judge.violation()),
                recent: world.trace.recent(),
                trace: world.trace.digest(),
                committed: world.judge.committed(),
                took_ms: world.trace.now_ms(),
            }
        });
        runtime.shutdown_background();
        report
    }
}

/// Tasks catch panics, and openraft goes on without the task: here they are violations.
fn note_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if tokio::runtime::Handle::try_current().is_ok() {
                PANICS.with_borrow_mut(|panics| panics.push(info.to_string()));
            } else {
                usual(info);
            }
        }));
    });
}
