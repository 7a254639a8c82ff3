//! A name that stands for several nodes, such as a headless service: each of its addresses is an endpoint, and they are
//! looked up again and again, because nodes move.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tonic::transport::Uri;

use super::{Endpoint, Pool, same};
use crate::config::ClientConfig;
use crate::token::Bearer;

/// Between two looks while all is well. Kubernetes' DNS answers hold for 5 to 30 s.
const INTERVAL: Duration = Duration::from_secs(10);

/// Between two looks while a name has no address, or an endpoint is left out: it may have moved.
const SOON: Duration = Duration::from_secs(1);

/// Looks up until it is aborted.
pub(super) async fn run(pool: Arc<Pool>, config: ClientConfig, bearer: Bearer) {
    loop {
        let mut all = Vec::new();
        let mut is_whole = true;
        for server in config.servers() {
            let found = lookup(server).await;
            is_whole &= !found.is_empty();
            all.extend(endpoints(&pool, &config, &bearer, server, &found));
        }
        let is_well = is_whole && !all.iter().any(|endpoint: &Arc<Endpoint>| endpoint.is_failing());
        pool.replace(all);
        tokio::time::sleep(if is_well { INTERVAL } else { SOON }).await;
    }
}

/// Of one name. Endpoints that are known stay as they are; a name that cannot be looked up now keeps those it had.
fn endpoints(
    pool: &Pool,
    config: &ClientConfig,
    bearer: &Bearer,
    server: &str,
    found: &[SocketAddr],
) -> Vec<Arc<Endpoint>> {
    let known = pool.endpoints();
    if found.is_empty() {
        return known.iter().filter(|endpoint| endpoint.server == server).map(Arc::clone).collect();
    }
    let endpoint = |address: &SocketAddr| {
        if let Some(one) = known.iter().find(|endpoint| same(endpoint, server, *address)) {
            return Some(Arc::clone(one));
        }
        // It was one for the name itself when the client was made.
        let channel = config.channel(server, Some(*address)).ok()?;
        tracing::info!(server, %address, "a node is known by another address");
        Some(Arc::new(Endpoint::new(server, Some(*address), channel, bearer.clone())))
    };
    found.iter().filter_map(endpoint).collect()
}

async fn lookup(server: &str) -> Vec<SocketAddr> {
    let Some((host, port)) = parts(server) else { return Vec::new() };
    match tokio::net::lookup_host((host, port)).await {
        Ok(addresses) => {
            let mut addresses: Vec<SocketAddr> = addresses.collect();
            addresses.sort();
            addresses.dedup();
            addresses
        }
        Err(error) => {
            tracing::debug!(server, %error, "a node's name has no address now");
            Vec::new()
        }
    }
}

fn parts(server: &str) -> Option<(String, u16)> {
    let uri: Uri = server.parse().ok()?;
    let standard = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    let host = uri.host()?.trim_start_matches('[').trim_end_matches(']').to_owned();
    Some((host, uri.port_u16().unwrap_or(standard)))
}
