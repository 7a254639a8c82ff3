//! The demo's node and engines: set up, wait until the node has applied what was played, take down.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use kvindex_client::v1;
use kvindex_client::v1::query_service_client::QueryServiceClient;
use kvindex_recording::{Publisher, PublisherOptions};
use kvindex_server::config::Config;
use kvindex_server::{App, Running};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tonic::transport::Channel;

use super::source::Case;
use super::{MODEL, roster, show};

/// How long subscriptions may take; on loopback they take milliseconds.
const SUBSCRIBE_PATIENCE: Duration = Duration::from_secs(30);
/// How long the node may stand still before a stream counts as left behind.
const APPLY_PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(2);
/// A batch of answers is larger than the 4 MiB that gRPC clients take by default.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// A node and the recorded engines that it follows.
pub(super) struct Stage {
    /// Before the runtime, so that it goes first: its sockets need no runtime.
    pub(super) publisher: Publisher,
    running: Running,
    client: QueryServiceClient<Channel>,
    runtime: Runtime,
}

/// What a stream must have applied at a checkpoint.
#[derive(Debug)]
pub(super) struct Applied {
    /// The worker.
    pub(super) worker: String,
    /// How often the engine has restarted.
    pub(super) generation: u64,
    /// Its last batch.
    pub(super) seq: u64,
}

impl Stage {
    /// Starts node and engines, registers the engines, and waits until the node subscribes to all of them.
    pub(super) fn set_up(case: &Case, listen: SocketAddr) -> anyhow::Result<Self> {
        let publisher = Publisher::start(Arc::clone(&case.recording), PublisherOptions::default())?;
        let runtime = Runtime::new().context("cannot start the async runtime")?;
        let (running, channel) = runtime.block_on(async {
            let listener =
                TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
            let config = Config { listen, ..Config::defaults() };
            let running = App::start(config, listener).await.context("the node cannot start")?;
            let channel = roster::connect(&format!("http://{}", running.local_addr())).await?;
            roster::register(channel.clone(), case.header(), publisher.endpoints(), MODEL).await?;
            anyhow::Ok((running, channel))
        })?;
        if !publisher.wait_for_subscribers(SUBSCRIBE_PATIENCE) {
            bail!("the node has not subscribed to all engines within {} s", SUBSCRIBE_PATIENCE.as_secs());
        }
        let client = QueryServiceClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
        Ok(Self { publisher, running, client, runtime })
    }

    /// Where the node serves.
    pub(super) fn address(&self) -> SocketAddr {
        self.running.local_addr()
    }

    /// Asks many questions in one call; fails when the node refuses one.
    pub(super) fn ask(&mut self, requests: Vec<v1::MatchRequest>) -> anyhow::Result<Vec<v1::MatchResponse>> {
        let asked = requests.len();
        let request = v1::MatchBatchRequest { requests };
        let answer = self.runtime.block_on(self.client.match_batch(request)).context("match batch")?;
        let results = answer.into_inner().results;
        if results.len() != asked {
            bail!("{asked} questions got {} answers", results.len());
        }
        let answered = |result: v1::MatchResult| match (result.response, result.error) {
            (Some(response), _) => Ok(response),
            (None, Some(error)) => bail!("the node refused a question: {}: {}", error.field, error.message),
            (None, None) => bail!("the node answered nothing"),
        };
        results.into_iter().map(answered).collect()
    }

    /// Waits until every stream has applied what was played. Fails when nothing moves any more, and names the
    /// stream that stays behind.
    pub(super) fn wait_applied(&mut self, expected: &[Applied]) -> anyhow::Result<()> {
        let (mut before, mut moved) = (Vec::new(), Instant::now());
        loop {
            let streams = self.streams()?;
            let Some(behind) = expected.iter().find(|applied| !applied.is_reached(&streams)) else {
                return Ok(());
            };
            if streams != before {
                (before, moved) = (streams, Instant::now());
            } else if moved.elapsed() > APPLY_PATIENCE {
                bail!(behind.complaint(&streams));
            }
            std::thread::sleep(POLL);
        }
    }

