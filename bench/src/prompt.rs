//! A long prompt's question over gRPC on loopback: the whole call, and its parts.

use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use kvindex_core::{BlockHasher, Query, Scratch, SequenceHash, Tokens, find_hashed, hash_prompt};
use kvindex_proto::v1;
use kvindex_proto::v1::query_service_client::QueryServiceClient;
use kvindex_server::App;
use kvindex_server::config::Config;
use tokio::net::TcpListener;

use crate::stopwatch::{median, timed};

pub(crate) const BLOCK: usize = 16;
/// The model of all workers.
pub(crate) const MODEL: &str = "bench";
const WORKERS: usize = 8;
const CALLS: usize = 50;

pub(crate) async fn run(tokens: usize, rounds: usize) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let server = App::start(Config::defaults(), listener).await?;
    let ids = some_tokens(tokens);
    fill(&server, &ids)?;
    let packed: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    let packed = Bytes::from(packed);
    let mut client = QueryServiceClient::connect(format!("http://{}", server.local_addr()))
        .await?
        .max_encoding_message_size(64 << 20);
    let (mut whole, mut decode, mut hash, mut walk) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds * CALLS {
        let prompt =
            v1::Prompt { model: MODEL.into(), token_ids_le: packed.clone(), ..v1::Prompt::default() };
        let request = v1::MatchRequest { prompt: Some(prompt), ..v1::MatchRequest::default() };
        let started = Instant::now();
        let answer = client.r#match(request).await?.into_inner();
        whole.push(started.elapsed());
        let best = answer.workers.first().context("no worker answered")?;
        anyhow::ensure!(best.matched_blocks as usize == tokens / BLOCK, "wrong answer: {best:?}");
        let timing = answer.timing.unwrap_or_default();
        decode.push(Duration::from_micros(timing.decode_us));
        hash.push(Duration::from_micros(timing.hash_us));
        walk.push(Duration::from_micros(timing.walk_us));
    }
    println!("match of {tokens} tokens over gRPC, {WORKERS} workers, {} calls", whole.len());
    println!("| part | median µs | least | greatest |\n|---|---|---|---|");
    for (name, times) in [
        ("whole call", whole),
        ("server: convert", decode),
        ("server: hash", hash),
        ("server: walk and answer", walk),
    ] {
        let (middle, least, greatest) = median(times);
        println!("| {name} | {} | {} | {} |", middle.as_micros(), least.as_micros(), greatest.as_micros());
    }
    in_process(&packed, rounds)?;
    server.shutdown().await?;
    Ok(())
}

/// A prompt of so many tokens.
pub(crate) fn some_tokens(count: usize) -> Vec<u32> {
    (0..count as u32).map(|i| i.wrapping_mul(2_654_435_761) % 128_256).collect()
}

/// The same question to an index in this process.
fn in_process(packed: &[u8], rounds: usize) -> anyhow::Result<()> {
    let index = filled_index(packed);
    let prompt = kvindex_core::Prompt::Tokens { tokens: Tokens::LeBytes(packed), salt: None, items: &[] };
    let query = Query { prompt, ..Query::tokens(MODEL, &[]) };
    let (mut hashing, mut walking) = (Vec::new(), Vec::new());
    let mut scratch = Scratch::default();
    for _ in 0..rounds * CALLS {
        let reader = index.reader();
        let (time, hashed) = timed(|| hash_prompt(&reader, &query, &mut scratch));
        hashed?;
        hashing.push(time);
        let (time, found) = timed(|| find_hashed(&reader, &query, &mut scratch));
        walking.push(time);
        anyhow::ensure!(
            found.workers.iter().all(|w| w.matched_blocks == packed.len() / 4 / BLOCK),
            "wrong answer"
        );
    }
    for (name, times) in [("in process: hash", hashing), ("in process: walk and answer", walking)] {
        let (middle, least, greatest) = median(times);
        println!("| {name} | {} | {} | {} |", middle.as_micros(), least.as_micros(), greatest.as_micros());
    }
    Ok(())
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

pub(crate) fn fill(server: &kvindex_server::Running, ids: &[u32]) -> anyhow::Result<()> {
    server.node().apply(&commands(ids));
    Ok(())
}
