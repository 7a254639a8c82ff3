//! One plain HTTP request to a node: for its metrics and its readiness.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// How long a node may take to answer.
const CALL: Duration = Duration::from_secs(2);

/// Asks a node for a path; the answer's status and body, `None` when there is no answer.
#[must_use]
pub fn get(address: &str, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(CALL)).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let status = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
    let (_, body) = text.split_once("\r\n\r\n")?;
    Some((status, body.to_owned()))
}

/// One of a node's metrics by its name, labels included; `None` when the node does not answer or has none of that name.
#[must_use]
pub fn metric(address: &str, name: &str) -> Option<u64> {
    let (_, text) = get(address, "/metrics")?;
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}
