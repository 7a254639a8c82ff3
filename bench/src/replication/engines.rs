//! The engines of a load over real ZeroMQ, from this process, and how far nodes are with them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use kvindex_faults::cluster::{Channel, Cluster};
use kvindex_faults::progress;
use kvindex_proto::v1;
use kvindex_proto::v1::ingest_service_client::IngestServiceClient;
use kvindex_recording::{Pace, Publisher, PublisherOptions};

use super::load::Load;

/// How long subscribing to all engines, or applying all they say, may take.
const PATIENCE: Duration = Duration::from_secs(300);
/// Between two looks at how far a node is: seldom, because looking costs the node as well.
const LOOK: Duration = Duration::from_millis(25);

/// Engines that play a load.
pub(super) struct Engines {
    publisher: Arc<Publisher>,
    models: Vec<String>,
}

impl Engines {
    /// Opens their sockets, for so many nodes.
    pub(super) fn start(load: Load, pace: Pace, nodes: usize) -> anyhow::Result<Self> {
        let options = PublisherOptions { pace, subscribers: nodes, ..PublisherOptions::default() };
        let publisher = Publisher::start(load.recording, options)?;
        Ok(Self { publisher: Arc::new(publisher), models: load.models })
    }

    /// Makes them known through one node.
    pub(super) async fn register(&self, node: Channel) -> anyhow::Result<()> {
        let mut client = IngestServiceClient::new(node);
        let header = &self.publisher.recording().header;
        for (engine, model) in self.publisher.endpoints().iter().zip(&self.models) {
            let stream = v1::StreamSource {
                dp_rank: engine.dp_rank,
                endpoint: engine.publish.clone(),
                replay_endpoint: engine.replay.clone(),
                topic: engine.topic.clone(),
            };
            let request = v1::RegisterRequest {
                worker_id: engine.name.clone(),
                model: model.clone(),
                engine: header.engine.to_string(),
                engine_version: Some(header.version.to_string()),
                streams: vec![stream],
                ..v1::RegisterRequest::default()
            };
            client.register(request).await.with_context(|| format!("cannot register {}", engine.name))?;
        }
        Ok(())
    }

    /// Waits until every engine has all its subscribers.
    pub(super) async fn until_heard(&self) -> anyhow::Result<()> {
        let publisher = Arc::clone(&self.publisher);
        let heard = tokio::task::spawn_blocking(move || publisher.wait_for_subscribers(PATIENCE)).await?;
        ensure!(heard, "not every node has subscribed to every engine");
        Ok(())
    }

    /// Plays on to a record; answers how long that took.
    pub(super) async fn play_until(&self, end: usize) -> anyhow::Result<Duration> {
        let (publisher, started) = (Arc::clone(&self.publisher), Instant::now());
        tokio::task::spawn_blocking(move || publisher.play_until(end)).await??;
        Ok(started.elapsed())
    }

    /// Records of the load.
    pub(super) fn records(&self) -> usize {
        self.publisher.recording().records.len()
    }

    /// Waits until these nodes have applied the first `end` records.
    pub(super) async fn until_applied(
        &self,
        cluster: &Cluster,
        nodes: impl IntoIterator<Item = usize>,
        end: usize,
    ) -> anyhow::Result<()> {
        let recording = self.publisher.recording();
        let mut last: BTreeMap<&str, u64> = BTreeMap::new();
        for record in recording.records.iter().take(end) {
            let engine = recording.header.engines.get(record.engine as usize).context("a nameless engine")?;
            last.insert(&engine.name, record.seq);
        }
        let started = Instant::now();
        for number in nodes {
            let channel = cluster.channel(number)?;
            // A node that is too busy to answer in time is asked again.
            while !progress::applied(&channel).await.is_ok_and(|now| {
                let has =
                    |(worker, seq): (&&str, &u64)| now.get(*worker).is_some_and(|(_, at)| *at >= Some(*seq));
                last.iter().all(has)
            }) {
                if started.elapsed() > PATIENCE {
                    bail!("node {} has not applied everything after {} s", number + 1, PATIENCE.as_secs());
                }
                tokio::time::sleep(LOOK).await;
            }
        }
        Ok(())
    }
}

impl Drop for Engines {
    fn drop(&mut self) {
        // A thread that still plays ends with it.
        self.publisher.halt();
    }
}
