//! A node that follows recorded engines over real sockets, and its answers held against what these engines
//! themselves would say.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use kvindex_core::{DpRank, EngineBlockHash, Filter, GapPolicy, Prompt, Query, StreamId, Tokens, WorkerId};
use kvindex_recording::{Checkpoint, EngineEndpoints, Header, Truth};
use kvindex_server::config::Config;
use kvindex_server::metrics::Metrics;
use kvindex_server::node::{Node, Origin, RegisterError};
use kvindex_server::trust::{Trust, TrustState};
use kvindex_server::{RawStream, RawWorker};

const MODEL: &str = "m";

/// How a prompt is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    Tokens,
    Hashes,
}

/// One answer: of which engine, ours and its own, in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answered {
    pub(crate) engine: usize,
    pub(crate) by: By,
    pub(crate) ours: usize,
    pub(crate) theirs: usize,
}

/// The node, and which of its streams each recorded engine is.
pub(crate) struct Follower {
    pub(crate) node: Arc<Node>,
    pub(crate) streams: Vec<StreamId>,
    block_sizes: Vec<u32>,
}

/// Settings with quick timers.
fn quick() -> Config {
    let mut config = Config::defaults();
    config.ingest.idle_poll = Duration::from_millis(300);
    config.ingest.replay_timeout = Duration::from_millis(500);
    config
}

impl Follower {
    /// A node with quick timers that knows nobody yet; every engine of the case will be a worker of its name.
    pub(crate) fn start(header: &Header) -> Self {
        let config = quick();
        let node = Arc::new(Node::new(&config, Metrics::new()));
        node.start_ingest(config.ingest).unwrap();
        Self::of(node, header)
    }

    /// A node that is followed by somebody else's doing; every engine of the case is a worker of its name.
    pub(crate) fn of(node: Arc<Node>, header: &Header) -> Self {
        let stream = |name: &str| StreamId { worker: WorkerId::new(name).unwrap(), dp_rank: DpRank(0) };
        Self {
            node,
            streams: header.engines.iter().map(|engine| stream(&engine.name)).collect(),
            block_sizes: header.engines.iter().map(|engine| engine.block_size).collect(),
        }
    }

    /// The same after the node stopped, and another began with its snapshot.
    pub(crate) fn restarted(self, file: &Path) -> Self {
        self.node.stop_ingest();
        self.node.store_snapshot(file).unwrap();
        let config = quick();
        let node = Arc::new(Node::new(&config, Metrics::new()));
        assert!(node.load_snapshot(file, config.index).unwrap());
        node.start_ingest(config.ingest).unwrap();
        Self { node, ..self }
    }

    pub(crate) fn register(&self, worker: RawWorker) -> Result<(), RegisterError> {
        let definition = worker.check(GapPolicy::Purge).unwrap();
        self.node.register(&definition, Origin::Registered, true).map(|_| ())
    }

    /// Registers each engine as a worker of its name, with its replay socket, as it stands after `change`.
    pub(crate) fn follow(&self, engines: &[EngineEndpoints], change: impl Fn(&mut RawWorker)) {
        for engine in engines {
            let mut worker = worker(&engine.name, &engine.publish, &engine.replay);
            change(&mut worker);
            self.register(worker).unwrap();
        }
    }

    pub(crate) fn trust(&self, engine: usize) -> Trust {
        let stream = &self.streams[engine];
        let workers = self.node.list_workers();
        let worker = workers.iter().find(|listed| listed.definition.spec.id == stream.worker).unwrap();
        worker.streams.iter().find(|listed| listed.dp_rank == stream.dp_rank).unwrap().trust.clone()
    }

