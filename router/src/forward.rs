//! Requests on their way to an engine, and answers back: bodies are passed on as they come, so a streamed answer is
//! streamed.

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use axum::response::Response;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use std::time::Duration;
use tokio_stream::StreamExt;

use crate::fleet::{Known, Place};

/// How long a connection may take to come about: an engine that is gone is not waited for.
const CONNECT: Duration = Duration::from_millis(500);

/// vLLM's header for the data-parallel rank that is to take a request.
pub(crate) const RANK: HeaderName = HeaderName::from_static("x-data-parallel-rank");

/// What concerns one connection and is not passed on (RFC 9110, 7.6.1), beside what `connection` names.
const HOP_BY_HOP: [HeaderName; 10] = [
    header::HOST,
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::CONTENT_LENGTH,
    header::UPGRADE,
];

/// A client for all engines.
#[derive(Debug, Clone)]
pub(crate) struct Forward {
    client: Client<HttpConnector, Body>,
    /// How long an engine may take until its answer begins.
    patience: Duration,
}

/// An engine that gave no answer.
#[derive(Debug)]
pub(crate) struct Unreached {
    /// How many others may be asked at most. As many as one likes when nothing of the request was sent. One when the
    /// engine said nothing in time: its connection is closed, which is how engines learn that nobody waits any more,
    /// but a request that takes so long would take it at each of them. None when it broke off.
    pub(crate) others: usize,
    pub(crate) reason: String,
}

impl Forward {
    pub(crate) fn new(patience: Duration) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT));
        connector.set_nodelay(true);
        Self { client: Client::builder(TokioExecutor::new()).build(connector), patience }
    }

    /// Sends a request to an engine; answers its head, with its body still to come.
    pub(crate) async fn send(
        &self,
        engine: &Known,
        path: &str,
        headers: &HeaderMap,
        body: Bytes,
        rank: Option<u32>,
    ) -> Result<Response, Unreached> {
        let uri: Uri = format!("http://{}{path}", engine.address).parse().map_err(|error| Unreached {
            others: usize::MAX,
            reason: format!("{} has no usable address ({}): {error}", engine.worker, engine.address),
        })?;
        let mut request = Request::new(Body::from(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers.clone();
        request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(rank) = rank.filter(|_| engine.has_ranks()) {
            request.headers_mut().insert(RANK, HeaderValue::from(rank));
        }
        let answer = tokio::time::timeout(self.patience, self.client.request(request)).await;
        let answer = answer.map_err(|_| Unreached {
            others: 1,
            reason: format!(
                "{} at {} gave no answer within {} s",
                engine.worker,
                engine.address,
                self.patience.as_secs_f64()
            ),
        })?;
        let answer = answer.map_err(|error| Unreached {
            others: if error.is_connect() { usize::MAX } else { 0 },
            reason: format!("{} at {} gave no answer: {error}", engine.worker, engine.address),
        })?;
        let (mut head, body) = answer.into_parts();
        head.headers = passed_on(&head.headers);
        Ok(Response::from_parts(head, Body::new(body)))
    }
}

pub(crate) fn passed_on(headers: &HeaderMap) -> HeaderMap {
    let mut passed = headers.clone();
    let named = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    for name in named.flat_map(|names| names.split(',')) {
        passed.remove(name.trim());
    }
    for name in HOP_BY_HOP {
        passed.remove(name);
    }
    passed
}

/// A body that keeps its request's places at engines until it ends, or its client is gone.
pub(crate) fn holding(response: Response, mut places: Vec<Place>) -> Response {
    response.map(|body| {
        Body::from_stream(body.into_data_stream().map(move |chunk| {
            places.iter_mut().for_each(Place::is_computed);
            chunk
        }))
    })
}
