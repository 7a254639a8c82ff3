//! Recorded engines as workers of a server: one worker an engine, registered through the public gRPC.

use anyhow::Context;
use kvindex_client::v1;
use kvindex_client::v1::ingest_service_client::IngestServiceClient;
use kvindex_recording::{EngineEndpoints, EngineHeader, GroupHeader, Header};
use tonic::transport::Channel;

use crate::failure::{self, Failure};

/// Connects to a server such as `http://127.0.0.1:9590`.
pub(crate) async fn connect(server: &str) -> anyhow::Result<Channel> {
    let endpoint = Channel::from_shared(server.to_owned()).map_err(|error| {
        failure::usage(format!("{server:?} is not a server such as http://127.0.0.1:9590: {error}"))
    })?;
    endpoint.connect().await.map_err(|error| {
        let (server, reason) = (server.to_owned(), format!("cannot reach {server}: {error}"));
        Failure::Unreachable { server, reason }.into()
    })
}

/// Registers every engine of a recording; returns the worker ids. The same registration twice is no error.
pub(crate) async fn register(
    channel: Channel,
    header: &Header,
    endpoints: &[EngineEndpoints],
    model: &str,
) -> anyhow::Result<Vec<String>> {
    let mut client = IngestServiceClient::new(channel);
    let mut workers = Vec::with_capacity(endpoints.len());
    for (engine, recorded) in endpoints.iter().zip(&header.engines) {
        let request = registration(header, recorded, engine, model);
        client.register(request).await.with_context(|| format!("cannot register {}", engine.name))?;
        workers.push(engine.name.clone());
    }
    Ok(workers)
}

fn registration(
    header: &Header,
    recorded: &EngineHeader,
    engine: &EngineEndpoints,
    model: &str,
) -> v1::RegisterRequest {
    let stream = v1::StreamSource {
        dp_rank: engine.dp_rank,
        endpoint: engine.publish.clone(),
        replay_endpoint: engine.replay.clone(),
        topic: engine.topic.clone(),
    };
    v1::RegisterRequest {
        worker_id: engine.name.clone(),
        model: model.to_owned(),
        engine: header.engine.to_string(),
        engine_version: Some(header.version.to_string()),
        streams: vec![stream],
        groups: groups(header, recorded),
        offload_chunk: header.offload_chunk().filter(|blocks| *blocks > 1).unwrap_or(0),
        // A replay that is started again has other ports, and means the same workers.
        replace: true,
        ..v1::RegisterRequest::default()
    }
}

/// The KV-cache groups as an operator would write them down from the model's configuration; nothing where the
/// events tell.
fn groups(header: &Header, recorded: &EngineHeader) -> Vec<v1::KvCacheGroup> {
    let group = |(group_idx, group): (u32, &GroupHeader)| v1::KvCacheGroup {
        group_idx,
        kind: group.event_kind().unwrap_or_default().to_owned(),
        block_size: group.block_size,
        sliding_window: group.sliding_window.unwrap_or(0),
    };
    let silent = header.hides_group_kinds();
    (0..).zip(&recorded.groups).filter(|_| silent).map(group).collect()
}
