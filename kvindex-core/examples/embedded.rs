//! The index in a program of your own: no server, no async runtime.
//!
//! `cargo run -p kvindex-core --example embedded`

use kvindex_core::{
    Batch, BatchSeq, BlockHasher, BlockRemoved, BlockStored, Command, DpRank, EngineBlockHash, EventBatch,
    Generation, Index, IndexLimits, KvEvent, Query, Registration, Scratch, StreamEvents, StreamId, WorkerId,
    WorkerSpec, explain, find_matches,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut index = Index::default();
    let worker = WorkerId::new("vllm-0")?;
    index.apply(&Command::Register(Box::new(WorkerSpec::new(worker.clone(), "llama-3-8b"))));

    // Two blocks of four tokens enter the engine's cache; the engine names them 11 and 12.
    let prompt: Vec<u32> = (100..112).collect();
    let stored = KvEvent::BlockStored(BlockStored {
        block_hashes: vec![EngineBlockHash(11), EngineBlockHash(12)],
        token_ids: prompt[..8].to_vec(),
        block_size: 4,
        ..BlockStored::default()
    });
    let stream = StreamId { worker, dp_rank: DpRank(0) };
    index.apply(&batch(&stream, 0, vec![stored]));

    let mut scratch = Scratch::default();
    let query = Query::tokens("llama-3-8b", &prompt);
    for found in find_matches(&index.reader(), &query, &mut scratch)?.workers {
        println!("{}: {} of {} tokens cached", found.worker.id, found.matched_tokens, prompt.len());
    }

    // The second block is evicted; ask why the prompt does not match further.
    let hashes = vec![EngineBlockHash(12)];
    let removed = KvEvent::BlockRemoved(BlockRemoved { block_hashes: hashes, ..BlockRemoved::default() });
    index.apply(&batch(&stream, 1, vec![removed]));
    for told in explain(&index.reader(), &query, &mut scratch)?.workers {
        let at = told.broke_at.unwrap_or(told.prompt_blocks);
        println!("{}: breaks at block {at}: {}", told.matched.worker.id, told.reason);
    }

    let bytes = index.snapshot();
    let restored = Index::restore(&bytes, IndexLimits::default())?;
    println!(
        "snapshot of {} bytes, equal after restore: {}",
        bytes.len(),
        restored.digest() == index.digest()
    );
    Ok(())
}

/// One engine step: events are hashed here, and their token ids go no further.
fn batch(stream: &StreamId, seq: u64, events: Vec<KvEvent>) -> Command {
    let batch = EventBatch { events, ..EventBatch::default() };
    let changes = batch.seal(&Default::default(), &mut BlockHasher::new());
    Command::Events(StreamEvents {
        stream: stream.clone(),
        generation: Generation(0),
        at_ms: 1_700_000_000_000 + seq,
        payload_digest: None,
        registration: Registration::default(),
        batches: vec![Batch { seq: BatchSeq(seq), changes }].into(),
    })
}
