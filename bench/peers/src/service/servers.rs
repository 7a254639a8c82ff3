//! The two servers, each a process of its own on loopback.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, ensure};
use dynamo_kv_router::services::indexer::server::{AppState, create_router};
use kvindex_recording::EngineEndpoints;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::answer::Answer;
use super::http::{Connection, request};
use crate::machine::resident_of;

/// A running server; killed when dropped.
pub(super) struct Server {
    name: &'static str,
    child: Child,
    connection: Connection,
}

/// kvindex and Dynamo's, which are told and asked the same.
pub(super) struct Pair {
    pub(super) ours: Server,
    pub(super) theirs: Server,
}

/// How an engine is registered beside what its sockets say.
pub(super) struct Place<'a> {
    pub(super) instance: u64,
    pub(super) model: &'a str,
    pub(super) block_size: u32,
    /// What the dialect reads and Dynamo ignores.
    pub(super) engine: &'a str,
}

impl Server {
    fn start(name: &'static str, command: &mut Command) -> anyhow::Result<Self> {
        let started = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child =
            started.with_context(|| format!("{name}: {:?} does not start", command.get_program()))?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no output")?).read_line(&mut line)?;
        // Both end their first line with where they listen.
        let address = line.trim().rsplit("://").next().unwrap_or_default();
        let connection = Connection::open(address).with_context(|| format!("{name} said {line:?}"));
        if connection.is_err() {
            let _ = child.kill();
        }
        Ok(Self { name, child, connection: connection? })
    }

    fn post(&mut self, path: &str, body: &Value, wanted: u16) -> anyhow::Result<()> {
        let (status, answer) = self.connection.exchange(&request(path, body))?;
        let said = String::from_utf8_lossy(&answer);
        ensure!(status == wanted, "{}: {path} with {body} is {status} {said}", self.name);
        Ok(())
    }

    /// The whole answer to a question, unread: what is timed.
    pub(super) fn exchange(&mut self, question: &[u8]) -> anyhow::Result<(u16, Vec<u8>)> {
        self.connection.exchange(question)
    }

    /// The answer to a question, in the one shape it may have.
    pub(super) fn ask(&mut self, question: &[u8]) -> anyhow::Result<Answer> {
        let (status, body) = self.exchange(question)?;
        let said = || format!("{}: {status} {}", self.name, String::from_utf8_lossy(&body));
        ensure!(status == 200, said());
        serde_json::from_slice(&body).with_context(said)
    }

    fn resident(&self) -> i64 {
        resident_of(&self.child.id().to_string())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Pair {
    /// Starts both.
    pub(super) fn start(kvindex: &Path, threads: usize) -> anyhow::Result<Self> {
        let mut ours = Command::new(kvindex);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("KVINDEX_") {
                ours.env_remove(name);
            }
        }
        ours.args(["serve", "--listen", "127.0.0.1:0", "--log-filter", "error", "--dialect-dynamo", "true"]);
        let mut theirs = Command::new(std::env::current_exe()?);
        theirs.args(["dynamo-server", "--threads", &threads.to_string()]);
        Ok(Self { ours: Server::start("kvindex", &mut ours)?, theirs: Server::start("Dynamo", &mut theirs)? })
    }

    fn both(&mut self) -> [&mut Server; 2] {
        [&mut self.ours, &mut self.theirs]
    }

    /// Lets both follow an engine, by the same request.
    pub(super) fn register(&mut self, engine: &EngineEndpoints, place: &Place<'_>) -> anyhow::Result<()> {
        let body = json!({"instance_id": place.instance, "endpoint": engine.publish, "model_name": place.model,
            "block_size": place.block_size, "dp_rank": engine.dp_rank, "replay_endpoint": engine.replay,
            "type": place.engine});
        self.both().into_iter().try_for_each(|server| server.post("/register", &body, 201))
    }

    /// Lets both forget an instance with all its ranks.
    pub(super) fn unregister(&mut self, instance: u64, model: &str) -> anyhow::Result<()> {
        let body = json!({"instance_id": instance, "model_name": model});
        self.both().into_iter().try_for_each(|server| server.post("/unregister", &body, 200))
    }

    /// Bytes of both processes in memory.
    pub(super) fn resident(&self) -> [i64; 2] {
        [&self.ours, &self.theirs].map(Server::resident)
    }

    /// What both answer to one question, kvindex first.
    pub(super) fn ask(&mut self, question: &[u8]) -> anyhow::Result<[Answer; 2]> {
        Ok([self.ours.ask(question)?, self.theirs.ask(question)?])
    }
}

/// The child's part: Dynamo's server as its own start routine sets it up, but on loopback and a port that the
/// system chooses. Ends with whoever started it.
pub(crate) fn dynamo(threads: usize) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async move {
        let state = Arc::new(AppState::new(threads)?);
        state.registry.signal_ready();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("listening on http://{}", listener.local_addr()?);
        std::thread::spawn(|| {
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            std::process::exit(0);
        });
        axum::serve(listener, create_router(state)).await?;
        Ok(())
    })
}
