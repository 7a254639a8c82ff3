//! The demo's node or nodes and engines: set up, wait until what was played is applied, take down.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use indicatif::ProgressBar;
use kvindex_client::v1;
use kvindex_client::v1::query_service_client::QueryServiceClient;
use kvindex_recording::{Publisher, PublisherOptions};
use kvindex_server::config::Config;
use kvindex_server::{App, Running};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tonic::transport::Channel;

use super::processes::Processes;
use super::source::Case;
use super::{MODEL, roster, show};

/// How long subscriptions may take; on loopback they take milliseconds.
const SUBSCRIBE_PATIENCE: Duration = Duration::from_secs(30);
/// How long the node may stand still before a stream counts as left behind.
const APPLY_PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(2);
/// A batch of answers is larger than the 4 MiB that gRPC clients take by default.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// A node or a cluster, and the recorded engines that it follows.
pub(super) struct Stage {
    /// Before the runtime, so that it goes first: its sockets need no runtime.
    pub(super) publisher: Publisher,
    hosts: Hosts,
    clients: Vec<QueryServiceClient<Channel>>,
    runtime: Runtime,
}

/// What serves.
enum Hosts {
    /// One node, in this process.
    Here(Box<Running>),
    /// A cluster of processes.
    Cluster(Box<Acts>),
}

/// A cluster, and what happened to it.
struct Acts {
    processes: Processes,
    /// Which node was killed, and at which record.
    killed: Option<(usize, usize)>,
    /// At which record it came back.
    back: Option<usize>,
    /// Answers of other nodes that were compared with the first one's, and those that differed.
    compared: u64,
    different: u64,
    shards: usize,
}

/// What came out of the cluster's part.
pub(super) struct ClusterVerdict {
    nodes: usize,
    shards: usize,
    killed: String,
    compared: u64,
}

