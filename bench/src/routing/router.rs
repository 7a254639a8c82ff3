//! Who gets the next request, by one of the policies that are compared. Those that know something of prefixes all
//! choose by the same cost; what differs is what they know.

use std::collections::{HashMap, VecDeque};

use clap::ValueEnum;
use kvindex_recording::splitmix64;

use super::engine::Happening;
use super::guess::Guess;
use super::index_feed::IndexFeed;
use super::trace::Request;

/// How requests are spread over engines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
pub(crate) enum Policy {
    /// Each engine in its turn.
    RoundRobin,
    /// A session's first request by load, all others after it.
    Session,
    /// By cost, with the router's own guess: a list for each engine of as many blocks as its cache has.
    Guess,
    /// The same with lists of a fixed length, whatever the engines' caches hold.
    GuessDefault,
    /// By cost, with what a kvindex index holds.
    Kvindex,
    /// The same, and the router counts its own choices until the engine has announced them.
    KvindexSpeculative,
}

impl Policy {
    /// Its name in tables.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => "round-robin",
            Self::Session => "session affinity",
            Self::Guess => "approximate prefix, sized",
            Self::GuessDefault => "approximate prefix, default",
            Self::Kvindex => "kvindex",
            Self::KvindexSpeculative => "kvindex, own choices counted",
        }
    }
}

/// What a router is made with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setup {
    pub(super) policy: Policy,
    pub(super) engines: usize,
    /// Blocks of one engine's cache.
    pub(super) cache_blocks: usize,
    /// Blocks of one list of [`Policy::GuessDefault`].
    pub(super) guess_blocks: usize,
    pub(super) guess_ttl_s: f64,
    /// From an engine's announcement to its place in the index.
    pub(super) delay_s: f64,
    /// What a cached token of the prompt counts, beside one that waits to be computed.
    pub(super) overlap_weight: f64,
    /// What a token held by a running request costs, in tokens to prefill.
    pub(super) held_weight: f64,
    /// Routers side by side, each of which sees its share of the requests.
    pub(super) routers: usize,
    pub(super) seed: u64,
}

/// A choice, and what it rested on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Choice {
    pub(super) engine: usize,
    /// Tokens of the prompt believed to be cached there.
    pub(super) believed: u64,
}

/// One of the routers side by side: what it keeps to itself.
struct Replica {
    loads: Vec<Load>,
    /// For each engine, where the policy is to guess.
    guesses: Vec<Guess>,
    turn: usize,
}

/// What a router remembers of an engine: its own requests there, and nothing that it would have to ask for.
#[derive(Debug, Default, Clone)]
struct Load {
    /// Prompt tokens to compute, as believed when they were sent, of requests without a first token.
    pending: u64,
    /// Tokens of requests that are not finished.
    held: u64,
    /// Requests without a first token, or whose blocks cannot have been announced yet: until when they count.
    own: VecDeque<(usize, f64)>,
}

struct Sent {
    replica: usize,
    engine: usize,
    pending: u64,
    held: u64,
}

/// All routers over one fleet.
pub(super) struct Router<'a> {
    setup: Setup,
    requests: &'a [Request],
    sessions: &'a [u64],
    replicas: Vec<Replica>,
    /// Where the policy is to ask; every router asks the same one.
    index: Option<Box<IndexFeed>>,
    /// Each session's engine. It travels with the session, as in a cookie, so that all routers know it.
    homes: HashMap<u64, usize>,
    sent: HashMap<usize, Sent>,
    matched: Vec<usize>,
    random: u64,
}

impl<'a> Router<'a> {
    pub(super) fn new(setup: Setup, requests: &'a [Request], sessions: &'a [u64]) -> anyhow::Result<Self> {
        let guesses = |blocks| (0..setup.engines).map(|_| Guess::new(blocks, setup.guess_ttl_s)).collect();
        let replica = || Replica {
            loads: vec![Load::default(); setup.engines],
            guesses: match setup.policy {
                Policy::Guess => guesses(setup.cache_blocks),
                Policy::GuessDefault => guesses(setup.guess_blocks),
                _ => Vec::new(),
            },
            turn: 0,
        };
        let index = match setup.policy {
            Policy::Kvindex | Policy::KvindexSpeculative => {
                Some(Box::new(IndexFeed::new(setup.engines, setup.delay_s)?))
            }
            _ => None,
        };
        Ok(Self {
            setup,
            requests,
            sessions,
            replicas: (0..setup.routers).map(|_| replica()).collect(),
            index,
            homes: HashMap::new(),
            sent: HashMap::new(),
            matched: vec![0; setup.engines],
            random: setup.seed,
        })
    }

