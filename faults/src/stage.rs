//! One row's stage: a fresh cluster, engines that play, clients that ask; and at the end the judgement.

use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use anyhow::Context;
use kvindex_client::v1;
use kvindex_core::WorkerId;
use kvindex_core::replication::shard_of;
use kvindex_faults::cluster::{Channel, Cluster, Options};
use kvindex_faults::progress;
use kvindex_recording::Checkpoint;

use crate::clients::{Clients, Seen};
use crate::engines::{Case, Engines};
use crate::{ask, truth};

/// Nodes of every cluster.
pub(crate) const NODES: usize = 3;
/// How long a write may stand still before the row has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a row is played.
#[derive(Debug, Clone)]
pub(crate) struct Play {
    pub(crate) options: Options,
    pub(crate) case: Arc<Case>,
    /// Event batches a second, of all engines.
    pub(crate) rate: f64,
    /// Between two queries of a node's client.
    pub(crate) every: Duration,
    pub(crate) keep: bool,
}

/// What a row came to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outcome {
    pub(crate) seen: Seen,
    /// Each time that writing stood still after a fault.
    pub(crate) write_gaps: Vec<Duration>,
    pub(crate) lost: u64,
    pub(crate) equal: bool,
    pub(crate) truth: bool,
    /// Worth telling: what was refused, put aside, or went wrong.
    pub(crate) notes: Vec<String>,
}

/// A row at work.
pub(crate) struct Stage {
    pub(crate) cluster: Cluster,
    pub(crate) clients: Clients,
    engines: Engines,
    case: Arc<Case>,
    checkpoint: Checkpoint,
    played: Receiver<anyhow::Result<()>>,
    lost: u64,
    pub(crate) outcome: Outcome,
}

impl Stage {
    /// Starts everything; engines play from here on for about `length`.
    pub(crate) async fn set_up(
        play: &Play,
        name: &str,
        length: Duration,
        replay: bool,
    ) -> anyhow::Result<Self> {
        Self::set_up_with(play, name, length, replay, |_| Ok(())).await
    }

    /// The same, with something done to the nodes' folders before they start.
    pub(crate) async fn set_up_with(
        play: &Play,
        name: &str,
        length: Duration,
        replay: bool,
        prepare: impl FnOnce(&Cluster) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        let mut cluster = Cluster::start(play.options.clone(), name, NODES)?;
        cluster.keep = play.keep;
        prepare(&cluster)?;
        for number in cluster.all() {
            cluster.run(number)?;
        }
        cluster.until_ready().await.context("founding")?;
        let case = Arc::clone(&play.case);
        let engines = Engines::start(&case, cluster.network().engines(), play.rate, NODES, replay)?;
        engines.register(cluster.channel(0)?).await?;
        cluster.until_balanced().await?;
        let checkpoint = case.checkpoint_near((play.rate * length.as_secs_f64()) as usize)?.clone();
        let channels = cluster.all().map(|number| cluster.channel(number)).collect::<Result<Vec<_>, _>>()?;
        let clients = Clients::start(channels, &sample(&case, &checkpoint)?, play.every);
        let played = engines.play_until(checkpoint.pos);
        let stage = Self {
            cluster,
            clients,
            engines,
            case,
            checkpoint,
            played,
            lost: 0,
            outcome: Outcome::default(),
        };
        stage.pause(2.0).await;
        Ok(stage)
    }

    /// Lets engines play.
    pub(crate) async fn pause(&self, seconds: f64) {
        tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
    }

    /// Notes something for the table.
    pub(crate) fn note(&mut self, text: impl Into<String>) {
        self.outcome.notes.push(text.into());
    }

    /// Notes the last line of a node's log that holds one of these words.
    pub(crate) fn note_log(&mut self, number: usize, words: &[&str]) {
        let log = self.cluster.log(number);
        let line = log.lines().rev().find(|line| words.iter().any(|word| line.contains(word)));
        let line = line
            .map_or("its log says nothing of it", |line| line.split_once(' ').map_or(line, |(_, said)| said));
        self.note(format!("node {} said: {}", number + 1, line.trim()));
    }

    /// How many engines each node leads.
    pub(crate) async fn led(&self, asked: usize) -> anyhow::Result<Vec<usize>> {
        let shards = self.cluster.status(asked, false).await?.shards.len() as u16;
        let leaders = self.cluster.leaders(asked).await?;
        let of = |led: &Vec<u32>| {
            let engines = &self.case.recording.header.engines;
            let ids = engines.iter().filter_map(|engine| WorkerId::new(engine.name.as_str()).ok());
            ids.filter(|id| led.contains(&u32::from(shard_of(id, shards).0))).count()
        };
        Ok(leaders.iter().map(of).collect())
    }