impl ClusterVerdict {
    pub(super) fn text(&self) -> String {
        let Self { nodes, shards, killed, compared } = self;
        format!(
            "{nodes} nodes, {shards} shards. {killed}\n{compared} answers of the other nodes equal the first one's; \
             at the end all nodes have equal digests of every shard."
        )
    }

    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::json!({"nodes": self.nodes, "shards": self.shards, "killed": self.killed,
                           "answers_compared": self.compared, "equal_digests": true})
    }
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
    /// Starts node or nodes and engines, registers the engines, and waits until they are subscribed to.
    pub(super) fn set_up(case: &Case, listen: SocketAddr, nodes: u16) -> anyhow::Result<Self> {
        let publisher = Publisher::start(Arc::clone(&case.recording), PublisherOptions::default())?;
        let runtime = Runtime::new().context("cannot start the async runtime")?;
        let (hosts, channels) = runtime.block_on(async {
            let (hosts, addresses) = if nodes == 1 { here(listen).await? } else { cluster(nodes).await? };
            let mut channels = Vec::new();
            for address in addresses {
                channels.push(roster::connect(&format!("http://{address}")).await?);
            }
            let first = channels.first().context("no node")?.clone();
            roster::register(first, case.header(), publisher.endpoints(), MODEL).await?;
            anyhow::Ok((hosts, channels))
        })?;
        if !publisher.wait_for_subscribers(SUBSCRIBE_PATIENCE) {
            bail!("the node has not subscribed to all engines within {} s", SUBSCRIBE_PATIENCE.as_secs());
        }
        let client = |channel| QueryServiceClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
        Ok(Self { publisher, hosts, clients: channels.into_iter().map(client).collect(), runtime })
    }

    /// Where the node serves, or the first of them.
    pub(super) fn address(&self) -> SocketAddr {
        match &self.hosts {
            Hosts::Here(running) => running.local_addr(),
            Hosts::Cluster(acts) => {
                acts.processes.address(0).unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)))
            }
        }
    }

    /// What serves, in words.
    pub(super) fn who(&self) -> String {
        match &self.hosts {
            Hosts::Here(_) => "a node".into(),
            Hosts::Cluster(acts) => {
                let folder = acts.processes.folder().display();
                format!("{} nodes (logs in {folder}), the first", self.clients.len())
            }
        }
    }

    /// Plays on to a record. In a cluster a node is killed at the middle of the recording, while events come, and
    /// comes back after three quarters.
    pub(super) fn play_until(&mut self, end: usize, records: usize, bar: &ProgressBar) -> anyhow::Result<()> {
        let turns = [records / 2, records * 3 / 4];
        for turn in turns.into_iter().filter(|turn| *turn < end) {
            let Hosts::Cluster(acts) = &self.hosts else { break };
            let due = if turn == turns[0] { acts.killed.is_none() } else { acts.back.is_none() };
            if due {
                self.publisher.play_until_with(turn, |pos| bar.set_position(pos as u64))?;
                self.turn(turn, turn == turns[0])?;
            }
        }
        self.publisher.play_until_with(end, |pos| bar.set_position(pos as u64))?;
        Ok(())
    }

    fn turn(&mut self, record: usize, kill: bool) -> anyhow::Result<()> {
        let Hosts::Cluster(acts) = &mut self.hosts else { return Ok(()) };
        if kill {
            let status = self.runtime.block_on(acts.processes.status(0, false))?;
            // Whoever leads most: its death hurts most.
            let led = |id: u64| status.shards.iter().filter(|shard| shard.leader == id).count();
            let victim = status.nodes.iter().max_by_key(|node| led(node.node_id)).context("no node")?;
            let of = |number: &usize| {
                acts.processes.address(*number).is_some_and(|a| a.to_string() == victim.address)
            };
            let number = acts.processes.alive().into_iter().find(of).context("the victim is not there")?;
            acts.processes.kill(number)?;
            acts.killed = Some((number, record));
        } else if let Some((number, _)) = acts.killed {
            acts.processes.run(number)?;
            acts.back = Some(record);
        }
        Ok(())
    }

    /// Nodes that can be asked, by number.
    fn alive(&self) -> Vec<usize> {
        match &self.hosts {
            Hosts::Here(_) => vec![0],
            Hosts::Cluster(acts) => acts.processes.alive(),
        }
    }

    /// Asks many questions in one call; fails when the node refuses one. In a cluster every node is asked, and all
    /// must say the same.
    pub(super) fn ask(&mut self, requests: &[v1::MatchRequest]) -> anyhow::Result<Vec<v1::MatchResponse>> {
        let mut first: Option<Vec<v1::MatchResponse>> = None;
        for number in self.alive() {
            let answers = self.ask_one(number, requests.to_vec())?;
            let Some(first) = &first else {
                first = Some(answers);
                continue;
            };
            if let Hosts::Cluster(acts) = &mut self.hosts {
                acts.compared += answers.len() as u64;
                let different = first.iter().zip(&answers).filter(|(a, b)| matched(a) != matched(b)).count();
                acts.different += different as u64;
            }
        }
        first.context("no node is alive")
    }

    fn ask_one(
        &mut self,
        number: usize,
        requests: Vec<v1::MatchRequest>,
    ) -> anyhow::Result<Vec<v1::MatchResponse>> {
        let asked = requests.len();
        let request = v1::MatchBatchRequest { requests };
        let client = self.clients.get_mut(number).context("no such node")?;
        let answer = self.runtime.block_on(client.match_batch(request)).context("match batch")?;
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

    /// Waits until every stream has applied what was played, on every node. Fails when nothing moves any more, and
    /// names the stream that stays behind.
    pub(super) fn wait_applied(&mut self, expected: &[Applied]) -> anyhow::Result<()> {
        for number in self.alive() {
            if let Hosts::Cluster(acts) = &mut self.hosts {
                self.runtime.block_on(acts.processes.until_ready(number))?;
            }
            self.wait_applied_on(number, expected).with_context(|| format!("node {}", number + 1))?;
        }
        Ok(())
    }

    fn wait_applied_on(&mut self, number: usize, expected: &[Applied]) -> anyhow::Result<()> {
        let (mut before, mut moved) = (Vec::new(), Instant::now());
        loop {
            let streams = self.streams(number)?;
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

    fn streams(&mut self, number: usize) -> anyhow::Result<Vec<(String, v1::Trust)>> {
        let client = self.clients.get_mut(number).context("no such node")?;
        let listed = self.runtime.block_on(client.list_workers(v1::ListWorkersRequest::default()));
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

    /// What came of the cluster; `None` for one node.
    pub(super) fn verdict(&mut self) -> anyhow::Result<Option<ClusterVerdict>> {
        let Hosts::Cluster(acts) = &mut self.hosts else { return Ok(None) };
        if acts.different > 0 {
            bail!("{} of {} answers differ between nodes", acts.different, acts.compared);
        }
        acts.shards = self.runtime.block_on(acts.processes.until_equal())?;
        let killed = match (acts.killed, acts.back) {
            (Some((node, at)), Some(back)) => {
                format!("Node {} was killed at event batch {at} and came back at {back}.", node + 1)
            }
            _ => bail!("no node was killed: the recording is too short"),
        };
        let nodes = self.clients.len();
        Ok(Some(ClusterVerdict { nodes, shards: acts.shards, killed, compared: acts.compared }))
    }

    /// Stops node and engines.
    pub(super) fn take_down(self) -> anyhow::Result<()> {
        let Self { publisher, hosts, clients, runtime } = self;
        // An open connection would hold the node's shutdown up.
        drop(clients);
        if let Hosts::Here(running) = hosts {
            runtime.block_on(running.shutdown()).context("the node did not stop well")?;
        }
        Ok(publisher.stop()?)
    }
}

async fn here(listen: SocketAddr) -> anyhow::Result<(Hosts, Vec<SocketAddr>)> {
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    let config = Config { listen, ..Config::defaults() };
    let running = App::start(config, listener).await.context("the node cannot start")?;
    let address = running.local_addr();
    Ok((Hosts::Here(Box::new(running)), vec![address]))
}

async fn cluster(nodes: u16) -> anyhow::Result<(Hosts, Vec<SocketAddr>)> {
    let mut processes = Processes::start(nodes)?;
    let numbers = processes.alive();
    for number in &numbers {
        processes.until_ready(*number).await?;
    }
    let addresses = numbers.iter().filter_map(|number| processes.address(*number)).collect();
    let acts = Acts { processes, killed: None, back: None, compared: 0, different: 0, shards: 0 };
    Ok((Hosts::Cluster(Box::new(acts)), addresses))
}

/// What an answer says of one worker.
type Said<'a> = (&'a str, u32, u64, u64, &'a [String]);

/// What an answer says, without what may differ between nodes: times and lag.
fn matched(response: &v1::MatchResponse) -> Vec<Said<'_>> {
    let mut all: Vec<Said<'_>> = Vec::with_capacity(response.workers.len());
    for worker in &response.workers {
        let v1::WorkerMatch { worker_id, dp_rank, matched_blocks, matched_tokens, doubts, .. } = worker;
        all.push((worker_id, *dp_rank, *matched_blocks, *matched_tokens, doubts));
    }
    all.sort_unstable();
    all
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
