//! What tests of several dialects share: workers at addresses, blocks on tiers, callers with tokens.

use kvindex_proto::v1;
use kvindex_server::config::Config;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::path::PathBuf;

use crate::api_server::{BLOCK, Server, config, worker};

/// A worker of model `llama` at this address; none when empty.
pub(crate) async fn at(server: &mut Server, worker_id: &str, address: &str) {
    let address = Some(address.to_owned()).filter(|address| !address.is_empty());
    server.register_as(v1::RegisterRequest { address, ..worker(worker_id) }).await;
}

/// Stores `count` of a prompt's blocks from `first` on, with engine block hashes 100, 101 and so on.
pub(crate) fn blocks_of(tokens: &[u32], first: u32, count: u32, medium: &str) -> v1::PublishEvent {
    let range = (first * BLOCK) as usize..((first + count) * BLOCK) as usize;
    v1::PublishEvent {
        r#type: "stored".into(),
        block_hashes: (first..first + count).map(|i| 100 + u64::from(i)).collect(),
        parent_block_hash: (first > 0).then(|| 99 + u64::from(first)),
        token_ids: tokens[range].to_vec(),
        block_size: BLOCK,
        medium: medium.into(),
        ..v1::PublishEvent::default()
    }
}

/// A server with an access file of these tokens, each with the right to read one tenant; tokens are their own names.
pub(crate) struct Guarded {
    pub(crate) server: Server,
    folder: PathBuf,
}

impl Guarded {
    pub(crate) async fn with(name: &str, tokens: &[(&str, &str)], change: impl FnOnce(&mut Config)) -> Self {
        Self::limited(name, tokens, "", change).await
    }

    /// The same with entries of tenants.
    pub(crate) async fn limited(
        name: &str,
        tokens: &[(&str, &str)],
        tenants: &str,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let folder = std::env::temp_dir().join(format!("kvindex-dialect-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let entry = |(name, tenant): &(&str, &str)| {
            let digest: String = Sha256::digest(name.as_bytes()).iter().map(|b| format!("{b:02x}")).collect();
            format!(
                "[[tokens]]\nname = {name:?}\nsha256 = {digest:?}\nrights = [\"read\"]\ntenants = [{tenant:?}]\n"
            )
        };
        let path = folder.join("access.toml");
        std::fs::write(&path, tokens.iter().map(entry).collect::<String>() + tenants).unwrap();
        let config = config(|config| {
            config.access.file = Some(path);
            change(config);
        });
        Self { server: Server::with(config).await, folder }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A POST with headers; answers status and body.
pub(crate) async fn post(
    server: &Server,
    path: &str,
    headers: &[(&'static str, &str)],
    body: &str,
) -> (u16, String) {
    let url = format!("http://{}{path}", server.running.local_addr());
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    let body = body.to_owned();
    tokio::task::spawn_blocking(move || {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        let mut request = ureq::http::Request::builder().method("POST").uri(url);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let mut response = agent.run(request.body(body).unwrap()).unwrap();
        (response.status().as_u16(), response.body_mut().read_to_string().unwrap())
    })
    .await
    .unwrap()
}

/// Whether the server has counted a call of this name.
pub(crate) async fn has_counted(server: &Server, name: &str) -> bool {
    let (_, metrics) = server.http("GET", "/metrics", "").await;
    metrics.lines().any(|line| line.contains(&format!("method=\"{name}\"")))
}

/// A body's JSON.
pub(crate) fn json(body: &str) -> Value {
    serde_json::from_str(body).unwrap()
}
