//! Spans of calls reach a collector by OTLP, as part of the caller's trace, and never hold what a prompt says.

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::Span;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use tokio_stream::wrappers::TcpListenerStream;

use crate::node::Node;

/// Takes spans as a collector does.
struct Collector(SyncSender<Span>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let resources = request.into_inner().resource_spans.into_iter();
        for span in resources.flat_map(|r| r.scope_spans).flat_map(|scope| scope.spans) {
            self.0.try_send(span).map_err(|_| tonic::Status::resource_exhausted("full"))?;
        }
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

/// Its address, and what it takes.
fn collector() -> (String, Receiver<Span>) {
    let (spans, taken) = sync_channel(1000);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let incoming = TcpListenerStream::new(tokio::net::TcpListener::from_std(listener).unwrap());
            let service = TraceServiceServer::new(Collector(spans));
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming)
                .await
                .unwrap();
        });
    });
    (address, taken)
}

#[test]
fn a_call_is_a_span_of_its_callers_trace() {
    let (address, taken) = collector();
    let node = Node::start(&["--otlp-endpoint", &address, "--trace-share", "0"]);
    let ask = || ureq::post(format!("{}/v1/match", node.server)).header("content-type", "application/json");
    let question = r#"{"prompt": {"model": "secret-model", "token_ids": [4711, 4712]}}"#;
    // Of the share that begins a trace there are none; the caller's decision goes before it.
    let _ = ask().send(question).unwrap();
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let parent = format!("00-{trace}-b7ad6b7169203331-01");
    let _ = ask().header("traceparent", &parent).send(question).unwrap();
    // The end lets go what waits.
    assert!(node.end("-TERM").success());
    let spans: Vec<Span> = taken.try_iter().collect();
    assert_eq!(spans.len(), 1, "{spans:?}");
    let span = &spans[0];
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!((span.name.as_str(), hex(&span.trace_id).as_str()), ("match", trace));
    assert_eq!(hex(&span.parent_span_id), "b7ad6b7169203331");
    let text = format!("{span:?}");
    assert!(text.contains("code") && text.contains("transport"), "{text}");
    assert!(!text.contains("secret-model") && !text.contains("4711"), "{text}");
}
