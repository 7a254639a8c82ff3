//! One plain HTTP request to a node: for its metrics and its readiness.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, StreamOwned};

/// How long a node may take to answer.
const CALL: Duration = Duration::from_secs(2);

/// What opens a door that is locked.
pub(crate) struct Key {
    pub(crate) tls: Arc<ClientConfig>,
    /// The `authorization` header.
    pub(crate) authorization: String,
}

/// Asks a node for a path; the answer's status and body, `None` when there is no answer.
pub(crate) fn get(address: &str, path: &str, key: Option<&Key>) -> Option<(u16, String)> {
    let stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(CALL)).ok()?;
    let authorization =
        key.map(|key| format!("authorization: {}\r\n", key.authorization)).unwrap_or_default();
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{authorization}Connection: close\r\n\r\n");
    let text = match key {
        None => exchange(stream, &request)?,
        Some(key) => {
            let (host, _) = address.rsplit_once(':')?;
            let name = ServerName::try_from(host.to_owned()).ok()?;
            let session = ClientConnection::new(Arc::clone(&key.tls), name).ok()?;
            exchange(StreamOwned::new(session, stream), &request)?
        }
    };
    let status = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
    let (_, body) = text.split_once("\r\n\r\n")?;
    Some((status, body.to_owned()))
}

fn exchange(mut stream: impl Read + Write, request: &str) -> Option<String> {
    stream.write_all(request.as_bytes()).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

/// A metric's value in a page of metrics, by its name with labels.
pub(crate) fn metric(page: &str, name: &str) -> Option<u64> {
    page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}
