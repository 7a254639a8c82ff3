//! A long prompt's question over gRPC on loopback: the whole call, and its parts.

use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use kvindex_core::{BlockHasher, Index, Query, Scratch, SequenceHash, Tokens, find_hashed, hash_prompt};
use kvindex_proto::v1;
use kvindex_proto::v1::query_service_client::QueryServiceClient;
use kvindex_server::config::Config;
use kvindex_server::{App, Running};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tonic::transport::Channel;

use crate::stopwatch::{median, p99, timed};

pub(crate) const BLOCK: usize = 16;
/// The model of all workers.
pub(crate) const MODEL: &str = "bench";
const WORKERS: usize = 8;
const CALLS: usize = 50;

/// What is timed, in the order of the page.
#[derive(Default)]
struct Times {
    whole: Vec<Duration>,
    decode: Vec<Duration>,
    hash: Vec<Duration>,
    walk: Vec<Duration>,
    /// A call of one token: what a call costs whatever it asks.
    round_trip: Vec<Duration>,
    in_process: Vec<Duration>,
    in_process_hash: Vec<Duration>,
    in_process_walk: Vec<Duration>,
}

/// Asks over gRPC and in this process, call about, so that what disturbs one disturbs both. The node has the threads
/// of its usual runtime; who asks has one of its own, as another process would.
pub(crate) fn run(tokens: usize, rounds: usize) -> anyhow::Result<()> {
    let node = Runtime::new()?;
    let asker = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let server = node.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        anyhow::Ok(App::start(Config::defaults(), listener).await?)
    })?;
    let ids = some_tokens(tokens);
    fill(&server, &ids)?;
    let times = asker.block_on(ask_both(&server, &ids, rounds * CALLS))?;
    print(tokens, times);
    node.block_on(server.shutdown())?;
    Ok(())
}

async fn ask_both(server: &Running, ids: &[u32], calls: usize) -> anyhow::Result<Times> {
    let packed: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    let packed = Bytes::from(packed);
    let one = packed.slice(..4);
    let mut client = QueryServiceClient::connect(format!("http://{}", server.local_addr()))
        .await?
        .max_encoding_message_size(64 << 20);
    let (mut times, index, mut scratch) = (Times::default(), filled_index(&packed), Scratch::default());
    for _ in 0..calls {
        let (time, answer) = ask(&mut client, packed.clone()).await?;
        let best = answer.workers.first().context("no worker answered")?;
        anyhow::ensure!(best.matched_blocks as usize == ids.len() / BLOCK, "wrong answer: {best:?}");
        let timing = answer.timing.unwrap_or_default();
        times.whole.push(time);
        times.decode.push(Duration::from_micros(timing.decode_us));
        times.hash.push(Duration::from_micros(timing.hash_us));
        times.walk.push(Duration::from_micros(timing.walk_us));
        times.round_trip.push(ask(&mut client, one.clone()).await?.0);
        in_process(&index, &packed, &mut scratch, &mut times)?;
    }
    Ok(times)
}

async fn ask(
    client: &mut QueryServiceClient<Channel>,
    packed: Bytes,
) -> anyhow::Result<(Duration, v1::MatchResponse)> {
    let prompt = v1::Prompt { model: MODEL.into(), token_ids_le: packed, ..v1::Prompt::default() };
    let request = v1::MatchRequest { prompt: Some(prompt), ..v1::MatchRequest::default() };
    let started = Instant::now();
    let answer = client.r#match(request).await?.into_inner();
    Ok((started.elapsed(), answer))
}

/// The same question to an index in this process.
fn in_process(index: &Index, packed: &[u8], scratch: &mut Scratch, times: &mut Times) -> anyhow::Result<()> {
    let prompt = kvindex_core::Prompt::Tokens { tokens: Tokens::LeBytes(packed), salt: None, items: &[] };
    let query = Query { prompt, ..Query::tokens(MODEL, &[]) };
    let reader = index.reader();
    let (hashing, hashed) = timed(|| hash_prompt(&reader, &query, scratch));
    hashed?;
    let (walking, found) = timed(|| find_hashed(&reader, &query, scratch));
    anyhow::ensure!(
        found.workers.iter().all(|w| w.matched_blocks == packed.len() / 4 / BLOCK),
        "wrong answer"
    );
    times.in_process.push(hashing + walking);
    times.in_process_hash.push(hashing);
    times.in_process_walk.push(walking);
    Ok(())
}

