//! A hash profile is checked against a real publisher's events, and a wrong one is loud wherever a caller looks.

use std::time::Duration;

use kvindex_proto::v1;
use kvindex_recording::{Publisher, PublisherOptions};

use crate::api_server::{Server, worker};
use crate::ingest_rig::recording;

fn profile(algorithm: &str, hash_seed: Option<&str>) -> Option<v1::HashProfile> {
    let hash_seed = hash_seed.map(str::to_owned);
    Some(v1::HashProfile { algorithm: algorithm.into(), hash_seed, none_hash: None })
}

async fn streams(server: &mut Server) -> Vec<v1::WorkerStream> {
    let listed = server.query.list_workers(v1::ListWorkersRequest::default()).await.unwrap().into_inner();
    listed.workers.into_iter().flat_map(|worker| worker.streams).collect()
}

async fn until(server: &mut Server, checks: &[&str]) -> Vec<v1::WorkerStream> {
    for _ in 0..400 {
        let streams = streams(server).await;
        let live = |s: &v1::WorkerStream| s.trust.as_ref().is_some_and(|t| t.state() == v1::TrustState::Live);
        if streams.iter().all(live)
            && streams.iter().map(|s| s.hash_check.as_str()).eq(checks.iter().copied())
        {
            return streams;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("not {checks:?} after 10 s: {:?}", streams(server).await);
}

fn reason(stream: &v1::WorkerStream) -> &str {
    &stream.trust.as_ref().unwrap().reason
}

/// Three workers, all one engine: with the right profile, a wrong one and none.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_profile_is_loud_and_a_right_one_is_told() {
    let publisher = Publisher::start(recording("basic"), PublisherOptions::default()).unwrap();
    let engine = publisher.endpoints()[0].clone();
    let mut server = Server::start().await;
    let definition = |id: &str, hash_profile| v1::RegisterRequest {
        endpoint: engine.publish.clone(),
        replay_endpoint: engine.replay.clone(),
        engine_version: Some("0.33.0".into()),
        hash_profile,
        ..worker(id)
    };
    publisher.play_all().unwrap();
    let registered = [profile("sha256", None), profile("sha256", Some("0")), None];
    for (id, hash_profile) in ["a-right", "b-wrong", "c-none"].into_iter().zip(registered) {
        server.register_as(definition(id, hash_profile)).await;
    }

    let listed = until(&mut server, &["matches", "differs", "unchecked"]).await;
    assert_eq!((reason(&listed[0]), reason(&listed[2])), ("", ""));
    assert!(reason(&listed[1]).contains("hash_profile"), "{:?}", listed[1]);
    let (_, metrics) = server.http("GET", "/metrics", "").await;
    for state in ["matches", "differs", "unchecked"] {
        let line = format!("kvindex_ingest_hash_checks{{state=\"{state}\"}} 1");
        assert!(metrics.contains(&line), "{line} is not in\n{metrics}");
    }
    // Every answer about the worker says it, and by tokens it is right all the same.
    let prompt = recording_prompt();
    let answer = server.find(prompt).await;
    let of = |id: &str| answer.workers.iter().find(|worker| worker.worker_id == id).unwrap();
    assert!(of("a-right").matched_blocks > 0);
    assert_eq!(of("b-wrong").matched_blocks, of("a-right").matched_blocks);
    assert!(of("b-wrong").trust.as_ref().unwrap().reason.contains("hash_profile"));

    // Mended: the stream is followed anew, and the replay shows the new profile what the old one saw.
    let mended = v1::RegisterRequest { replace: true, ..definition("b-wrong", profile("sha256", None)) };
    assert_eq!(server.ingest.register(mended).await.unwrap().into_inner().outcome, "replaced");
    let listed = until(&mut server, &["matches", "matches", "unchecked"]).await;
    assert_eq!(reason(&listed[1]), "");
    assert!(listed[1].blocks > 0);
}

/// The tokens of a prompt that the recorded engine holds at the end.
fn recording_prompt() -> v1::Prompt {
    let cases = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../recording/cases");
    let last = kvindex_recording::Truth::open(&cases.join("basic")).unwrap().last().unwrap().unwrap();
    let plain = |query: &&kvindex_recording::Query| {
        query.lora.is_none() && query.salt.is_none() && query.mm.is_empty() && query.engines[0].hit_tokens > 0
    };
    let token_ids = last.queries.iter().find(plain).unwrap().tokens.clone();
    v1::Prompt { model: "llama".into(), token_ids, ..v1::Prompt::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_that_cannot_be_is_refused_by_field() {
    let mut server = Server::start().await;
    let old = Some("0.20.2".to_owned());
    let sglang = "sglang".to_owned();
    let base = worker("a");
    for (request, field) in [
        (
            v1::RegisterRequest { hash_profile: profile("md5", None), ..base.clone() },
            "hash_profile.algorithm",
        ),
        (
            v1::RegisterRequest { hash_profile: profile("", Some("1")), ..base.clone() },
            "hash_profile.algorithm",
        ),
        (
            v1::RegisterRequest { hash_profile: profile("sglang", None), ..base.clone() },
            "hash_profile.algorithm",
        ),
        (
            v1::RegisterRequest { engine: sglang, hash_profile: profile("sha256", None), ..base.clone() },
            "hash_profile.algorithm",
        ),
        (
            v1::RegisterRequest { hash_profile: profile("xxhash", None), ..base.clone() },
            "hash_profile.hash_seed",
        ),
        (
            v1::RegisterRequest {
                engine_version: old,
                hash_profile: profile("sha256", None),
                ..base.clone()
            },
            "hash_profile.hash_seed",
        ),
        (
            v1::RegisterRequest { hash_profile: profile("sha256", Some("x")), ..base.clone() },
            "hash_profile.hash_seed",
        ),
    ] {
        let error = server.ingest.register(request).await.unwrap_err();
        assert_eq!(error.code(), tonic::Code::InvalidArgument);
        assert!(error.message().starts_with(&format!("{field}: ")), "{field}: {}", error.message());
    }
    server.register_as(v1::RegisterRequest { hash_profile: profile("", None), ..base.clone() }).await;
    let with_profile = v1::RegisterRequest { hash_profile: profile("sha256", None), ..base };
    let error = server.ingest.register(with_profile).await.unwrap_err();
    assert!(error.message().contains("hash_profile is null"), "the difference is named: {}", error.message());
}
