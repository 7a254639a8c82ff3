//! A tenant that stores without end and never removes: who must give when the index is above its cap.

use std::time::Duration;

use anyhow::{Context, bail};
use kvindex_client::v1;
use kvindex_client::v1::ingest_service_client::IngestServiceClient;
use kvindex_faults::cluster::Channel;
use kvindex_faults::secrets::TENANT;
use kvindex_recording::splitmix64;

use super::Going;

/// Its workers, each pushed to through another node.
const WORKERS: usize = 4;
/// Blocks of one batch, and tokens of one block.
const BLOCKS: u64 = 2048;
const BLOCK_TOKENS: u64 = 4;
/// Between two batches.
const PAUSE: Duration = Duration::from_millis(5);
/// Tries of one batch: a change of leaders may come between.
const TRIES: usize = 20;

pub(crate) struct Glutton {
    nodes: Vec<Channel>,
    stored: u64,
}

fn name(worker: usize) -> String {
    // As a token that is bound to its tenant may name them.
    format!("{TENANT}/{worker}")
}

impl Glutton {
    pub(crate) fn new(nodes: Vec<Channel>) -> Self {
        Self { nodes, stored: 0 }
    }

    fn client(&self, turn: usize) -> anyhow::Result<IngestServiceClient<Channel>> {
        Ok(IngestServiceClient::new(self.nodes.get(turn % self.nodes.len()).context("no node")?.clone()))
    }

    /// Stores until it is the end; answers how many blocks.
    pub(crate) async fn store(mut self, going: Going) -> anyhow::Result<u64> {
        for worker in 0..WORKERS {
            let request = v1::RegisterRequest {
                worker_id: name(worker),
                model: "glutton".into(),
                tenant: TENANT.into(),
                ..v1::RegisterRequest::default()
            };
            self.client(worker)?.register(request).await.context("registering who stores without end")?;
        }
        for seq in 0.. {
            for worker in 0..WORKERS {
                if !going.on() {
                    return Ok(self.stored);
                }
                self.push(worker, seq).await?;
                tokio::time::sleep(PAUSE).await;
            }
        }
        Ok(self.stored)
    }

    /// A batch of a chain that nobody else has. Said twice, it counts once.
    async fn push(&mut self, worker: usize, seq: u64) -> anyhow::Result<()> {
        let seed = splitmix64((worker as u64) << 48 | seq);
        let event = v1::PublishEvent {
            r#type: "stored".into(),
            block_hashes: (0..BLOCKS).map(|i| splitmix64(seed ^ i)).collect(),
            token_ids: (0..BLOCKS * BLOCK_TOKENS)
                .map(|i| (splitmix64(seed ^ (i << 20)) % 128_256) as u32)
                .collect(),
            block_size: BLOCK_TOKENS as u32,
            ..v1::PublishEvent::default()
        };
        let worker_id = name(worker);
        let request = v1::PublishRequest {
            worker_id,
            generation: 1,
            seq,
            events: vec![event],
            ..v1::PublishRequest::default()
        };
        let mut last = None;
        for turn in 0..TRIES {
            match self.client(worker + turn)?.publish(request.clone()).await {
                Ok(_) => {
                    self.stored += BLOCKS;
                    return Ok(());
                }
                Err(status) => last = Some(status),
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        bail!("batch {seq} of {} is not taken: {last:?}", name(worker))
    }
}
