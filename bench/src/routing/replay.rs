//! One trace over one fleet under one policy: the clock of the simulation, and what every request went through.

use super::engine::{Engine, Happening, Pace};
use super::router::{Router, Setup};
use super::trace::Request;

/// When requests come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Arrivals {
    /// At the trace's own times, divided by this.
    Faster(f64),
    /// In the trace's order, always this many at once: the next one when one is finished.
    Closed(usize),
}

/// What a request went through.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Served {
    pub(super) engine: usize,
    pub(super) came_s: f64,
    pub(super) first_token_s: f64,
    pub(super) finished_s: f64,
    pub(super) tokens: u64,
    /// Tokens that the engine had cached.
    pub(super) saved: u64,
    /// Tokens that the router believed to be cached there.
    pub(super) believed: u64,
}

/// All that one run showed.
pub(super) struct Replayed {
    /// By the request's place in the trace; `None` for one that was never finished.
    pub(super) served: Vec<Option<Served>>,
    /// Blocks stored and removed that the index was told of.
    pub(super) applied: u64,
}

struct Replay<'a> {
    requests: &'a [Request],
    arrivals: Arrivals,
    engines: Vec<Engine<'a>>,
    router: Router<'a>,
    coming: usize,
    running: usize,
    now: f64,
    served: Vec<Option<Served>>,
    open: Vec<Option<Served>>,
}

/// Runs the whole trace.
pub(super) fn replay(
    requests: &[Request],
    sessions: &[u64],
    setup: Setup,
    pace: Pace,
    arrivals: Arrivals,
) -> anyhow::Result<Replayed> {
    let mut replay = Replay {
        requests,
        arrivals,
        engines: (0..setup.engines).map(|_| Engine::new(pace, setup.cache_blocks)).collect(),
        router: Router::new(setup, requests, sessions)?,
        coming: 0,
        running: 0,
        now: 0.0,
        served: vec![None; requests.len()],
        open: vec![None; requests.len()],
    };
    while replay.step()? {}
    Ok(Replayed { applied: replay.router.applied(), served: replay.served })
}

impl Replay<'_> {
    /// The next thing that happens; `false` after the last.
    fn step(&mut self) -> anyhow::Result<bool> {
        let times = self.engines.iter().enumerate().filter_map(|(at, engine)| Some((engine.next()?, at)));
        let next = times.min_by(|one, other| one.0.total_cmp(&other.0));
        match (next, self.next_arrival()) {
            (None, None) => Ok(false),
            (Some((time, _)), Some(arrival)) if arrival < time => self.arrive(arrival),
            (None, Some(arrival)) => self.arrive(arrival),
            (Some((time, engine)), _) => {
                self.now = time;
                let mut out = Vec::new();
                if let Some(engine) = self.engines.get_mut(engine) {
                    engine.run_to(time, &mut out);
                }
                self.heard(engine, &out);
                Ok(true)
            }
        }
    }

    fn next_arrival(&self) -> Option<f64> {
        let request = self.requests.get(self.coming)?;
        match self.arrivals {
            Arrivals::Faster(factor) => Some(request.at_s / factor),
            Arrivals::Closed(most) => (self.running < most).then_some(self.now),
        }
    }

    fn arrive(&mut self, time: f64) -> anyhow::Result<bool> {
        self.now = time;
        let Some(request) = self.requests.get(self.coming) else { return Ok(false) };
        self.coming += 1;
        self.running += 1;
        let choice = self.router.choose(time, request)?;
        if let Some(open) = self.open.get_mut(request.number) {
            *open = Some(Served {
                engine: choice.engine,
                came_s: time,
                first_token_s: f64::NAN,
                finished_s: f64::NAN,
                tokens: request.tokens,
                saved: 0,
                believed: choice.believed,
            });
        }
        let mut out = Vec::new();
        if let Some(engine) = self.engines.get_mut(choice.engine) {
            engine.submit(time, request, &mut out);
        }
        self.heard(choice.engine, &out);
        Ok(true)
    }

    fn heard(&mut self, engine: usize, happenings: &[Happening]) {
        for happening in happenings {
            self.router.notice(self.now, engine, happening);
            match happening {
                Happening::FirstToken { request, saved } => {
                    if let Some(Some(open)) = self.open.get_mut(*request) {
                        open.first_token_s = self.now;
                        open.saved = *saved;
                    }
                }
                Happening::Finished { request } => {
                    self.running -= 1;
                    let open = self.open.get_mut(*request).and_then(Option::take);
                    if let (Some(place), Some(open)) = (self.served.get_mut(*request), open) {
                        *place = Some(Served { finished_s: self.now, ..open });
                    }
                }
                Happening::Stored { .. } | Happening::Removed { .. } => {}
            }
        }
    }
}

#[cfg(test)]
#[path = "replay_test.rs"]
mod replay_test;
