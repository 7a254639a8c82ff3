//! More questions than a node can answer: one real `kvindex serve` process on a core of its own, asked over HTTP/2 from
//! another core at a tenth of what it can sustain, and at twice that. Calls begin when they are due, whether or not
//! earlier ones have ended, and are timed from when they were due, so that a slow node cannot slow its questions down.
//! How late the asker itself was is told beside it: what it did not send in time is not the node's doing.

mod asker;

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use kvindex_faults::cluster::{Channel, Cluster, Options};
use kvindex_faults::network::Network;
use kvindex_proto::v1;
use kvindex_proto::v1::ingest_service_client::IngestServiceClient;
use tokio::task::{JoinSet, yield_now};
use tonic::codegen::http::uri::Authority;

use asker::{Asker, Outcome, framed};

/// Tokens of a question: enough that the node, and not who asks it, is what has no time.
const TOKENS: u32 = 8_192;
/// Workers that hold all of it.
const WORKERS: u32 = 64;
const BLOCK: u32 = 16;
/// Connections, as several routers have them.
const CONNECTIONS: usize = 8;
/// How many ask at once when the node's best is measured.
const EAGER: usize = 6;
/// Cores of the node, and of who asks it.
const NODE_CORE: &str = "0";
const ASKER_CORE: &str = "1";
/// After which a call counts as lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long each part is measured, and how often.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) time: Duration,
    pub(crate) rounds: usize,
    /// Answers a second of which a tenth and twice are asked, instead of the node's own best: the same load for
    /// binaries that are held against each other.
    pub(crate) load: Option<f64>,
}

/// What became of the calls of one part.
#[derive(Debug, Default)]
struct Calls {
    answered: Vec<Duration>,
    refused: Vec<Duration>,
    lost: usize,
    /// How late each was sent.
    late: Vec<Duration>,
}

impl Calls {
    fn add(&mut self, (late, took, outcome): (Duration, Duration, Outcome)) {
        self.late.push(late);
        match outcome {
            Outcome::Answered => self.answered.push(took),
            Outcome::Refused => self.refused.push(took),
            Outcome::Lost => self.lost += 1,
        }
    }

    fn sort(mut self) -> Self {
        self.answered.sort_unstable();
        self.refused.sort_unstable();
        self.late.sort_unstable();
        self
    }
}

fn at(sorted: &[Duration], share: f64) -> Duration {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * share) as usize).copied().unwrap_or_default()
}

/// A node with those who ask it.
struct Stage {
    _node: Cluster,
    askers: Vec<Asker>,
}

impl Stage {
    async fn set_up(program: PathBuf, flags: &[&str]) -> anyhow::Result<Self> {
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let mut node = Cluster::alone(Options { program, network: Network::Loopback, flags }, "overload")?;
        // A process begins where its parent is.
        pin(NODE_CORE)?;
        node.run(0)?;
        pin(ASKER_CORE)?;
        node.until_serving(0, PATIENCE).await?;
        let tokens: Vec<u32> = (0..TOKENS).map(|i| i.wrapping_mul(2_654_435_761) % 128_256).collect();
        fill(node.channel(0)?, &tokens).await?;
        let packed: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
        let prompt =
            v1::Prompt { model: "bench".into(), token_ids_le: Bytes::from(packed), ..Default::default() };
        let question = framed(&v1::MatchRequest { prompt: Some(prompt), ..Default::default() });
        let authority: Authority = node.address(0).parse()?;
        let mut askers = Vec::new();
        for _ in 0..CONNECTIONS {
            askers.push(Asker::connect(&authority, question.clone()).await?);
        }
        Ok(Self { _node: node, askers })
    }

    fn asker(&self, number: usize) -> anyhow::Result<Asker> {
        self.askers.get(number % self.askers.len()).cloned().context("no connection")
    }

    /// Answers a second when there is always somebody who asks, but never a crowd.
    async fn best(&self, time: Duration) -> anyhow::Result<f64> {
        let (began, mut asking) = (Instant::now(), JoinSet::new());
        for number in 0..EAGER {
            let mut asker = self.asker(number)?;
            asking.spawn(async move {
                let mut answered = 0usize;
                while began.elapsed() < time {
                    answered += usize::from(asker.ask(PATIENCE).await == Outcome::Answered);
                }
                answered
            });
        }
        let answered: usize = asking.join_all().await.into_iter().sum();
        Ok(answered as f64 / began.elapsed().as_secs_f64())
    }

