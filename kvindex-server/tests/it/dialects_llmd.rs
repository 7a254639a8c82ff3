//! llm-d's scores of pods, by its published contract (llm-d/llm-d-kv-cache, api/indexerpb): weighted blocks, for a
//! prompt that comes as text. `cargo test --workspace --test it -- dialects_llmd`

use kvindex_proto::dialects::llmd::indexer_service_client::IndexerServiceClient;
use kvindex_proto::dialects::llmd::{GetPodScoresRequest, PodScore};
use kvindex_proto::v1;
use kvindex_server::App;
use kvindex_server::config::{Config, TokenizerFile};
use kvindex_server::tokenizer::TextTokenizer;
use std::path::{Path, PathBuf};
use tonic::{Code, Request, Status};

use crate::api_server::{BLOCK, Server, batch, config};
use crate::dialects_workers::{Guarded, at, blocks_of, has_counted};

const TEXT: &str = "A router asks which workers hold how long a prefix of a prompt, and the answer must be there before \
                    the prompt is on its way: the blocks that a worker holds need not be computed again by it.";

fn tokenizer() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tokenizer/tokenizer.json")
}

fn served(config: &mut Config) {
    config.dialects.llmd = true;
    config.dialects.tokenizers = vec![TokenizerFile { model: Some("llama".into()), path: tokenizer() }];
}

/// The ids that an engine with the same tokenizer announces.
fn token_ids() -> Vec<u32> {
    let ids = TextTokenizer::open(&tokenizer()).unwrap().token_ids(TEXT).unwrap();
    assert!(ids.len() >= 3 * BLOCK as usize);
    ids
}

async fn ask(
    server: &Server,
    prompt: &str,
    model: &str,
    pods: &[&str],
) -> Result<Vec<(String, f64)>, Status> {
    let url = format!("http://{}", server.running.local_addr());
    let request = GetPodScoresRequest {
        prompt: prompt.into(),
        model_name: model.into(),
        pod_identifiers: pods.iter().map(|pod| (*pod).to_owned()).collect(),
    };
    let answer = IndexerServiceClient::connect(url).await.unwrap().get_pod_scores(request).await?;
    Ok(answer.into_inner().scores.into_iter().map(|PodScore { pod, score }| (pod, score)).collect())
}

/// Pod 3 holds three blocks, two of them in host memory; pod 1 holds one; pod 0 holds none.
async fn filled() -> Server {
    let mut server = Server::with(config(served)).await;
    for (id, address) in [("none", "10.0.0.9:8000"), ("one", "10.0.0.1:8000"), ("three", "10.0.0.3:8000")] {
        at(&mut server, id, address).await;
    }
    let ids = token_ids();
    server.push("one", 0, vec![blocks_of(&ids, 0, 1, "GPU")]).await;
    // One by one: a tier that takes two at once is taken to move its blocks only in pairs.
    let host = [1, 2].map(|block| blocks_of(&ids, block, 1, "CPU"));
    server.push("three", 0, [vec![blocks_of(&ids, 0, 1, "GPU")], host.into()].concat()).await;
    server
}

