//! One HTTP/2 connection of an asker that costs as little as one can: the same framed bytes each time, answers thrown
//! away unread but for their status. What a node can bear is looked for, not what its client can.

use std::time::Duration;

use anyhow::Context;
use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use prost::Message;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::codegen::http::uri::Authority;
use tonic::codegen::http::{HeaderMap, Method, Request, Version};

/// RESOURCE_EXHAUSTED, as gRPC writes it.
const EXHAUSTED: &str = "8";

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Answered,
    Refused,
    /// Failed in another way, or came too late.
    Lost,
}

/// Asks one question again and again.
#[derive(Clone)]
pub(super) struct Asker {
    sender: SendRequest<Bytes>,
    head: Request<()>,
    question: Bytes,
}

/// A message as gRPC frames it.
pub(super) fn framed(message: &impl Message) -> Bytes {
    let mut bytes = BytesMut::with_capacity(message.encoded_len() + 5);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(message.encoded_len()).unwrap_or(u32::MAX));
    bytes.put_slice(&message.encode_to_vec());
    bytes.freeze()
}

impl Asker {
    pub(super) async fn connect(authority: &Authority, question: Bytes) -> anyhow::Result<Self> {
        let socket = TcpStream::connect(authority.as_str()).await?;
        socket.set_nodelay(true)?;
        let (sender, connection) = h2::client::Builder::new()
            .initial_window_size(1 << 20)
            .initial_connection_window_size(1 << 24)
            .handshake(socket)
            .await?;
        tokio::spawn(connection);
        let uri = format!("http://{authority}/kvindex.v1.QueryService/Match");
        let head = Request::builder()
            .method(Method::POST)
            .version(Version::HTTP_2)
            .uri(uri)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())?;
        Ok(Self { sender, head, question })
    }

    pub(super) async fn ask(&mut self, patience: Duration) -> Outcome {
        match timeout(patience, self.call()).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Outcome::Lost,
        }
    }

    async fn call(&mut self) -> anyhow::Result<Outcome> {
        let mut sender = self.sender.clone().ready().await?;
        let (answer, mut body) = sender.send_request(self.head.clone(), false)?;
        // A node that refuses may have said so, and want no body.
        let _ = body.send_data(self.question.clone(), true);
        let answer = answer.await?;
        if let Some(outcome) = outcome(answer.headers()) {
            return Ok(outcome);
        }
        let mut answer = answer.into_body();
        while let Some(data) = answer.data().await {
            answer.flow_control().release_capacity(data?.len())?;
        }
        let trailers = answer.trailers().await?.context("no status")?;
        outcome(&trailers).context("no status")
    }
}

/// What a status among these headers means.
fn outcome(headers: &HeaderMap) -> Option<Outcome> {
    match headers.get("grpc-status")?.to_str().ok()? {
        "0" => Some(Outcome::Answered),
        EXHAUSTED => Some(Outcome::Refused),
        _ => Some(Outcome::Lost),
    }
}
