//! A fleet's life, again and again: it is registered, plays its recording at full speed, is compared with the engines'
//! own answers on every node, and is forgotten.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use kvindex_client::v1;
use kvindex_client::v1::ingest_service_client::IngestServiceClient;
use kvindex_faults::cluster::Channel;
use kvindex_faults::progress;

use super::Going;
use crate::engines::{Case, Engines};
use crate::truth;

/// How long all that was said may take to be applied everywhere.
const PATIENCE: Duration = Duration::from_secs(120);

/// One of the fleets.
pub(crate) struct Fleet {
    pub(crate) slot: usize,
    pub(crate) case: Arc<Case>,
    /// Where its engines bind.
    pub(crate) host: String,
    pub(crate) nodes: Vec<Channel>,
}

/// What fleets came to.
#[derive(Debug, Default)]
pub(crate) struct Played {
    lives: u64,
    batches: u64,
    answers: u64,
    differ: u64,
    notes: Vec<String>,
}

impl Played {
    /// Both together.
    pub(crate) fn add(&mut self, other: Self) {
        self.lives += other.lives;
        self.batches += other.batches;
        self.answers += other.answers;
        self.differ += other.differ;
        self.notes.extend(other.notes);
    }

    pub(crate) fn is_good(&self) -> bool {
        self.answers > 0 && self.differ == 0
    }

    /// Answers that were not the engines' own.
    pub(crate) fn wrong(&self) -> u64 {
        self.differ
    }

    pub(crate) fn text(&self) -> String {
        let Self { lives, batches, answers, differ, notes } = self;
        let notes: String = notes.iter().map(|note| format!("\n{note}")).collect();
        format!(
            "fleets: {lives} lives, {batches} batches; {answers} answers compared, {differ} not the engines' own{notes}"
        )
    }
}

impl Fleet {
    /// Lives until it is the end, the last life to its own.
    pub(crate) async fn come_and_go(self, going: Going) -> anyhow::Result<Played> {
        let mut played = Played::default();
        while going.on() {
            self.live(&mut played)
                .await
                .with_context(|| format!("life {} of fleet {}", played.lives + 1, self.slot))?;
        }
        Ok(played)
    }

    async fn live(&self, played: &mut Played) -> anyhow::Result<()> {
        let turn = self.slot + played.lives as usize;
        let checkpoints = &self.case.checkpoints;
        // Not always to the same end.
        let some = checkpoints.len().saturating_sub(1 + turn % checkpoints.len().div_ceil(4).max(1));
        let checkpoint = checkpoints.get(some).context("the recording has no checkpoints")?;
        let nodes = self.nodes.len();
        let engines = Engines::start(&self.case, &self.host, f64::INFINITY, nodes, true)?;
        let through = turn % nodes;
        engines.register(self.nodes[through].clone()).await?;
        let said = engines.play_until(checkpoint.pos);
        tokio::task::spawn_blocking(move || said.recv()).await?.context("the engines ended")??;
        let last = engines.last_batches(checkpoint.pos);
        progress::until_applied(&self.nodes, &last, Instant::now(), PATIENCE).await?;
        for (number, node) in self.nodes.iter().enumerate() {
            let verdict = truth::compare(node.clone(), &self.case.recording.header, checkpoint).await?;
            played.answers += verdict.answers;
            if !verdict.is_good() || verdict.answers == 0 {
                played.differ += verdict.wrong + verdict.beyond;
                played.notes.push(format!("fleet {}, node {}: {}", self.slot, number + 1, verdict.summary()));
            }
        }
        let mut client = IngestServiceClient::new(self.nodes[through].clone());
        for engine in &self.case.recording.header.engines {
            let gone = v1::UnregisterRequest { worker_id: engine.name.clone() };
            ensure!(client.unregister(gone).await?.into_inner().removed, "{} was not known", engine.name);
        }
        played.lives += 1;
        played.batches += checkpoint.pos as u64;
        Ok(())
    }
}
