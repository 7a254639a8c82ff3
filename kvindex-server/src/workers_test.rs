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
fn ranks_are_spread_over_ports() {
    let definition = RawWorker {
        endpoint: "tcp://h:5557".into(),
        replay_endpoint: "tcp://h:5657".into(),
        data_parallel_size: 2,
        topic: "kv".into(),
        ..raw()
    }
    .check(GapPolicy::Purge)
    .unwrap();
    let second = &definition.streams[1];
    assert_eq!((second.endpoint.as_str(), second.topic.as_str()), ("tcp://h:5558", "kv"));
    assert_eq!(second.replay_endpoint.as_deref(), Some("tcp://h:5658"));
}

#[test]
fn colliding_port_ranges_are_refused_and_both_named() {
    let error = error_of(RawWorker {
        endpoint: "tcp://h:5557".into(),
        replay_endpoint: "tcp://h:5558".into(),
        data_parallel_size: 2,
        ..raw()
    });
    assert_eq!(error.field, "replay_endpoint");
    for part in ["tcp://h:5557 to tcp://h:5558", "tcp://h:5558 to tcp://h:5559"] {
        assert!(error.message.contains(part), "{error}");
    }
}

#[test]
fn listed_streams_must_not_share_ranks_or_ports() {
    let stream = |dp_rank, port: u16| RawStream {
        dp_rank,
        endpoint: format!("tcp://h:{port}"),
        ..RawStream::default()
    };
    let twice = error_of(RawWorker { streams: vec![stream(0, 1), stream(0, 2)], ..raw() });
    assert_eq!(twice.field, "streams[1].dp_rank");
    let shared = error_of(RawWorker { streams: vec![stream(0, 1), stream(1, 1)], ..raw() });
    assert!(shared.message.contains("streams[0].endpoint"), "{shared}");
    let high = error_of(RawWorker { streams: vec![stream(MAX_DP_RANKS, 1)], ..raw() });
    assert!(high.message.contains(&(MAX_DP_RANKS - 1).to_string()), "{high}");
    let both = RawWorker { streams: vec![stream(0, 1)], endpoint: "tcp://h:9".into(), ..raw() };
    assert_eq!(error_of(both).field, "endpoint");
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
