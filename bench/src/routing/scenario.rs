//! Which fleets, loads and policies are run, and their figures.

use anyhow::Context;
use clap::ValueEnum;

use super::RoutingArgs;
use super::engine::{Decode, Pace};
use super::figures::Figures;
use super::replay::{Arrivals, Served, replay};
use super::router::{Policy, Setup};
use super::trace::{Request, sessions};

/// How requests come, and what engines do beside prefills.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind {
    /// At the trace's times, so much faster or slower that this is the load; prefills only.
    Load(f64),
    /// So many at once for each engine; prefills only.
    Closed,
    /// The same, and engines write the answers too.
    ClosedWithAnswers,
}

/// One fleet, and how requests come to it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Case {
    pub(super) engines: usize,
    pub(super) cache_blocks: usize,
    /// Routers side by side.
    pub(super) routers: usize,
    pub(super) kind: Kind,
}

/// A case under one policy.
pub(super) struct Run {
    pub(super) case: Case,
    pub(super) policy: Policy,
    pub(super) figures: Figures,
    /// Blocks stored and removed that the index was told of.
    pub(super) applied: u64,
}

/// One trace, and all that was run on it.
pub(super) struct Measured {
    pub(super) name: String,
    pub(super) requests: Vec<Request>,
    pub(super) runs: Vec<Run>,
}

impl Measured {
    /// The figures of one run, if it was made.
    pub(super) fn of(&self, case: Case, policy: Policy) -> Option<&Figures> {
        self.runs.iter().find(|run| run.case == case && run.policy == policy).map(|run| &run.figures)
    }

    /// How much faster than its own times the trace is played for this load.
    pub(super) fn factor(&self, scenarios: &Scenarios, engines: usize, load: f64) -> f64 {
        scenarios.factor(&self.requests, engines, load)
    }
}

/// All that is to be run.
pub(super) struct Scenarios {
    args: RoutingArgs,
    pub(super) policies: Vec<Policy>,
    pub(super) loads: Vec<f64>,
}

impl Scenarios {
    pub(super) fn new(args: &RoutingArgs) -> anyhow::Result<Self> {
        anyhow::ensure!(!args.engines.is_empty(), "--engines is empty");
        anyhow::ensure!(!args.cache_blocks.is_empty(), "--cache-blocks is empty");
        let mut loads = args.load.clone();
        loads.sort_unstable_by(f64::total_cmp);
        let policies = match args.policies.as_slice() {
            [] => Policy::value_variants().to_vec(),
            some => some.to_vec(),
        };
        Ok(Self { args: args.clone(), policies, loads })
    }

    /// The size of fleet that gets all loads.
    pub(super) fn middle(&self) -> usize {
        self.args.engines.get(self.args.engines.len() / 2).copied().unwrap_or(1)
    }

    /// The load that all sizes get.
    pub(super) fn usual_load(&self) -> f64 {
        self.args.load.first().copied().unwrap_or(1.0)
    }

    /// Every fleet with the given kind of arrivals.
    pub(super) fn fleets(&self, routers: usize, kind: Kind) -> Vec<Case> {
        let sizes = self.args.engines.iter();
        let cases = sizes.flat_map(|engines| {
            let caches = self.args.cache_blocks.iter();
            caches.map(|cache_blocks| Case { engines: *engines, cache_blocks: *cache_blocks, routers, kind })
        });
        cases.collect()
    }

    /// One router, and several where that is a part.
    pub(super) fn router_counts(&self) -> Vec<usize> {
        if self.args.routers > 1 { vec![1, self.args.routers] } else { vec![1] }
    }

    /// The sizes of caches.
    pub(super) fn caches(&self) -> &[usize] {
        &self.args.cache_blocks
    }

    pub(super) fn cases(&self) -> Vec<Case> {
        let mut cases = self.fleets(1, Kind::Load(self.usual_load()));
        for load in self.loads.iter().filter(|load| **load != self.usual_load()) {
            cases.extend(
                self.fleets(1, Kind::Load(*load)).into_iter().filter(|at| at.engines == self.middle()),
            );
        }
        for routers in self.router_counts().into_iter().filter(|count| *count > 1) {
            let several = self.fleets(routers, Kind::Load(self.usual_load()));
            cases.extend(several.into_iter().filter(|at| at.engines == self.middle()));
        }
        cases.extend(self.fleets(1, Kind::Closed));
        cases.extend(self.fleets(1, Kind::ClosedWithAnswers));
        cases
    }

    /// Runs all cases on a trace.
    pub(super) fn run(&self, name: &str, requests: &[Request]) -> anyhow::Result<Vec<Run>> {
        self.fits(requests).with_context(|| name.to_owned())?;
        let sessions = sessions(requests);
        let mut runs = Vec::new();
        for case in self.cases() {
            for policy in &self.policies {
                let run = self.one(case, *policy, requests, &sessions);
                runs.push(run.with_context(|| format!("{name}, {case:?}, {}", policy.name()))?);
            }
            eprintln!("{name}: {case:?} done");
        }
        Ok(runs)
    }

    fn one(&self, case: Case, policy: Policy, requests: &[Request], sessions: &[u64]) -> anyhow::Result<Run> {
        let answers = case.kind == Kind::ClosedWithAnswers;
        let setup = Setup {
            policy,
            engines: case.engines,
            cache_blocks: case.cache_blocks,
            guess_blocks: self.args.guess_blocks,
            guess_ttl_s: self.args.guess_ttl_s.unwrap_or(f64::INFINITY),
            delay_s: self.args.delay_ms / 1e3,
            overlap_weight: self.args.overlap_weight,
            routers: case.routers,
            held_weight: if answers { 1.0 } else { 0.0 },
            seed: self.args.seed,
        };
        let decode = Decode {
            step_s: self.args.step_ms / 1e3,
            each_s: self.args.each_ms / 1e3,
            chunk: self.args.chunk,
        };
        let pace = Pace { prefill: self.args.prefill_rate, decode: answers.then_some(decode) };
        let arrivals = match case.kind {
            Kind::Load(load) => Arrivals::Faster(self.factor(requests, case.engines, load)),
            Kind::Closed | Kind::ClosedWithAnswers => Arrivals::Closed(self.args.concurrency * case.engines),
        };
        let replayed = replay(requests, sessions, setup, pace, arrivals)?;
        let served: Vec<Served> = replayed.served.iter().flatten().copied().collect();
        anyhow::ensure!(
            served.len() == requests.len(),
            "{} of {} requests were served: a bug of the simulation",
            served.len(),
            requests.len()
        );
        Ok(Run { case, policy, figures: Figures::of(&served, case.engines), applied: replayed.applied })
    }

    fn factor(&self, requests: &[Request], engines: usize, load: f64) -> f64 {
        let tokens: u64 = requests.iter().map(|request| request.tokens).sum();
        let span = requests.last().map_or(0.0, |last| last.at_s);
        let offered = tokens as f64 / span.max(1e-3);
        load * engines as f64 * self.args.prefill_rate / offered
    }

    /// A request that no cache has room for would wait for ever.
    fn fits(&self, requests: &[Request]) -> anyhow::Result<()> {
        let largest = requests.iter().map(Request::all_blocks).max().unwrap_or(0);
        let least = self.args.cache_blocks.iter().copied().min().unwrap_or(0);
        anyhow::ensure!(
            least >= largest,
            "--cache-blocks {least} is too small for the trace's largest request: give {largest} or more"
        );
        Ok(())
    }
}