    fn streams(&mut self) -> anyhow::Result<Vec<(String, v1::Trust)>> {
        let listed = self.runtime.block_on(self.client.list_workers(v1::ListWorkersRequest::default()));
        let workers = listed.context("list workers")?.into_inner().workers;
        let trust = |worker: v1::Worker| {
            let streams = worker.streams.into_iter();
            streams.map(move |s| {
                // The lag grows while nothing moves, so it is no sign of movement.
                let trust = v1::Trust { lag_ms: 0, ..s.trust.unwrap_or_default() };
                (worker.worker_id.clone(), trust)
            })
        };
        Ok(workers.into_iter().flat_map(trust).collect())
    }

    /// Returns at Ctrl-C.
    pub(super) fn until_interrupted(&self) -> anyhow::Result<()> {
        self.runtime.block_on(tokio::signal::ctrl_c()).context("cannot wait for Ctrl-C")
    }

    /// Stops node and engines.
    pub(super) fn take_down(self) -> anyhow::Result<()> {
        let Self { publisher, running, client, runtime } = self;
        // An open connection would hold the node's shutdown up.
        drop(client);
        runtime.block_on(running.shutdown()).context("the node did not stop well")?;
        Ok(publisher.stop()?)
    }
}

impl Applied {
    fn is_reached(&self, streams: &[(String, v1::Trust)]) -> bool {
        self.find(streams)
            .is_some_and(|trust| trust.generation >= self.generation && trust.applied_seq == Some(self.seq))
    }

    fn find<'a>(&self, streams: &'a [(String, v1::Trust)]) -> Option<&'a v1::Trust> {
        streams.iter().find(|(worker, _)| *worker == self.worker).map(|(_, trust)| trust)
    }

    fn complaint(&self, streams: &[(String, v1::Trust)]) -> String {
        let Self { worker, generation, seq } = self;
        let stands = self.find(streams).map_or_else(|| "is not registered".to_owned(), standing);
        format!(
            "worker {worker} stays behind: batch {seq} of generation {generation} was published, it {stands}, \
             and nothing moved for {} s",
            APPLY_PATIENCE.as_secs()
        )
    }
}

fn standing(trust: &v1::Trust) -> String {
    let applied = trust.applied_seq.map_or("nothing".into(), |seq| format!("batch {seq}"));
    let mut text =
        format!("has applied {applied} of generation {} and is {}", trust.generation, show::state(trust));
    if !trust.reason.is_empty() {
        text.push_str(&format!(" ({})", trust.reason));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn streams(generation: u64, applied_seq: Option<u64>) -> Vec<(String, v1::Trust)> {
        vec![("a".into(), v1::Trust { generation, applied_seq, ..v1::Trust::default() })]
    }

    #[test]
    fn a_batch_of_an_earlier_life_does_not_count() {
        let wanted = Applied { worker: "a".into(), generation: 1, seq: 4 };
        assert!(wanted.is_reached(&streams(1, Some(4))));
        for (generation, applied) in [(0, Some(4)), (1, Some(3)), (1, None)] {
            assert!(!wanted.is_reached(&streams(generation, applied)), "{generation} {applied:?}");
        }
        let other = Applied { worker: "b".into(), ..wanted };
        assert!(!other.is_reached(&streams(1, Some(4))));
    }

    #[test]
    fn the_complaint_names_the_worker_and_where_it_stands() {
        let wanted = Applied { worker: "a".into(), generation: 1, seq: 4 };
        let text = wanted.complaint(&streams(0, Some(7)));
        assert!(text.contains("worker a stays behind: batch 4 of generation 1 was published"), "{text}");
        assert!(text.contains("it has applied batch 7 of generation 0 and is unspecified, "), "{text}");
    }
}
