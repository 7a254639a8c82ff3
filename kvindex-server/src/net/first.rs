//! The first bytes of a connection, looked at without taking them: TLS, HTTP/2 or HTTP/1, and a word to whoever speaks
//! something else than this port does.

use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::tls;

/// What a client begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum First {
    Tls,
    Http2,
    Http1,
}

/// How every HTTP/2 client begins.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Before looking again at a beginning that could still become either. Clients send it in one piece.
const AGAIN: Duration = Duration::from_millis(10);

/// How long a client that is sent away may take to read why.
const FAREWELL: Duration = Duration::from_secs(1);

/// Waits for the first bytes; the caller bounds the wait.
pub(crate) async fn look(stream: &TcpStream) -> io::Result<First> {
    let mut head = [0; PREFACE.len()];
    loop {
        let count = stream.peek(&mut head).await?;
        match recognised(head.get(..count).unwrap_or_default()) {
            Some(first) => return Ok(first),
            None if count == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            None => tokio::time::sleep(AGAIN).await,
        }
    }
}

/// What it is, if these bytes decide it.
fn recognised(head: &[u8]) -> Option<First> {
    match head.first()? {
        &tls::HANDSHAKE => Some(First::Tls),
        _ if head == PREFACE => Some(First::Http2),
        _ if PREFACE.starts_with(head) => None,
        _ => Some(First::Http1),
    }
}

/// Tells a client why it is sent away, in the protocol that it speaks.
pub(crate) async fn send_away(mut stream: TcpStream, speaks: First, why: &str) {
    let words = match speaks {
        First::Http2 => goaway(why),
        // A TLS client finds that this is no TLS, which is what there is to say.
        First::Http1 | First::Tls => {
            let length = why.len() + 1;
            let head = "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close\r\n";
            format!("{head}content-length: {length}\r\n\r\n{why}\n").into_bytes()
        }
    };
    let farewell = async {
        stream.write_all(&words).await?;
        stream.shutdown().await?;
        // Closing with unread bytes would take the words back before they are read.
        let mut rest = [0; 1024];
        while stream.read(&mut rest).await? > 0 {}
        io::Result::Ok(())
    };
    // Whoever does not listen misses it.
    let _ = tokio::time::timeout(FAREWELL, farewell).await;
}

/// HTTP/2's settings, which come first, and its way of saying no: code 12, inadequate security.
fn goaway(why: &str) -> Vec<u8> {
    let mut frames = vec![0, 0, 0, 4, 0, 0, 0, 0, 0];
    let length = u32::try_from(8 + why.len()).unwrap_or(8);
    frames.extend(&length.to_be_bytes()[1..]);
    frames.extend([7, 0, 0, 0, 0, 0]);
    frames.extend([0, 0, 0, 0, 0, 0, 0, 12]);
    frames.extend(why.as_bytes());
    frames
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beginnings_are_recognised_as_soon_as_they_decide() {
        let table: [(&[u8], Option<First>); 9] = [
            (b"", None),
            (b"P", None),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r", None),
            (PREFACE, Some(First::Http2)),
            (b"PO", Some(First::Http1)),
            (b"PRI * HTTP/1.1", Some(First::Http1)),
            (b"GET / HTTP/1.1", Some(First::Http1)),
            (&[0x16, 3, 1], Some(First::Tls)),
            (&[0xff], Some(First::Http1)),
        ];
        for (head, first) in table {
            assert_eq!(recognised(head), first, "{head:?}");
        }
    }
}
