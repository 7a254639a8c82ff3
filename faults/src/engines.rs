//! The engines: a recording played over real ZeroMQ at a steady rate while faults happen, and what it will have said
//! by when.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, bail};
use kvindex_client::v1;
use kvindex_client::v1::ingest_service_client::IngestServiceClient;
use kvindex_faults::cluster::Channel;
use kvindex_faults::progress::Batch;
use kvindex_recording::{Checkpoint, Pace, Publisher, PublisherOptions, Record, Recording, Truth};

use crate::MODEL;

/// How long all nodes may take to subscribe to all engines.
const SUBSCRIBE: Duration = Duration::from_secs(30);

/// A recording with the engines' own answers.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) recording: Arc<Recording>,
    pub(crate) checkpoints: Vec<Checkpoint>,
}

impl Case {
    /// Opens it, up to the first restart of an engine: from there on, sequence numbers would not tell what was applied.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let recording = Arc::new(Recording::open(path)?);
        let mut heard = BTreeSet::new();
        let restarts = |record: &Record| !heard.insert(record.engine) && record.seq == 0;
        let usable = recording.records.iter().position(restarts).unwrap_or(recording.records.len());
        let mut checkpoints = Truth::open(path)?.collect::<Result<Vec<_>, _>>()?;
        checkpoints.retain(|checkpoint| checkpoint.pos <= usable);
        Ok(Self { recording, checkpoints })
    }

    /// The same, said by other engines: each name has something behind it.
    pub(crate) fn renamed(&self, behind: &str) -> Self {
        let mut recording = (*self.recording).clone();
        recording.header.engines.iter_mut().for_each(|engine| engine.name.push_str(behind));
        Self { recording: Arc::new(recording), checkpoints: self.checkpoints.clone() }
    }

    /// The checkpoint nearest to so many records.
    pub(crate) fn checkpoint_near(&self, records: usize) -> anyhow::Result<&Checkpoint> {
        let nearest = self.checkpoints.iter().min_by_key(|checkpoint| checkpoint.pos.abs_diff(records));
        nearest.context("the recording has no checkpoints")
    }
}

/// Engines that play.
pub(crate) struct Engines {
    case: Arc<Case>,
    publisher: Arc<Publisher>,
    replay: bool,
}

impl Engines {
    /// Opens the engines' sockets; at an infinite rate they say all as fast as it is taken. With `nodes` subscribers each is complete.
    pub(crate) fn start(
        case: &Arc<Case>,
        host: &str,
        rate: f64,
        nodes: usize,
        replay: bool,
    ) -> anyhow::Result<Self> {
        let options = PublisherOptions {
            host: host.to_owned(),
            pace: if rate.is_finite() { Pace::Rate(rate) } else { Pace::Unpaced },
            subscribers: nodes,
            ..PublisherOptions::default()
        };
        let publisher = Arc::new(Publisher::start(Arc::clone(&case.recording), options)?);
        Ok(Self { case: Arc::clone(case), publisher, replay })
    }

    /// Makes them known through one node, and waits until every node listens.
    pub(crate) async fn register(&self, node: Channel) -> anyhow::Result<()> {
        let mut client = IngestServiceClient::new(node);
        let header = &self.case.recording.header;
        for engine in self.publisher.endpoints() {
            let stream = v1::StreamSource {
                dp_rank: engine.dp_rank,
                endpoint: engine.publish.clone(),
                replay_endpoint: if self.replay { engine.replay.clone() } else { String::new() },
                topic: engine.topic.clone(),
            };
            let request = v1::RegisterRequest {
                worker_id: engine.name.clone(),
                model: MODEL.to_owned(),
                engine: header.engine.to_string(),
                engine_version: Some(header.version.to_string()),
                streams: vec![stream],
                replace: true,
                ..v1::RegisterRequest::default()
            };
            client.register(request).await.with_context(|| format!("cannot register {}", engine.name))?;
        }
        let publisher = Arc::clone(&self.publisher);
        let heard = tokio::task::spawn_blocking(move || publisher.wait_for_subscribers(SUBSCRIBE)).await?;
        if !heard {
            bail!("not every node has subscribed to every engine within {} s", SUBSCRIBE.as_secs());
        }
        Ok(())
    }

    /// Plays on to a record, in a thread of its own; the answer comes when it is through.
    pub(crate) fn play_until(&self, end: usize) -> mpsc::Receiver<anyhow::Result<()>> {
        let (done, through) = mpsc::sync_channel(1);
        let publisher = Arc::clone(&self.publisher);
        std::thread::spawn(move || {
            let played = publisher.play_until(end).map(drop).map_err(anyhow::Error::from);
            // Whoever does not wait does not want to know.
            let _ = done.send(played);
        });
        through
    }

    /// Records played so far.
    pub(crate) fn position(&self) -> usize {
        self.publisher.position()
    }

    /// Of each worker, the first batch that is published after `position` records, before `end`.
    pub(crate) fn next_batches(&self, position: usize, end: usize) -> Vec<Batch> {
        let coming = self.case.recording.records.get(position..end).unwrap_or(&[]);
        let first = |(engine, header): (u32, &kvindex_recording::EngineHeader)| {
            let record = coming.iter().find(|record| record.engine == engine)?;
            Some(Batch { worker: header.name.clone(), seq: record.seq })
        };
        (0..).zip(&self.case.recording.header.engines).filter_map(first).collect()
    }

    /// Of each worker, the last batch of the first `end` records.
    pub(crate) fn last_batches(&self, end: usize) -> Vec<Batch> {
        let played = self.case.recording.records.get(..end).unwrap_or(&[]);
        let last = |(engine, header): (u32, &kvindex_recording::EngineHeader)| {
            let record = played.iter().rev().find(|record| record.engine == engine)?;
            Some(Batch { worker: header.name.clone(), seq: record.seq })
        };
        (0..).zip(&self.case.recording.header.engines).filter_map(last).collect()
    }
}

impl Drop for Engines {
    fn drop(&mut self) {
        // A thread that still plays ends with it.
        self.publisher.halt();
    }
}
