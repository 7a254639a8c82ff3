//! A node with certificates, as operators start it and people ask it.

use crate::node::{Folder, Node, kvindex, run};

#[path = "../../../kvindex-server/tests/it/certificates.rs"]
pub(crate) mod certificates;
use certificates::{Authority, Files};

#[test]
fn a_node_is_asked_over_tls_with_a_client_certificate() {
    let ca = Authority::new("ca");
    let files = Files::of(&ca.sign(&["127.0.0.1"]), &ca);
    let (cert, key, ca_file) = (files.text("cert.pem"), files.text("key.pem"), files.text("ca.pem"));
    let flags = ["--tls-cert", &cert, "--tls-key", &key, "--tls-client-ca", &ca_file];
    let node = Node::start(&flags);
    assert!(node.server.starts_with("https://127.0.0.1:"), "{}", node.server);
    let identity = ["--client-cert", &cert, "--client-key", &key];
    let out = node.ok(&[&["workers", "--ca", &ca_file], &identity[..]].concat());
    assert!(out.contains("no workers") || out.contains("WORKER"), "{out}");
    // By the environment.
    let mut asks = kvindex(&["workers", "--server", &node.server]);
    asks.env("KVINDEX_CA", &ca_file).env("KVINDEX_CLIENT_CERT", &cert).env("KVINDEX_CLIENT_KEY", &key);
    assert!(asks.output().unwrap().status.success());
    let (code, _, err) = node.run(&["workers", "--ca", &ca_file]);
    assert!(code == 3 && err.contains("client certificate"), "{code}: {err}");
    let other = Files::of(&ca.sign(&["x"]), &Authority::new("other"));
    let (code, _, err) = node.run(&["workers", "--ca", &other.text("ca.pem")]);
    assert!(code == 3 && err.contains("not signed by this CA"), "{code}: {err}");
    let (code, _, err) = node.run(&["workers"]);
    assert!(code == 2 && err.contains("needs the CA"), "{code}: {err}");
    let (code, _, err) = node.run(&["workers", "--ca", "/no/such.pem"]);
    assert!(code == 2 && err.contains("--ca: cannot read /no/such.pem"), "{code}: {err}");
    let plain = node.server.replace("https://", "http://");
    let (code, _, err) = run(&["workers", "--server", &plain]);
    assert!(code == 3 && err.contains("use https://"), "{code}: {err}");
    assert!(node.end("-TERM").success());
}

#[test]
fn half_a_configuration_starts_no_node() {
    let folder = Folder::new("half-tls");
    let (cert, key) = (folder.file("cert.pem"), folder.file("key.pem"));
    let (code, _, err) = run(&["serve", "--listen", "127.0.0.1:0", "--tls-cert", &cert]);
    assert!(code == 2 && err.contains("tls_cert = ") && err.contains("needs tls_key"), "{code}: {err}");
    let (code, _, err) = run(&["serve", "--listen", "127.0.0.1:0", "--tls-cert", &cert, "--tls-key", &key]);
    assert!(code == 1 && err.contains("tls_cert = ") && err.contains("cannot read it"), "{code}: {err}");
}