    /// So many questions a second, whatever becomes of them.
    async fn ask(&self, rate: f64, time: Duration) -> anyhow::Result<Calls> {
        let (began, mut calls, mut asking, mut asked) =
            (Instant::now(), Calls::default(), JoinSet::new(), 0usize);
        while began.elapsed() < time {
            // A timer would be late by a millisecond; the core is the asker's own.
            yield_now().await;
            while asked < (began.elapsed().as_secs_f64() * rate) as usize {
                asked += 1;
                let when = began + Duration::from_secs_f64(asked as f64 / rate);
                let mut asker = self.asker(asked)?;
                asking.spawn(async move {
                    let late = when.elapsed();
                    let outcome = asker.ask(PATIENCE).await;
                    (late, when.elapsed(), outcome)
                });
            }
            while let Some(done) = asking.try_join_next() {
                calls.add(done?);
            }
        }
        while let Some(done) = asking.join_next().await {
            calls.add(done?);
        }
        Ok(calls.sort())
    }
}

/// Moves this process, and what it starts from now on, to one core.
fn pin(core: &str) -> anyhow::Result<()> {
    let mut taskset = Command::new("taskset");
    taskset.args(["-a", "-p", "-c", core]).arg(std::process::id().to_string()).stdout(Stdio::null());
    ensure!(taskset.status().context("taskset, of util-linux")?.success(), "taskset to core {core}");
    Ok(())
}

/// Workers that hold the whole prompt.
async fn fill(channel: Channel, tokens: &[u32]) -> anyhow::Result<()> {
    let mut ingest = IngestServiceClient::new(channel);
    for number in 0..WORKERS {
        let worker_id = format!("w{number}");
        let worker =
            v1::RegisterRequest { worker_id: worker_id.clone(), model: "bench".into(), ..Default::default() };
        ingest.register(worker).await?;
        let stored = v1::PublishEvent {
            r#type: "stored".into(),
            block_hashes: (1..=u64::from(TOKENS / BLOCK)).collect(),
            token_ids: tokens.to_vec(),
            block_size: BLOCK,
            ..Default::default()
        };
        let batch =
            v1::PublishRequest { worker_id, generation: 1, events: vec![stored], ..Default::default() };
        ingest.publish(batch).await?;
    }
    Ok(())
}

/// All rounds, as a Markdown page.
pub(crate) async fn run(program: PathBuf, plan: Plan) -> anyhow::Result<String> {
    ensure!(program.exists(), "{} is not there: cargo build --release --bin kvindex", program.display());
    let mut rows = String::new();
    for (name, flags) in
        [("as it is", &[][..]), ("without a bound", &["--max-query-wait-us", "10000000"][..])]
    {
        let stage = Stage::set_up(program.clone(), flags).await?;
        stage.best(plan.time / 4).await?;
        for round in 1..=plan.rounds {
            let best = stage.best(plan.time).await?;
            let load = plan.load.unwrap_or(best);
            let calm = stage.ask(load / 10.0, plan.time).await?;
            let crowd = stage.ask(load * 2.0, plan.time).await?;
            let (calm_p99, crowd_p99) = (at(&calm.answered, 0.99), at(&crowd.answered, 0.99));
            let asked = crowd.answered.len() + crowd.refused.len() + crowd.lost;
            rows += &format!(
                "| {name} | {round} | {best:.0} | {} | {} | {} | {:.1} | {:.0} % | {} | {} | {} | {} |\n",
                micros(at(&calm.answered, 0.5)),
                micros(calm_p99),
                micros(crowd_p99),
                crowd_p99.as_secs_f64() / calm_p99.as_secs_f64().max(1e-9),
                100.0 * crowd.answered.len() as f64 / asked.max(1) as f64,
                micros(at(&crowd.refused, 0.5)),
                micros(at(&crowd.refused, 0.99)),
                crowd.lost,
                micros(at(&crowd.late, 0.99)),
            );
        }
    }
    let of_what = match plan.load {
        Some(load) => format!("; tenth and twice are of {load:.0} questions/s, not of the best"),
        None => String::new(),
    };
    Ok(format!(
        "Questions of {TOKENS} tokens, held by {WORKERS} workers, over {CONNECTIONS} HTTP/2 connections; node and asker on a core each; times in µs{of_what}.\n\n\
         | node | round | best, answers/s | p50 at a tenth | p99 at a tenth | p99 of answers at twice | ratio | answered at twice | p50 of refusals | p99 of refusals | lost | p99 of the asker's own lateness |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|\n{rows}"
    ))
}

fn micros(time: Duration) -> u128 {
    time.as_micros()
}
