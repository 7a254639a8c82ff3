//! SGLang's KV indexer as its router calls it: names, bytes and codes of its published contract
//! (sgl-project/sglang, experimental/sgl-router/sgl-kv-indexer). `cargo test --workspace --test it -- dialects_sglang`

use axum::body::Body;
use hyper_util::rt::{TokioExecutor, TokioIo};
use kvindex_proto::dialects::sglang::kv_indexer_client::KvIndexerClient;
use kvindex_proto::dialects::sglang::{
    MatchExternalKvPrefixRequest, MatchExternalKvPrefixResponse, NotServed,
};
use kvindex_proto::v1;
use kvindex_server::config::Config;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::api_server::{BLOCK, Server, config, tokens, worker};
use crate::dialects_workers::{Guarded, at, blocks_of, has_counted};

fn served(config: &mut Config) {
    config.dialects.sglang = true;
    config.dialects.model = "llama".into();
    config.dialects.block_size = BLOCK;
}

async fn client(server: &Server) -> KvIndexerClient<Channel> {
    KvIndexerClient::connect(format!("http://{}", server.running.local_addr())).await.unwrap()
}

/// Worker `three` holds three blocks, the last two of them in host memory, and a fourth in a pool; `one` holds one;
/// `nowhere` has no address.
async fn filled() -> Server {
    let mut server = Server::with(config(served)).await;
    at(&mut server, "one", "10.0.0.1:30000").await;
    at(&mut server, "three", "10.0.0.3:30000").await;
    at(&mut server, "nowhere", "").await;
    let ids = tokens(4 * BLOCK);
    server.push("one", 0, vec![blocks_of(&ids, 0, 1, "GPU")]).await;
    server.push("nowhere", 0, vec![blocks_of(&ids, 0, 2, "GPU")]).await;
    let lower = [
        blocks_of(&ids, 0, 1, "GPU"),
        blocks_of(&ids, 1, 1, "CPU"),
        blocks_of(&ids, 2, 1, "CPU"),
        blocks_of(&ids, 3, 1, "EXTERNAL"),
    ];
    server.push("three", 0, lower.into()).await;
    server
}

async fn ask(
    server: &Server,
    hashes: &[i64],
    max_blocks: u32,
) -> Result<MatchExternalKvPrefixResponse, Status> {
    let request = MatchExternalKvPrefixRequest { hashes: hashes.to_vec(), max_blocks };
    Ok(client(server).await.match_external_kv_prefix(request).await?.into_inner())
}

