//! Mooncake's indexer over real HTTP, written from its documents (`conductor-indexer.md`, `indexer-api-design.md`,
//! `usage.md`) and the conductor's source, with blocks from real ZeroMQ events. Here what both of its forms share.

mod conductor;
mod rfc;

use serde_json::{Value, json};

use crate::api_server::Server;
use crate::dialects_rig::{Engine, Stored};

pub(super) fn registration(engine: &Engine, instance: &str, rank: u32, block_size: u32) -> Value {
    json!({"endpoint": engine.endpoint, "type": "vLLM", "modelname": "llama", "instance_id": instance,
        "block_size": block_size, "dp_rank": rank})
}

/// Registers a rank, which must be new, and waits until the node listens to it.
pub(super) async fn registered(server: &Server, engine: &Engine, body: &Value) {
    let (status, answer) = server.post("/register", body).await;
    let instance = &body["instance_id"];
    assert_eq!(
        (status, answer),
        (200, json!({"status": "registered successfully", "instance_id": instance}))
    );
    engine.wait_for_listener();
}

pub(super) fn stored<'a>(
    medium: &'a str,
    hashes: &'a [u64],
    parent: Option<u64>,
    tokens: &'a [u32],
) -> Stored<'a> {
    let block_size = u32::try_from(tokens.len() / hashes.len()).unwrap();
    Stored { medium, hashes, parent, tokens, block_size, lora: None }
}

pub(super) fn query(tokens: &[u32], block_size: u32) -> Value {
    json!({"model": "llama", "token_ids": tokens, "block_size": block_size})
}
