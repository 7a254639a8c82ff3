//! Whether the engines of static workers are where the configuration says, and speak ZeroMQ there.

use kvindex_server::WorkerDefinition;
use std::io;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::finding::{Finding, Findings};
use super::network::resolve;

/// How long a connection and its first bytes may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// What a ZeroMQ peer says first, before it has heard anything: eight bytes between these two (ZMTP 3.1, greeting).
const SIGNATURE: (u8, u8) = (0xff, 0x7f);

pub(super) async fn examine(workers: &[WorkerDefinition], findings: &mut Findings) {
    for worker in workers {
        let id = &worker.spec.id;
        for stream in &worker.streams {
            let replay = stream.replay_endpoint.iter().map(|endpoint| ("replay_endpoint", endpoint));
            let sockets = [("endpoint", &stream.endpoint)].into_iter().chain(replay);
            for (field, endpoint) in sockets {
                let whose = format!("worker {id}, rank {}: {field} {endpoint}", stream.dp_rank);
                findings.note(socket(field, endpoint, &whose).await);
            }
            if stream.replay_endpoint.is_none() {
                let what = format!("worker {id}, rank {}: has no replay_endpoint", stream.dp_rank);
                let next =
                    "set one where the engine has it: without it a lost batch purges what the stream holds";
                findings.note(Finding::doubtful("engines", what, next));
            }
        }
    }
}

async fn socket(field: &str, endpoint: &str, whose: &str) -> Finding {
    let Some(address) = endpoint.strip_prefix("tcp://").filter(|address| !address.starts_with('*')) else {
        return Finding::skipped("engines", format!("{whose}: nothing to connect to"));
    };
    let found = match resolve(address).await {
        Ok(found) => found,
        Err(reason) => {
            return Finding::wrong("engines", format!("{whose}: {reason}"), format!("correct its {field}"));
        }
    };
    let mut last = String::new();
    for address in found {
        match tokio::time::timeout(PATIENCE, greeting(address)).await {
            Ok(Ok(true)) => return Finding::well("engines", format!("{whose}: speaks ZeroMQ")),
            Ok(Ok(false)) => {
                let next = format!("is {field} the engine's HTTP port? Give its kv-events port");
                return Finding::wrong("engines", format!("{whose}: does not speak ZeroMQ"), next);
            }
            Ok(Err(error)) => last = error.to_string(),
            Err(_) => last = format!("said nothing within {} s, as an HTTP server does", PATIENCE.as_secs()),
        }
    }
    Finding::wrong(
        "engines",
        format!("{whose}: {last}"),
        "start the engine with kv events on (docs/engines.md); a running node tries again and again",
    )
}

async fn greeting(address: std::net::SocketAddr) -> io::Result<bool> {
    let mut stream = TcpStream::connect(address).await?;
    let mut signature = [0; 10];
    match stream.read_exact(&mut signature).await {
        Ok(_) => Ok((signature[0], signature[9]) == SIGNATURE),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}