    /// The node that leads most engines' shards: its death hurts most.
    pub(crate) async fn leader(&self) -> anyhow::Result<usize> {
        let led = self.led(0).await?;
        (0..led.len()).max_by_key(|number| led.get(*number)).context("no node")
    }

    /// The node that leads fewest.
    pub(crate) async fn follower(&self) -> anyhow::Result<usize> {
        let led = self.led(0).await?;
        (0..led.len()).min_by_key(|number| led.get(*number)).context("no node")
    }

    fn channels(&self, numbers: &[usize]) -> anyhow::Result<Vec<Channel>> {
        numbers.iter().map(|number| self.cluster.channel(*number)).collect()
    }

    /// Kills a node, and remembers what it had found missing.
    pub(crate) fn kill(&mut self, number: usize) -> anyhow::Result<()> {
        self.lost += progress::lost_in_gaps(&self.cluster, number);
        self.clients.expect(number, false);
        self.cluster.kill(number)
    }

    /// Notes how long after `fault` all of `survivors` have a batch of every engine that was published after it.
    pub(crate) async fn measure_gap(
        &mut self,
        fault: Instant,
        survivors: &[usize],
    ) -> anyhow::Result<Duration> {
        let next = self.engines.next_batches(self.engines.position(), self.checkpoint.pos);
        let gap = progress::until_applied(&self.channels(survivors)?, &next, fault, PATIENCE).await?;
        self.outcome.write_gaps.push(gap);
        Ok(gap)
    }

    /// Waits until every node belongs again, and expects it to answer from then on.
    pub(crate) async fn until_ready(&mut self) -> anyhow::Result<()> {
        self.cluster.until_ready().await?;
        for number in self.cluster.all() {
            self.clients.expect(number, true);
        }
        Ok(())
    }

    /// Whether engines have more than so many batches to say yet.
    pub(crate) fn has_more_than(&self, batches: usize) -> bool {
        self.engines.position() + batches < self.checkpoint.pos
    }

    /// Waits for the end of the play, and judges.
    pub(crate) async fn finish(mut self) -> anyhow::Result<Outcome> {
        self.until_ready().await?;
        let played = self.played;
        tokio::task::spawn_blocking(move || played.recv()).await?.context("the engines ended")??;
        let last = self.engines.last_batches(self.checkpoint.pos);
        let mut outcome = self.outcome;
        outcome.lost = self.lost;
        for number in self.cluster.all() {
            let missing = progress::missing(&self.cluster.channel(number)?, &last).await?;
            if missing > 0 {
                outcome.notes.push(format!("node {} lacks {missing} batches", number + 1));
            }
            outcome.lost += progress::lost_in_gaps(&self.cluster, number) + missing;
        }
        let equal = self.cluster.until_equal().await;
        outcome.equal = equal.is_ok();
        outcome.notes.extend(equal.err().map(|error| format!("{error:#}")));
        outcome.truth = true;
        for number in self.cluster.all() {
            let node = self.cluster.channel(number)?;
            let verdict = truth::compare(node, &self.case.recording.header, &self.checkpoint).await?;
            if !verdict.is_good() || verdict.answers == 0 {
                outcome.truth = false;
                outcome.notes.push(format!("node {}: {}", number + 1, verdict.summary()));
            }
        }
        outcome.seen = self.clients.stop().await;
        if outcome.seen.refused > 0 {
            outcome.notes.push(format!("{} queries refused as too many", outcome.seen.refused));
        }
        if !outcome.seen.reasons.is_empty() {
            outcome.notes.push(outcome.seen.reasons.join("; "));
        }
        self.cluster.keep |= !outcome.is_good();
        if self.cluster.keep {
            outcome.notes.push(format!("logs in {}", self.cluster.folder().display()));
        }
        Ok(outcome)
    }
}

impl Outcome {
    /// Both together.
    pub(crate) fn add(&mut self, other: Self) {
        self.seen.add(other.seen);
        self.write_gaps.extend(other.write_gaps);
        self.lost += other.lost;
        self.equal &= other.equal;
        self.truth &= other.truth;
        self.notes.extend(other.notes);
    }

    /// Whether nothing was lost and all agree.
    pub(crate) fn is_good(&self) -> bool {
        self.lost == 0 && self.equal && self.truth && self.seen.failed == 0 && self.seen.answered > 0
    }
}

/// A query that some engine holds much of.
pub(crate) fn sample(case: &Case, checkpoint: &Checkpoint) -> anyhow::Result<v1::MatchRequest> {
    let questions = checkpoint.queries.iter().enumerate();
    let mut requests =
        questions.flat_map(|(place, query)| ask::questions(&case.recording.header, place, query));
    requests.find_map(|question| question.request).context("the recording asks nothing")
}
