//! Tests of worker definitions.
#![allow(clippy::unwrap_used)]

use super::*;

fn raw() -> RawWorker {
    RawWorker { worker_id: "vllm-0".into(), model: "llama".into(), ..RawWorker::default() }
}

fn error_of(raw: RawWorker) -> FieldError {
    raw.check(GapPolicy::Purge).unwrap_err()
}

#[test]
fn defaults_are_filled_in() {
    let definition = raw().check(GapPolicy::KeepAsSuspect).unwrap();
    assert_eq!(definition.spec.tenant, DEFAULT_TENANT);
    assert_eq!(definition.spec.engine, EngineKind::Vllm);
    assert_eq!(definition.gap_policy, GapPolicy::KeepAsSuspect);
    assert!(definition.streams.is_empty());
}

#[test]
fn errors_name_the_field() {
    assert_eq!(error_of(RawWorker { worker_id: String::new(), ..raw() }).field, "worker_id");
    assert_eq!(error_of(RawWorker { model: String::new(), ..raw() }).field, "model");
    let engine = error_of(RawWorker { engine: "tgi".into(), ..raw() });
    assert_eq!((engine.field.as_str(), engine.message.contains("vllm, sglang")), ("engine", true));
    assert_eq!(error_of(RawWorker { copies: "many".into(), ..raw() }).field, "copies");
    assert_eq!(error_of(RawWorker { gap_policy: "hope".into(), ..raw() }).field, "gap_policy");
    let labels = [("a\nb".to_owned(), "c".to_owned())].into();
    assert_eq!(error_of(RawWorker { labels, ..raw() }).field, "labels");
}

#[test]
fn streams_are_listed_or_computed_not_both() {
    let streams = vec![RawStream { endpoint: "tcp://h:1".into(), ..RawStream::default() }];
    let both = RawWorker { streams: streams.clone(), endpoint: "tcp://h:9".into(), ..raw() };
    assert_eq!(error_of(both).field, "endpoint");
    let definition = RawWorker { streams, ..raw() }.check(GapPolicy::Purge).unwrap();
    assert_eq!(definition.streams[0].endpoint, "tcp://h:1");
    let computed = RawWorker { endpoint: "tcp://h:9".into(), ..raw() }.check(GapPolicy::Purge).unwrap();
    assert_eq!((computed.streams.len(), computed.streams[0].endpoint.as_str()), (1, "tcp://h:9"));
}

#[test]
fn differences_name_both_values() {
    let first = RawWorker { address: Some("10.0.0.1:8000".into()), ..raw() }.check(GapPolicy::Purge).unwrap();
    let second =
        RawWorker { address: Some("10.0.0.2:8000".into()), ..raw() }.check(GapPolicy::Purge).unwrap();
    assert_eq!(first.differences(&second), [r#"address is "10.0.0.1:8000", not "10.0.0.2:8000""#]);
    assert!(first.differences(&first).is_empty());
    assert!(first.keeps_blocks_of(&second));
    let sglang = RawWorker { engine: "sglang".into(), ..raw() }.check(GapPolicy::Purge).unwrap();
    assert!(!first.keeps_blocks_of(&sglang));
}
