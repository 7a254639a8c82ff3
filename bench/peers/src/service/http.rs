//! One connection that stays open, as a router keeps it: little enough that what is timed is the server.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::Context;

/// How long an answer may take.
const CALL: Duration = Duration::from_secs(30);

/// A connection to one server.
pub(super) struct Connection(BufReader<TcpStream>);

/// A request as it goes over the wire.
pub(super) fn request(path: &str, body: &serde_json::Value) -> Vec<u8> {
    let body = body.to_string();
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    );
    (head + &body).into_bytes()
}

impl Connection {
    /// Connects to `host:port`.
    pub(super) fn open(address: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| format!("no connection to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(CALL))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Sends a request and reads the whole answer: its status and body.
    pub(super) fn exchange(&mut self, request: &[u8]) -> anyhow::Result<(u16, Vec<u8>)> {
        self.0.get_mut().write_all(request)?;
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        let status = line.split_ascii_whitespace().nth(1).and_then(|word| word.parse().ok());
        let status = status.with_context(|| format!("{line:?} is no status line"))?;
        let mut length = None;
        loop {
            line.clear();
            self.0.read_line(&mut line)?;
            let Some((name, value)) = line.split_once(':') else { break };
            if name.eq_ignore_ascii_case("content-length") {
                length = Some(value.trim().parse().context("content-length")?);
            }
        }
        let mut body = vec![0; length.context("an answer without content-length")?];
        self.0.read_exact(&mut body)?;
        Ok((status, body))
    }
}