fn matches(answer: &MatchExternalKvPrefixResponse) -> Vec<(&str, u32, &str)> {
    let each = answer.matches.iter();
    each.map(|m| (&*m.worker_address, m.matched_prefix_blocks, &*m.worker_id)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn prefixes_come_longest_first_by_the_urls_that_routers_know() {
    let server = filled().await;
    let answer = ask(&server, &[100, 101, 102, 103], 0).await.unwrap();
    let both = [("http://10.0.0.3:30000", 3, "three"), ("http://10.0.0.1:30000", 1, "one")];
    assert_eq!(matches(&answer), both);
    assert_eq!((answer.best_prefix_blocks, answer.blocks_read), (3, 4));
    let cut = ask(&server, &[100, 101, 102, 103], 2).await.unwrap();
    assert_eq!((matches(&cut)[0].1, cut.best_prefix_blocks, cut.blocks_read), (2, 2, 2));
    let nobody = ask(&server, &[7, 100], 0).await.unwrap();
    assert_eq!((matches(&nobody), nobody.best_prefix_blocks, nobody.blocks_read), (vec![], 0, 1));
    assert!(has_counted(&server, "sglang_match_prefix").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn hashes_are_signed_and_may_be_very_many() {
    let mut server = filled().await;
    let negative = v1::PublishEvent {
        block_hashes: vec![(-7i64).cast_unsigned()],
        ..blocks_of(&(1000..1016).collect::<Vec<_>>(), 0, 1, "GPU")
    };
    server.push("one", 1, vec![negative]).await;
    assert_eq!(matches(&ask(&server, &[-7], 0).await.unwrap()), [("http://10.0.0.1:30000", 1, "one")]);
    // More than their limit of the calls that we do not serve; this one has none.
    let many: Vec<i64> = (100..103).chain(1_000_000..1_020_000).collect();
    let answer = ask(&server, &many, 0).await.unwrap();
    assert_eq!((answer.best_prefix_blocks, answer.blocks_read), (3, 20_003));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rank_beside_another_and_a_label_instead_of_an_address() {
    let mut server = Server::with(config(served)).await;
    let ids = tokens(3 * BLOCK);
    at(&mut server, "rank0", "10.0.0.1:30000").await;
    at(&mut server, "rank1", "10.0.0.1:30000").await;
    let labels = [("kvindex.io/url".to_owned(), "grpc://far:1".to_owned())].into();
    server.register_as(v1::RegisterRequest { labels, ..worker("far") }).await;
    server.push("rank0", 0, vec![blocks_of(&ids, 0, 1, "GPU")]).await;
    server.push("rank1", 0, vec![blocks_of(&ids, 0, 3, "GPU")]).await;
    server.push("far", 0, vec![blocks_of(&ids, 0, 2, "GPU")]).await;
    let answer = ask(&server, &[100, 101, 102], 0).await.unwrap();
    assert_eq!(matches(&answer), [("http://10.0.0.1:30000", 3, "rank1"), ("grpc://far:1", 2, "far")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_out_of_range_and_what_is_empty_invalid() {
    let server = filled().await;
    let empty = ask(&server, &[], 0).await.unwrap_err();
    assert_eq!((empty.code(), empty.message()), (Code::InvalidArgument, "hashes must not be empty"));
    let small = Server::with(config(|config| {
        served(config);
        config.limits.body_bytes = 4096;
        config.limits.prompt_tokens = 64;
    }))
    .await;
    let long = ask(&small, &[1, 2, 3, 4, 5], 0).await.unwrap_err();
    assert_eq!(long.code(), Code::OutOfRange, "{long}");
    assert!(long.message().contains("80 tokens, the limit is 64"), "{long}");
    assert_eq!(ask(&small, &[7; 1000], 0).await.unwrap_err().code(), Code::OutOfRange);
    assert_eq!(ask(&small, &[1, 2, 3, 4, 5], 4).await.unwrap().blocks_read, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_are_not_served_say_so() {
    let server = filled().await;
    let mut client = client(&server).await;
    for (name, answer) in [
        ("MatchExternalKv", client.match_external_kv(NotServed {}).await),
        ("GetExternalKvHitCounts", client.get_external_kv_hit_counts(NotServed {}).await),
        ("ApplyExternalKvBatch", client.apply_external_kv_batch(NotServed {}).await),
    ] {
        let status = answer.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented, "{name}");
        assert!(status.message().starts_with(&format!("{name} is not served: ")), "{status}");
    }
    // Their messages end where those of other calls without a prompt do. Field 15, of so many bytes.
    let path = "/kv_indexer.v1.KVIndexer/ApplyExternalKvBatch";
    for (bytes, length, code) in [(1 << 14, [0x80, 0x80, 0x01], "12"), (1 << 20, [0x80, 0x80, 0x40], "8")] {
        let message = [&[0x7a][..], &length, &vec![0; bytes]].concat();
        assert_eq!(raw(&server, path, &[], &message).await.0, code, "{bytes}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_served_without_the_switch() {
    let status = ask(&Server::start().await, &[100], 0).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented, "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_have_tokens_and_tenants_as_in_native_calls() {
    let guarded = Guarded::with("sglang", &[("mine", "a"), ("theirs", "b")], |config| {
        served(config);
        config.dialects.tenant = "a".into();
    })
    .await;
    let asked = |token: &'static str| {
        let server = &guarded.server;
        async move {
            let mut request = Request::new(MatchExternalKvPrefixRequest { hashes: vec![1], max_blocks: 0 });
            if !token.is_empty() {
                request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
            }
            client(server).await.match_external_kv_prefix(request).await.map_err(|status| status.code())
        }
    };
    assert!(asked("mine").await.is_ok());
    assert_eq!(asked("theirs").await.unwrap_err(), Code::PermissionDenied);
    assert_eq!(asked("").await.unwrap_err(), Code::Unauthenticated);
}

/// The bytes and headers of the contract, written by hand; answers `grpc-status` and the message's bytes.
async fn raw(server: &Server, path: &str, headers: &[(&str, &str)], message: &[u8]) -> (String, Vec<u8>) {
    let stream = tokio::net::TcpStream::connect(server.running.local_addr()).await.unwrap();
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let body = [&[0][..], &length, message].concat();
    let uri = format!("http://{}{path}", server.running.local_addr());
    let mut request =
        hyper::Request::post(uri).header("content-type", "application/grpc").header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = sender.send_request(request.body(Body::from(body)).unwrap()).await.unwrap();
    let status = |headers: &hyper::HeaderMap| Some(headers.get("grpc-status")?.to_str().unwrap().to_owned());
    if let Some(status) = status(response.headers()) {
        return (status, Vec::new());
    }
    // The trailers say 0 where there is a message, and nothing else where there is none.
    let body = axum::body::to_bytes(Body::new(response.into_body()), 1 << 20).await.unwrap();
    (if body.is_empty() { "none".into() } else { "0".into() }, body.to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bytes_and_the_path_are_those_of_the_contract() {
    let server = filled().await;
    let path = "/kv_indexer.v1.KVIndexer/MatchExternalKvPrefix";
    // Field 1, packed: 100 and 101 as eight bytes each, little end first; field 2: 1.
    let message = [&[0x0a, 16, 100][..], &[0; 7], &[101], &[0; 7], &[0x10, 1]].concat();
    let (status, body) = raw(&server, path, &[], &message).await;
    assert_eq!(status, "0");
    let one = |address: &[u8], id: &[u8]| {
        let inner =
            [&[0x0a, 21][..], address, &[0x10, 1, 0x1a, u8::try_from(id.len()).unwrap()], id].concat();
        [&[0x0a, u8::try_from(inner.len()).unwrap()][..], &inner].concat()
    };
    let told = [one(b"http://10.0.0.1:30000", b"one"), one(b"http://10.0.0.3:30000", b"three")].concat();
    assert_eq!(body[5..], [&told[..], &[0x10, 1, 0x18, 1]].concat());
    // Whose time is over is not worked for.
    assert_eq!(raw(&server, path, &[("grpc-timeout", "0n")], &message).await.0, "4");
    assert_eq!(raw(&server, path, &[("grpc-timeout", "10S")], &message).await.0, "0");
}