fn print(tokens: usize, times: Times) {
    println!("match of {tokens} tokens over gRPC, {WORKERS} workers, {} calls", times.whole.len());
    println!("| part | median µs | p99 | least | greatest |\n|---|---|---|---|---|");
    let p99_of = |times: &[Duration]| p99(times.to_vec()).as_secs_f64();
    let (whole, trip, inside) = (p99_of(&times.whole), p99_of(&times.round_trip), p99_of(&times.in_process));
    for (name, times) in [
        ("whole call", times.whole),
        ("server: convert", times.decode),
        ("server: hash", times.hash),
        ("server: walk and answer", times.walk),
        ("whole call of one token", times.round_trip),
        ("in process", times.in_process),
        ("in process: hash", times.in_process_hash),
        ("in process: walk and answer", times.in_process_walk),
    ] {
        let p99 = p99(times.clone()).as_micros();
        let (middle, least, greatest) = median(times);
        let (middle, least, greatest) = (middle.as_micros(), least.as_micros(), greatest.as_micros());
        println!("| {name} | {middle} | {p99} | {least} | {greatest} |");
    }
    println!(
        "p99 of the whole call, less that of a call of one token, is {:.1} times p99 in process",
        (whole - trip) / inside.max(1e-9)
    );
}

/// A prompt of so many tokens.
pub(crate) fn some_tokens(count: usize) -> Vec<u32> {
    (0..count as u32).map(|i| i.wrapping_mul(2_654_435_761) % 128_256).collect()
}

fn commands(ids: &[u32]) -> Vec<kvindex_core::Command> {
    use kvindex_core::{
        Batch, BatchSeq, BlockStored, Command, DpRank, EngineBlockHash, EventBatch, Generation, KvEvent,
        Registration, StreamEvents, StreamId, WorkerId, WorkerSpec,
    };
    let mut all = Vec::new();
    for worker in 0..WORKERS {
        let Ok(id) = WorkerId::new(format!("w{worker}")) else { continue };
        all.push(Command::Register(Box::new(WorkerSpec::new(id.clone(), MODEL))));
        let mut parent: Option<SequenceHash> = None;
        let mut hasher = BlockHasher::new();
        let hashes = ids.chunks_exact(BLOCK).map(|block| {
            let hash = SequenceHash::chain(parent, hasher.local(block, &[]));
            parent = Some(hash);
            EngineBlockHash(hash.0)
        });
        let block_hashes: Vec<EngineBlockHash> = hashes.collect();
        let stored = BlockStored {
            token_ids: ids[..block_hashes.len() * BLOCK].to_vec(),
            block_hashes,
            block_size: BLOCK as u32,
            ..BlockStored::default()
        };
        let batch = EventBatch { events: vec![KvEvent::BlockStored(stored)], ..EventBatch::default() };
        let changes = batch.seal(&Default::default(), &mut BlockHasher::new());
        all.push(Command::Events(StreamEvents {
            stream: StreamId { worker: id, dp_rank: DpRank(0) },
            generation: Generation(0),
            at_ms: 0,
            payload_digest: None,
            registration: Registration::default(),
            batches: vec![Batch { seq: BatchSeq(0), changes }].into(),
        }));
    }
    all
}

fn filled_index(packed: &[u8]) -> kvindex_core::Index {
    let ids: Vec<u32> = packed.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
    let mut index = kvindex_core::Index::default();
    for command in commands(&ids) {
        index.apply(&command);
    }
    index
}

pub(crate) fn fill(server: &Running, ids: &[u32]) -> anyhow::Result<()> {
    server.node().apply(&commands(ids));
    Ok(())
}