    pub(crate) fn wait(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !condition(self) {
            let trusts: Vec<_> = (0..self.streams.len()).map(|engine| self.trust(engine)).collect();
            assert!(Instant::now() < deadline, "{what}: {trusts:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until an engine's link is up, whatever it has said.
    pub(crate) fn wait_connected(&self, engine: usize) {
        self.wait("connected", |follower| !follower.trust(engine).reason.contains("connected to"));
    }

    /// Waits until an engine's batches are applied up to the checkpoint and nothing is outstanding.
    pub(crate) fn wait_applied(&self, checkpoint: &Checkpoint, engine: usize, state: TrustState) {
        let last = checkpoint.next_seq[engine].checked_sub(1);
        self.wait(&format!("engine {engine} {state:?} at {last:?}"), |follower| {
            let trust = follower.trust(engine);
            trust.state == state && trust.applied.map(|seq| seq.0) == last
        });
    }

    /// Every answer of a checkpoint, by tokens and by the engines' own hashes.
    pub(crate) fn answers(&self, checkpoint: &Checkpoint) -> Vec<Answered> {
        let mut answers = Vec::new();
        for query in &checkpoint.queries {
            assert!(query.mm.is_empty() && query.extra_key.is_none(), "a case with more to a prompt");
            for (engine, truth) in query.engines.iter().enumerate() {
                let theirs = truth.expected_tokens() as usize;
                let salt = query.salt.as_deref();
                let prompt = Prompt::Tokens { tokens: Tokens::Ids(&query.tokens), salt, items: &[] };
                let lora = query.lora.as_ref().map(|lora| lora.name.as_str());
                let ours = self.ask(engine, &Query { lora, prompt, ..Query::tokens(MODEL, &[]) });
                answers.push(Answered { engine, by: By::Tokens, ours, theirs });
                let size = self.block_sizes[engine];
                let Some(hashes) = query.block_hashes_for(size) else {
                    continue;
                };
                let hashes: Vec<EngineBlockHash> = hashes.iter().map(|h| EngineBlockHash(*h)).collect();
                let prompt = Prompt::EngineHashes(&hashes);
                let query = Query { prompt, block_size: Some(size), ..Query::tokens(MODEL, &[]) };
                answers.push(Answered { engine, by: By::Hashes, ours: self.ask(engine, &query), theirs });
            }
        }
        answers
    }

    fn ask(&self, engine: usize, query: &Query<'_>) -> usize {
        let stream = &self.streams[engine];
        let id = [stream.worker.as_str()];
        let query = Query { filter: Filter { candidates: &id, ..Filter::default() }, ..query.clone() };
        let found = self.node.find(&query, false).unwrap();
        let matches = found.workers.iter().map(|worker| &worker.matched);
        matches.filter(|m| m.dp_rank == stream.dp_rank).map(|m| m.matched_tokens).max().unwrap_or(0)
    }

    /// Waits until every engine is live at the checkpoint, and holds every answer against the engines' own.
    pub(crate) fn assert_exact(&self, checkpoint: &Checkpoint) {
        for engine in (0..self.streams.len()).filter(|engine| checkpoint.next_seq[*engine] > 0) {
            self.wait_applied(checkpoint, engine, TrustState::Live);
        }
        let answers = self.answers(checkpoint);
        let wrong: Vec<_> = answers.iter().filter(|answer| answer.ours != answer.theirs).collect();
        assert!(wrong.is_empty(), "checkpoint {}: {wrong:?}", checkpoint.checkpoint);
        assert!(answers.iter().any(|answer| answer.theirs > 0) || checkpoint.pos < 5, "nothing was compared");
    }

    /// Holds the answers about one engine against its own: they may be too low, never too high.
    pub(crate) fn assert_never_too_high(&self, checkpoint: &Checkpoint, engine: usize) {
        let answers = self.answers(checkpoint);
        let high: Vec<_> = answers.iter().filter(|a| a.engine == engine && a.ours > a.theirs).collect();
        assert!(high.is_empty(), "{high:?}");
    }
}

/// A worker of one rank.
pub(crate) fn worker(name: &str, endpoint: &str, replay_endpoint: &str) -> RawWorker {
    let stream = RawStream {
        endpoint: endpoint.into(),
        replay_endpoint: replay_endpoint.into(),
        ..RawStream::default()
    };
    RawWorker {
        worker_id: name.into(),
        model: MODEL.into(),
        engine_version: Some("0.33.0".into()),
        streams: vec![stream],
        ..RawWorker::default()
    }
}

pub(crate) fn case(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../recording/cases").join(name)
}

/// Every checkpoint of a case.
pub(crate) fn checkpoints(name: &str) -> Vec<Checkpoint> {
    Truth::open(&case(name)).unwrap().collect::<Result<_, _>>().unwrap()
}

/// The first of `count` ports in a row on loopback that nobody has, and that no other call here is given. They lie
/// below the range that the system chooses from, or a socket of another test could be given one meanwhile.
pub(crate) fn free_ports(count: u16) -> u16 {
    const RANGE: std::ops::Range<u16> = 10_000..32_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let free = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
    let width = RANGE.end - RANGE.start - count;
    loop {
        let taken = NEXT.fetch_add(count, Ordering::Relaxed);
        // Test processes that run side by side start at different places.
        let offset = std::process::id().wrapping_mul(997).wrapping_add(taken.into());
        let first = RANGE.start + u16::try_from(offset % u32::from(width)).unwrap();
        if (first..first + count).all(free) {
            return first;
        }
    }
}
