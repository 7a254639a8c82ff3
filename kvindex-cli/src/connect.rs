//! From the server flags to a client and a runtime to call it in.

use anyhow::Context;
use kvindex_client::{Client, ClientConfig};
use std::time::Duration;

use crate::args::ServerArgs;
use crate::failure;

/// Where `kvindex serve` listens unless told otherwise.
pub(crate) const DEFAULT_SERVER: &str = "http://127.0.0.1:9590";

/// Runs calls to a node.
pub(crate) fn with_client<T>(
    server: &ServerArgs,
    call: impl AsyncFnOnce(Client) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    runtime.block_on(async {
        let timeout = Duration::from_millis(server.timeout_ms);
        let config =
            ClientConfig::new(server.server.as_str()).routing_timeout(timeout).admin_timeout(timeout);
        let client = Client::connect(config).map_err(|error| failure::usage(format!("--server: {error}")))?;
        call(client).await
    })
}