fn is_near(told: &[(String, f64)], expected: &[(&str, f64)]) -> bool {
    let pairs = told.iter().zip(expected);
    told.len() == expected.len()
        && pairs
            .into_iter()
            .all(|(told, expected)| told.0 == expected.0 && (told.1 - expected.1).abs() < 1e-9)
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_have_the_weight_of_their_blocks() {
    let server = filled().await;
    let both = [("10.0.0.3:8000", 1.0 + 2.0 * 0.8), ("10.0.0.1:8000", 1.0)];
    let told = ask(&server, TEXT, "llama", &[]).await.unwrap();
    assert!(is_near(&told, &both), "{told:?}");
    // Only those that are named; no error for one that nobody knows, no entry for one without the first block.
    let told = ask(&server, TEXT, "llama", &["10.0.0.1:8000", "10.0.0.9:8000", "10.0.0.8:1"]).await.unwrap();
    assert!(is_near(&told, &both[1..]), "{told:?}");
    // Too short for a block, empty, or another prompt.
    for prompt in ["A router", "", &TEXT.replace('A', "B")] {
        assert_eq!(ask(&server, prompt, "llama", &[]).await.unwrap(), [], "{prompt}");
    }
    assert!(has_counted(&server, "llmd_get_pod_scores").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_without_a_tokenizer_is_refused_and_told_what_to_set() {
    let server = filled().await;
    let refused = ask(&server, TEXT, "qwen", &[]).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(
        refused.message().contains("no tokenizer of \"qwen\" here; name one in dialect_llmd_tokenizers"),
        "{refused}"
    );
    assert_eq!(ask(&server, TEXT, "", &[]).await.unwrap_err().code(), Code::InvalidArgument);
    // Beyond what becomes token ids, and beyond what a message may list.
    let long = ask(&server, &"a ".repeat(3 << 20), "llama", &[]).await.unwrap_err();
    assert_eq!(long.code(), Code::ResourceExhausted);
    assert!(long.message().contains("the limit is 524288"), "{long}");
    let many = ask(&server, TEXT, "llama", &["10.0.0.1:1"; 5000]).await.unwrap_err();
    assert_eq!(many.code(), Code::ResourceExhausted);
    assert!(many.message().contains("pod_identifiers"), "{many}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_tokenizer_is_missing_does_not_start() {
    let missing = config(|config| {
        served(config);
        config.dialects.tokenizers[0].path = "/nowhere/tokenizer.json".into();
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let refused = App::start(missing, listener).await.unwrap_err().to_string();
    assert!(refused.starts_with("dialect_llmd_tokenizers: cannot read the tokenizer /nowhere/"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_of_two_sizes_are_not_scored_together() {
    let mut server = filled().await;
    at(&mut server, "coarse", "10.0.0.4:8000").await;
    let coarse = v1::PublishEvent {
        block_hashes: vec![900],
        block_size: 2 * BLOCK,
        ..blocks_of(&token_ids(), 0, 2, "GPU")
    };
    server.ingest.publish(batch("coarse", 1, 0, vec![coarse])).await.unwrap();
    let refused = ask(&server, TEXT, "llama", &[]).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("set dialect_block_size"), "{refused}");
}

/// Asks of model `llama` with a token, unless it is empty.
async fn ask_with(guarded: &Guarded, token: &str, prompt: &str) -> Result<(), Status> {
    let url = format!("http://{}", guarded.server.running.local_addr());
    let asked =
        GetPodScoresRequest { prompt: prompt.into(), model_name: "llama".into(), pod_identifiers: vec![] };
    let mut request = Request::new(asked);
    if !token.is_empty() {
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    IndexerServiceClient::connect(url).await.unwrap().get_pod_scores(request).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_costs_its_length_before_it_is_worked_on() {
    let tenants = "[[tenants]]\nname = \"a\"\nqueries_per_s = 1\nburst = 4\n";
    let guarded = Guarded::limited("llmd-rate", &[("mine", "a")], tenants, |config| {
        served(config);
        config.dialects.tenant = "a".into();
    })
    .await;
    // One question, and one for each 16 KiB.
    let refused = ask_with(&guarded, "mine", &"a ".repeat(32 << 10)).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().starts_with("tenant \"a\" may ask 1 questions a second"), "{refused}");
    assert!(refused.message().contains("5 in one call never fit"), "{refused}");
    // Nothing was taken for it: three for another's 32 KiB are there, and one for the question that is asked with its ids.
    ask_with(&guarded, "mine", &"a ".repeat(16 << 10)).await.unwrap();
}

/// Found by a review: what the tenant had no room for was taken from the token.
#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_the_tenant_has_no_room_for_costs_the_token_nothing() {
    // The first two lines are the token's.
    let limits = "queries_per_s = 1\nburst = 9\n[[tenants]]\nname = \"a\"\nqueries_per_s = 1\nburst = 4\n";
    let guarded = Guarded::limited("llmd-two-rates", &[("mine", "a")], limits, |config| {
        served(config);
        config.dialects.tenant = "a".into();
    })
    .await;
    let refused = ask_with(&guarded, "mine", &"a ".repeat(32 << 10)).await.unwrap_err();
    assert!(refused.message().starts_with("tenant \"a\""), "{refused}");
    // The token has eight left, of which this takes four; with the refused text's five gone it would have three.
    ask_with(&guarded, "mine", &"a ".repeat(16 << 10)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_have_tokens_and_tenants_as_in_native_calls() {
    let guarded = Guarded::with("llmd", &[("mine", "a"), ("theirs", "b")], |config| {
        served(config);
        config.dialects.tenant = "a".into();
    })
    .await;
    for (token, code) in [("mine", Code::Ok), ("theirs", Code::PermissionDenied), ("", Code::Unauthenticated)]
    {
        let refused = ask_with(&guarded, token, TEXT).await.err();
        assert_eq!(refused.map_or(Code::Ok, |status| status.code()), code, "{token}");
    }
    let off = ask(&Server::start().await, TEXT, "llama", &[]).await.unwrap_err();
    assert_eq!(off.code(), Code::Unimplemented);
}