    /// Chooses an engine for a request, and counts the request there.
    pub(super) fn choose(&mut self, now: f64, request: &Request) -> anyhow::Result<Choice> {
        let replica =
            (splitmix64(self.setup.seed ^ request.number as u64) % self.setup.routers as u64) as usize;
        self.look(now, request, replica)?;
        let engine = match self.setup.policy {
            Policy::RoundRobin => self.turn(replica),
            Policy::Session => {
                let session = self.sessions.get(request.number).copied().unwrap_or_default();
                match self.homes.get(&session) {
                    Some(home) => *home,
                    None => {
                        let home = self.cheapest(request, replica);
                        self.homes.insert(session, home);
                        home
                    }
                }
            }
            _ => self.cheapest(request, replica),
        };
        let believed = request.saved_by(self.matched.get(engine).copied().unwrap_or(0));
        self.count(now, request, replica, Choice { engine, believed });
        Ok(Choice { engine, believed })
    }

    /// Takes note of what an engine did.
    pub(super) fn notice(&mut self, now: f64, engine: usize, happening: &Happening) {
        match happening {
            Happening::FirstToken { request, .. } => {
                let Some(sent) = self.sent.get_mut(request) else { return };
                let pending = std::mem::take(&mut sent.pending);
                let load = self.replicas.get_mut(sent.replica).and_then(|own| own.loads.get_mut(engine));
                let Some(load) = load else { return };
                load.pending -= pending;
                if let Some((_, until)) = load.own.iter_mut().find(|(number, _)| number == request) {
                    *until = now + self.setup.delay_s;
                }
            }
            Happening::Finished { request } => {
                let Some(sent) = self.sent.remove(request) else { return };
                let load = self.replicas.get_mut(sent.replica).and_then(|own| own.loads.get_mut(sent.engine));
                if let Some(load) = load {
                    load.held -= sent.held;
                }
            }
            Happening::Stored { blocks, parent } => {
                if let Some(index) = &mut self.index {
                    index.stored(now, engine, blocks, *parent);
                }
            }
            Happening::Removed { blocks } => {
                if let Some(index) = &mut self.index {
                    index.removed(now, engine, blocks);
                }
            }
        }
    }

    /// Blocks stored and removed that reached the index, where there is one.
    pub(super) fn applied(&self) -> u64 {
        self.index.as_ref().map_or(0, |index| index.applied)
    }

    /// Puts the believed blocks of each engine into `matched`.
    fn look(&mut self, now: f64, request: &Request, replica: usize) -> anyhow::Result<()> {
        if let Some(index) = &mut self.index {
            index.matched(now, &request.blocks, &mut self.matched)?;
        }
        let Some(replica) = self.replicas.get_mut(replica) else { return Ok(()) };
        for (place, guess) in self.matched.iter_mut().zip(&mut replica.guesses) {
            *place = guess.prefix(&request.blocks, now);
        }
        if self.setup.policy == Policy::KvindexSpeculative {
            for (place, load) in self.matched.iter_mut().zip(&mut replica.loads) {
                load.own.retain(|(_, until)| *until > now);
                let shared = |number: &usize| {
                    let own = self.requests.get(*number).map_or(&[][..], |own| &own.blocks);
                    own.iter().zip(&request.blocks).take_while(|(own, asked)| own == asked).count()
                };
                let most = load.own.iter().map(|(number, _)| shared(number)).max().unwrap_or(0);
                *place = most.max(*place);
            }
        }
        Ok(())
    }

    fn turn(&mut self, replica: usize) -> usize {
        let Some(replica) = self.replicas.get_mut(replica) else { return 0 };
        replica.turn += 1;
        (replica.turn - 1) % self.setup.engines
    }

    /// The engine with the least cost; one of them by lot where several have it.
    fn cheapest(&mut self, request: &Request, replica: usize) -> usize {
        let Some(replica) = self.replicas.get(replica) else { return 0 };
        let mut best = (f64::INFINITY, 0usize, 0u64);
        for (engine, (load, matched)) in replica.loads.iter().zip(&self.matched).enumerate() {
            let saved = request.saved_by(*matched) as f64;
            let cost = load.pending as f64 + self.setup.held_weight * load.held as f64
                - self.setup.overlap_weight * saved;
            if cost < best.0 {
                best = (cost, engine, 1);
            } else if cost == best.0 {
                best.2 += 1;
                self.random = splitmix64(self.random);
                if self.random.is_multiple_of(best.2) {
                    best.1 = engine;
                }
            }
        }
        best.1
    }

    fn count(&mut self, now: f64, request: &Request, number: usize, choice: Choice) {
        let Choice { engine, believed } = choice;
        let Some(replica) = self.replicas.get_mut(number) else { return };
        if let Some(guess) = replica.guesses.get_mut(engine) {
            guess.sent(&request.blocks, now);
        }
        let (pending, held) = (request.tokens - believed, request.tokens + request.output);
        if let Some(load) = replica.loads.get_mut(engine) {
            load.pending += pending;
            load.held += held;
            if self.setup.policy == Policy::KvindexSpeculative {
                load.own.push_back((request.number, f64::INFINITY));
            }
        }
        self.sent.insert(request.number, Sent { replica: number, engine, pending, held });
    }
}
