//! Match latency of a follower beside a node alone: both run at once, hear the same engines, hold the same blocks and
//! are asked the same questions in turn, so that whatever disturbs the machine disturbs both.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use kvindex_faults::cluster::{Channel, Cluster};
use kvindex_proto::v1;
use kvindex_proto::v1::query_service_client::QueryServiceClient;
use kvindex_recording::Pace;

use super::engines::Engines;
use super::intake::started;
use super::load::model;
use super::{Bench, NODES};

/// How much of the recording is played before anybody asks; the rest is for asking while it is played.
const FILLED: f64 = 0.4;

/// One node's times in one round.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub(super) p50: Duration,
    pub(super) p99: Duration,
}

/// A node alone and a follower, side by side.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair {
    pub(super) alone: Times,
    pub(super) follower: Times,
}

/// One round.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) idle: Pair,
    pub(super) busy: Pair,
    /// Blocks a second that both took in meanwhile.
    pub(super) rate: f64,
}

/// Both, and who asks them.
struct Stage {
    alone: Cluster,
    cluster: Cluster,
    follower: usize,
    engines: Engines,
    questions: Vec<v1::MatchRequest>,
}

/// Questions that the recorded engines were asked at a checkpoint, of every fleet.
fn questions(bench: &Bench, fleets: usize) -> anyhow::Result<(Vec<v1::MatchRequest>, usize)> {
    let checkpoint = bench.case.checkpoint_near(FILLED)?;
    let asked = checkpoint.queries.iter().filter(|query| !query.tokens.is_empty());
    let of_fleets = asked.flat_map(|query| {
        let tokens: Vec<u8> = query.tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
        (0..fleets).map(move |fleet| {
            let prompt =
                v1::Prompt { model: model(fleet), token_ids_le: tokens.clone().into(), ..Default::default() };
            v1::MatchRequest { prompt: Some(prompt), ..Default::default() }
        })
    });
    Ok((of_fleets.collect(), checkpoint.pos * fleets))
}

impl Stage {
    async fn set_up(bench: &Bench) -> anyhow::Result<Self> {
        let fleets = bench.scale.asked_fleets;
        let alone = started(Cluster::alone(bench.options(&[]), "asked-alone")?, 1).await?;
        let cluster = started(Cluster::start(bench.options(&[]), "asked", NODES)?, NODES).await?;
        let pace = Pace::Rate(bench.scale.asked_batches);
        let engines = Engines::start(bench.case.fleets(fleets), pace, 1 + NODES)?;
        engines.register(alone.channel(0)?).await?;
        engines.register(cluster.channel(0)?).await?;
        engines.until_heard().await?;
        if bench.scale.balanced {
            cluster.until_balanced().await?;
        }
        let led = cluster.leaders(0).await?;
        let follower = (0..led.len()).min_by_key(|number| led.get(*number).map(Vec::len));
        let (questions, _) = questions(bench, fleets)?;
        Ok(Self { alone, cluster, follower: follower.context("no node")?, engines, questions })
    }

    /// Until both have applied so many records.
    async fn until_applied(&self, records: usize) -> anyhow::Result<()> {
        self.engines.until_applied(&self.alone, [0], records).await?;
        self.engines.until_applied(&self.cluster, self.cluster.all(), records).await
    }

    /// Both give equal answers, and some engine holds something.
    async fn agree(&self) -> anyhow::Result<()> {
        let mut alone = QueryServiceClient::new(self.alone.channel(0)?);
        let mut follower = QueryServiceClient::new(self.cluster.channel(self.follower)?);
        let mut found = 0;
        for question in &self.questions {
            let [one, other] = [
                alone.r#match(question.clone()).await?.into_inner(),
                follower.r#match(question.clone()).await?.into_inner(),
            ]
            .map(held);
            ensure!(one == other, "the follower answers {other:?}, the node alone {one:?}");
            found += one.iter().map(|(_, blocks)| blocks).sum::<u64>();
        }
        ensure!(found > 0, "nobody holds anything of what is asked");
        Ok(())
    }

    /// Asks both, one after the other, for as long as `more` says so of the answers that are there of each.
    async fn ask(&self, every: Duration, more: impl Fn(usize) -> bool) -> anyhow::Result<Pair> {
        let mut clients = [self.alone.channel(0)?, self.cluster.channel(self.follower)?].map(Client::new);
        let mut due = tokio::time::interval(every);
        due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        for number in (0..).take_while(|number| more(*number)) {
            let question = self.questions.get(number % self.questions.len()).context("no question")?;
            // Who is asked second finds the caches as the first one left them: both come first equally often.
            let order = if number % 2 == 0 { [0, 1] } else { [1, 0] };
            for client in order {
                due.tick().await;
                clients[client].ask(question.clone()).await?;
            }
        }
        let [alone, follower] = clients.map(|client| times(client.times));
        Ok(Pair { alone, follower })
    }
}

/// Asks one node, and notes how long it takes.
struct Client {
    client: QueryServiceClient<Channel>,
    times: Vec<Duration>,
}

impl Client {
    fn new(channel: Channel) -> Self {
        Self { client: QueryServiceClient::new(channel), times: Vec::new() }
    }

    async fn ask(&mut self, question: v1::MatchRequest) -> anyhow::Result<()> {
        let asked = Instant::now();
        self.client.r#match(question).await?;
        self.times.push(asked.elapsed());
        Ok(())
    }
}

fn held(answer: v1::MatchResponse) -> Vec<(String, u64)> {
    let mut held: Vec<_> =
        answer.workers.into_iter().map(|worker| (worker.worker_id, worker.matched_blocks)).collect();
    held.sort_unstable();
    held
}

fn times(mut times: Vec<Duration>) -> Times {
    times.sort_unstable();
    let at = |share: f64| times.get((times.len() as f64 * share) as usize).copied().unwrap_or_default();
    Times { p50: at(0.5), p99: at(0.99) }
}

/// All rounds, on one pair of nodes.
pub(super) async fn rounds(bench: &Bench) -> anyhow::Result<Vec<Asked>> {
    let (scale, stage) = (&bench.scale, Stage::set_up(bench).await?);
    let (_, filled) = questions(bench, scale.asked_fleets)?;
    stage.engines.play_until(filled).await?;
    stage.until_applied(filled).await?;
    stage.agree().await?;
    let mut asked = Vec::new();
    for round in 0..scale.rounds {
        let idle = stage.ask(scale.ask_every, |answers| answers < scale.asks).await?;
        let left = stage.engines.records() - filled;
        let end = filled + left * (round + 1) / scale.rounds;
        let begin = filled + left * round / scale.rounds;
        let playing = AtomicBool::new(true);
        let play = async {
            let played = stage.engines.play_until(end).await;
            playing.store(false, Ordering::Relaxed);
            played
        };
        let (busy, played) =
            tokio::join!(stage.ask(scale.ask_every, |_| playing.load(Ordering::Relaxed)), play);
        let rate = (end - begin) as f64 * bench.case.blocks_a_record() / played?.as_secs_f64();
        stage.until_applied(end).await?;
        asked.push(Asked { idle, busy: busy?, rate });
    }
    Ok(asked)
}
