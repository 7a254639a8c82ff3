//! Asks each node now and then whether it is ready, over the very connection that calls take: what a proxy or another
//! port says about a node is not what a call will meet.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tonic::body::Body;
use tonic::client::GrpcService;

use super::{Endpoint, Pool};
use crate::error;

/// Where nodes say whether they are ready; needs no token.
const READY: &str = "/readyz";

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// Probes until it is aborted. A single node is probed only while calls to it fail: there is no other to choose, and a
/// command that asks once should say one thing.
pub(super) async fn run(pool: Arc<Pool>, interval: Duration) {
    loop {
        let endpoints = pool.endpoints();
        let several = endpoints.len() > 1;
        let mut probes: JoinSet<()> = JoinSet::new();
        for endpoint in endpoints.iter().filter(|endpoint| several || endpoint.is_failing()) {
            probes.spawn(look_at(Arc::clone(endpoint)));
        }
        while probes.join_next().await.is_some() {}
        tokio::time::sleep(interval).await;
    }
}

async fn look_at(endpoint: Arc<Endpoint>) {
    match tokio::time::timeout(PATIENCE, ask(&endpoint)).await {
        Ok(Ok(said)) => endpoint.probed(said),
        Ok(Err(reason)) => endpoint.silent(reason),
        Err(_) => {
            endpoint
                .silent(format!("does not answer within {} ms whether it is ready", PATIENCE.as_millis()));
        }
    }
}

/// What the node says: that it is ready, or that it is not.
async fn ask(endpoint: &Endpoint) -> Result<Result<(), String>, String> {
    let mut channel = endpoint.channel.clone();
    let request = http::Request::get(READY).body(Body::empty()).map_err(|error| error.to_string())?;
    let broken = |error: tonic::transport::Error| error::root_cause(&error);
    poll_fn(|context| GrpcService::<Body>::poll_ready(&mut channel, context)).await.map_err(broken)?;
    let response = GrpcService::<Body>::call(&mut channel, request).await.map_err(broken)?;
    // A proxy that does not pass this path on says something else, and that is no reason to leave a node out.
    let is_not_ready = response.status() == http::StatusCode::SERVICE_UNAVAILABLE;
    Ok(if is_not_ready { Err("says that it is not ready".into()) } else { Ok(()) })
}
