//! The client and a node over TLS: who is served, what the others are told, and a certificate that changes while a
//! stream is open.

use std::time::{Duration, Instant};

use kvindex_client::{Answer, Client, ClientConfig, ConnectError, PromptTokens, UnknownReason, v1};
use kvindex_server::config::{Config, PublicTlsConfig};
use kvindex_server::net::{ClientAuth, Files, Named};
use kvindex_server::{App, Running};

use crate::node::{PATIENT, store, tokens};

#[path = "../../../kvindex-server/tests/it/certificates.rs"]
mod certificates;
use certificates::{Authority, Files as Folder, Signed};

async fn node(folder: Option<&Folder>, clients: bool) -> Running {
    let mut config = Config::defaults();
    config.drain = Duration::from_millis(500);
    config.tls.public = folder.map(|folder| {
        let named = |key, file| Named::new(key, folder.path(file));
        let ca = clients.then(|| named("tls_client_ca", "ca.pem"));
        let files = Files { cert: named("tls_cert", "cert.pem"), key: named("tls_key", "key.pem"), ca };
        PublicTlsConfig { files, client_auth: ClientAuth::Require }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    App::start(config, listener).await.unwrap()
}

fn config(scheme: &str, node: &Running) -> ClientConfig {
    let server = format!("{scheme}://{}", node.local_addr());
    ClientConfig::new(server).routing_timeout(PATIENT).admin_timeout(PATIENT)
}

/// What a call says; empty for an answer.
async fn said(config: ClientConfig) -> String {
    let client = Client::connect(config).unwrap();
    client
        .list_workers(v1::ListWorkersRequest::default())
        .await
        .map_or_else(|error| error.to_string(), |_| String::new())
}

fn shows(config: ClientConfig, signed: &Signed) -> ClientConfig {
    config.client_certificate(signed.cert.as_str(), signed.key.as_str())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_trusts_the_node_is_served_and_others_learn_why_not() {
    let (ca, other) = (Authority::new("ca"), Authority::new("other"));
    let folder = Folder::of(&ca.sign(&["127.0.0.1", "index.test"]), &ca);
    let node = node(Some(&folder), false).await;
    let https = config("https", &node);
    let client = Client::connect(https.clone().ca(ca.pem.as_str())).unwrap();
    store(&client, "w-0", 3).await;
    let prompt = PromptTokens::new("llama", &tokens(48));
    assert!(matches!(client.match_tokens(&prompt).await, Answer::Known(answer) if answer.workers.len() == 1));
    let trusting = https.clone().ca(ca.pem.as_str());
    assert_eq!(said(trusting.clone().server_name("index.test")).await, "");
    let wrong_name = said(trusting.server_name("elsewhere.test")).await;
    assert!(wrong_name.contains("for another name") && wrong_name.contains("index.test"), "{wrong_name}");
    let wrong_ca = said(https.ca(other.pem.as_str())).await;
    assert!(wrong_ca.contains("not signed by this CA"), "{wrong_ca}");
    let plain = said(config("http", &node)).await;
    assert!(plain.contains("use https://"), "{plain}");
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_demands_certificates_serves_only_its_cas_own() {
    let (ca, other) = (Authority::new("ca"), Authority::new("other"));
    let folder = Folder::of(&ca.sign(&["127.0.0.1"]), &ca);
    let node = node(Some(&folder), true).await;
    let https = config("https", &node).ca(ca.pem.as_str());
    assert_eq!(said(shows(https.clone(), &ca.sign(&["router"]))).await, "");
    let none = said(https.clone()).await;
    assert!(none.contains("client certificate"), "{none}");
    let foreign = said(shows(https.clone(), &other.sign(&["router"]))).await;
    assert!(foreign.contains("client certificate"), "{foreign}");
    let old = said(shows(https, &ca.sign_until(&["router"], (2021, 1, 1)))).await;
    assert!(old.contains("client certificate"), "{old}");
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn https_to_a_node_without_is_told_so() {
    let ca = Authority::new("ca");
    let node = node(None, false).await;
    let text = said(config("https", &node).ca(ca.pem.as_str())).await;
    assert!(text.contains("does not speak TLS there: use http://"), "{text}");
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_stream_outlives_a_new_certificate_which_new_connections_get() {
    let (ca, next) = (Authority::new("ca"), Authority::new("next"));
    let folder = Folder::of(&ca.sign(&["127.0.0.1"]), &ca);
    let node = node(Some(&folder), false).await;
    let client = Client::connect(config("https", &node).ca(ca.pem.as_str())).unwrap();
    store(&client, "w-0", 3).await;
    let mut stream = client.match_stream();
    let mut ask = async || {
        stream.send((&PromptTokens::new("llama", &tokens(48))).into()).await;
        stream.next().await.unwrap().answer
    };
    assert!(matches!(ask().await, Answer::Known(_)));
    folder.put(&next.sign(&["127.0.0.1"]));
    let deadline = Instant::now() + Duration::from_secs(10);
    while !said(config("https", &node).ca(next.pem.as_str())).await.is_empty() {
        assert!(Instant::now() < deadline, "the new certificate is not taken");
        assert!(matches!(ask().await, Answer::Known(_)), "questions go on meanwhile");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(matches!(ask().await, Answer::Known(_)), "the stream is the old connection's");
    assert!(said(config("https", &node).ca(ca.pem.as_str())).await.contains("not signed by this CA"));
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_used_is_refused_when_connecting() {
    let ca = Authority::new("ca");
    let refused = |config: ClientConfig, part: &str| {
        let error = Client::connect(config).unwrap_err();
        assert!(error.to_string().contains(part), "{part:?} in {error}");
        error
    };
    refused(ClientConfig::new("https://127.0.0.1:1"), "needs the CA");
    refused(ClientConfig::new("http://127.0.0.1:1").ca(ca.pem.as_str()), "with https:// only");
    let keyless = ClientConfig::new("https://127.0.0.1:1").ca(ca.pem.as_str());
    let error = refused(keyless.client_certificate(ca.pem.as_str(), "no key"), "certificates:");
    assert!(matches!(error, ConnectError::Certificates { .. }));
    // A key is not shown by accident.
    let signed = ca.sign(&["router"]);
    let printed = format!("{:?}", shows(ClientConfig::new("https://x:1"), &signed));
    assert!(
        !printed.contains("PRIVATE") && !printed.contains(signed.key.lines().nth(1).unwrap()),
        "{printed}"
    );
    // A routing call fails open, as always.
    let client = Client::connect(ClientConfig::new("https://[::1]:1").ca(ca.pem.as_str())).unwrap();
    let answer = client.match_tokens(&PromptTokens::new("llama", &[1])).await;
    let unknown = matches!(
        &answer,
        Answer::Unknown { reason: UnknownReason::Unreachable { .. } | UnknownReason::TimedOut { .. } }
    );
    assert!(unknown, "{answer:?}");
}
