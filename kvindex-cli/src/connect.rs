//! From the server flags to a client and a runtime to call it in.

use anyhow::Context;
use kvindex_client::{Client, ClientConfig};
use std::path::Path;
use std::time::Duration;

use crate::args::ServerArgs;
use crate::failure;

/// Where `kvindex serve` listens unless told otherwise.
pub(crate) const DEFAULT_SERVER: &str = "http://127.0.0.1:9590";

/// Where a token may stand.
const TOKEN_VARIABLE: &str = "KVINDEX_TOKEN";

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
        let config = config(server)?;
        let client = Client::connect(config).map_err(|error| failure::usage(format!("--server: {error}")))?;
        call(client).await
    })
}

/// The token to call with: a file's, or else the variable's. There is no flag for a token itself, because everyone on
/// a machine can see its processes' flags.
pub(crate) fn token(file: Option<&Path>) -> anyhow::Result<Option<String>> {
    let Some(path) = file else {
        let variable = std::env::var_os(TOKEN_VARIABLE).filter(|token| !token.is_empty());
        let not_text = |_| failure::usage(format!("{TOKEN_VARIABLE} is no text"));
        return variable.map(|token| token.into_string().map_err(not_text)).transpose();
    };
    let text = std::fs::read_to_string(path)
        .map_err(|error| failure::usage(format!("--token-file: cannot read {}: {error}", path.display())))?;
    if text.trim().is_empty() {
        return Err(failure::usage(format!("--token-file: {} is empty", path.display())));
    }
    Ok(Some(text))
}

/// How the node that the flags name is reached.
pub(crate) fn config(server: &ServerArgs) -> anyhow::Result<ClientConfig> {
    let timeout = Duration::from_millis(server.timeout_ms);
    let mut config =
        ClientConfig::new(server.server.as_str()).routing_timeout(timeout).admin_timeout(timeout);
    if let Some(ca) = &server.ca {
        config = config.ca(read("--ca", ca)?);
    }
    if let (Some(certificate), Some(key)) = (&server.client_cert, &server.client_key) {
        config = config.client_certificate(read("--client-cert", certificate)?, read("--client-key", key)?);
    }
    if let Some(name) = &server.server_name {
        config = config.server_name(name);
    }
    if let Some(token) = token(server.token_file.as_deref())? {
        config = config.token(token);
    }
    Ok(config)
}

fn read(flag: &str, path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path)
        .map_err(|error| failure::usage(format!("{flag}: cannot read {}: {error}", path.display())))
}
