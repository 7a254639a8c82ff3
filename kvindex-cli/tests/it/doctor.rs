//! `kvindex doctor` names each planted fault, and finds nothing wrong where nothing is.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;

use serde_json::Value;

use kubefake::{Access, Resource};

use crate::discover::Kube;
use crate::node::{Folder, Node, kvindex};
use crate::tls::certificates::{Authority, Files};

/// What the doctor found, and its exit code. `prepare` may put the program into a worse place.
fn examined(arguments: &[&str], prepare: impl FnOnce(Command) -> Command) -> (i32, Vec<Value>) {
    let command = kvindex(&[&["doctor", "--output", "json", "--listen", "127.0.0.1:0"], arguments].concat());
    let output = prepare(command).output().unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    let found = serde_json::from_str(&out)
        .unwrap_or_else(|error| panic!("{error}: {out}{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().unwrap(), found)
}

/// The one finding that is wrong, of this check; its text and the next step.
#[track_caller]
fn wrong((code, found): (i32, Vec<Value>), check: &str) -> String {
    let wrong: Vec<&Value> = found.iter().filter(|finding| finding["verdict"] == "wrong").collect();
    assert!(code == 1 && wrong.len() == 1 && wrong[0]["check"] == check, "{code} {check}: {wrong:#?}");
    assert!(!wrong[0]["next"].as_str().unwrap().is_empty(), "{wrong:?}");
    format!("{} / {}", wrong[0]["what"].as_str().unwrap(), wrong[0]["next"].as_str().unwrap())
}

#[track_caller]
fn says(text: &str, parts: &[&str]) {
    assert!(parts.iter().all(|part| text.contains(part)), "{parts:?} not in {text}");
}

fn as_is(command: Command) -> Command {
    command
}

/// A program that answers every connection with these bytes after it was spoken to, or at once.
fn answering(bytes: &'static [u8], at_once: bool) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut heard = [0; 512];
            if !at_once && stream.read(&mut heard).is_err() {
                continue;
            }
            let _ = stream.write_all(bytes);
        }
    });
    address
}

fn worker(endpoint: &str) -> String {
    format!("[[workers]]\nworker_id = \"w\"\nmodel = \"m\"\nendpoint = \"tcp://{endpoint}\"\n")
}

/// A file with these lines.
fn file(folder: &Folder, lines: &str) -> String {
    let path = folder.file("kvindex.toml");
    std::fs::write(&path, lines).unwrap();
    path
}

#[test]
fn a_machine_in_order_has_nothing_wrong() {
    let node = Node::start(&[]);
    node.ok(&["register", "--model", "m", "a"]);
    let folder = Folder::new("doctor-well");
    let path =
        file(&folder, &format!("snapshot_path = {:?}\nmax_index_bytes = 100000000\n", folder.file("s")));
    let (code, found) = examined(&["--config", &path, "--server", &node.server], as_is);
    assert!(found.iter().all(|finding| finding["verdict"] != "wrong"), "{found:#?}");
    assert_eq!(code, 0);
    for check in ["configuration", "open files", "memory", "disk", "listen", "node", "clock"] {
        let well = |finding: &&Value| finding["check"] == check && finding["verdict"] == "well";
        assert!(found.iter().any(|finding| well(&finding)), "{check}: {found:#?}");
    }
    let (code, out, _) = node.run(&["doctor", "--listen", "127.0.0.1:0"]);
    assert!(code == 0 && out.contains("0 wrong") && out.contains("memory"), "{out}");
}

#[test]
fn faults_of_the_configuration_and_the_machine() {
    let folder = Folder::new("doctor-machine");
    let path = file(&folder, "max_bacth = 3\n");
    says(&wrong(examined(&["--config", &path], as_is), "configuration"), &["max_bacth", "is it max_batch?"]);

    let path = file(&folder, "");
    let below = format!("{path}/data");
    let flags = ["--offline", "--peer-listen", "127.0.0.1:0", "--data-dir", &below];
    says(&wrong(examined(&flags, as_is), "disk"), &["data_dir", &below, "cannot be written"]);

    let few = |command: Command| {
        let mut limited = Command::new("sh");
        limited.args(["-c", "ulimit -n 64 && exec \"$@\"", "sh"]).arg(command.get_program());
        limited.args(command.get_args());
        limited
    };
    says(&wrong(examined(&["--offline"], few), "open files"), &["64 may be open", "ulimit -n"]);

    let much = ["--offline", "--max-index-bytes", "9000000000000"];
    says(&wrong(examined(&much, as_is), "memory"), &["9000000000000", "more than fits", "max_index_bytes"]);
}

#[test]
fn faults_of_the_network() {
    let other = answering(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", false).to_string();
    // A node's own door is no fault.
    let node = Node::start(&[]);
    let own = node.server.trim_start_matches("http://").to_owned();
    for (listen, is_wrong) in [(other, true), (own, false)] {
        let command =
            kvindex(&["doctor", "--output", "json", "--offline", "--listen", &listen]).output().unwrap();
        assert_eq!(command.status.code(), Some(i32::from(is_wrong)), "{listen}");
        let found: Vec<Value> = serde_json::from_slice(&command.stdout).unwrap();
        if is_wrong {
            says(&wrong((1, found), "listen"), &[&listen, "no kvindex", "another port"]);
        }
    }
    let cluster = ["--offline", "--peer-listen", "127.0.0.1:0", "--log-store", "memory"];
    let with = |more: &[&str]| examined(&[&cluster[..], more].concat(), as_is);
    let peers = with(&["--cluster-peers", "dns:no-such-name.invalid:9591"]);
    says(&wrong(peers, "peers"), &["no-such-name.invalid", "leads nowhere"]);
    let told = with(&["--advertise-peer", "no-such-name.invalid:9591"]);
    says(&wrong(told, "advertise_peer"), &["no-such-name.invalid", "resolve"]);
}

#[test]
fn faults_of_engines() {
    let folder = Folder::new("doctor-engines");
    let http = answering(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", true);
    let path = file(&folder, &worker(&http.to_string()));
    let found = examined(&["--config", &path, "--offline"], as_is);
    says(&wrong(found, "engines"), &["worker w, rank 0", "does not speak ZeroMQ", "kv-events port"]);

    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let path = file(&folder, &worker(&nobody.to_string()));
    let found = examined(&["--config", &path, "--offline"], as_is);
    says(&wrong(found, "engines"), &["worker w, rank 0", "refused", "docs/engines.md"]);
}

#[test]
fn a_real_engines_socket_is_well() {
    let context = zmq::Context::new();
    let publisher = context.socket(zmq::PUB).unwrap();
    publisher.bind("tcp://127.0.0.1:*").unwrap();
    let endpoint = publisher.get_last_endpoint().unwrap().unwrap();
    let folder = Folder::new("doctor-zmq");
    let path = file(&folder, &worker(endpoint.trim_start_matches("tcp://")));
    let (code, found) = examined(&["--config", &path, "--offline"], as_is);
    let well = |finding: &Value| finding["what"].as_str().unwrap().ends_with("speaks ZeroMQ");
    assert!(code == 0 && found.iter().any(well), "{found:#?}");
}

#[test]
fn a_clock_that_is_wrong() {
    // A node in front of which somebody changes the date.
    let node = Node::start(&[]);
    let behind = node.server.trim_start_matches("http://").to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut caller in listener.incoming().flatten() {
            let mut head = [0; 3];
            if caller.peek(&mut head).is_ok_and(|_| &head == b"GET") {
                let _ = caller.read(&mut [0; 1024]);
                let date = "date: Sat, 01 Jan 2000 00:00:00 GMT";
                let _ = write!(caller, "HTTP/1.1 200 OK\r\n{date}\r\ncontent-length: 3\r\n\r\nok\n");
                continue;
            }
            let node = std::net::TcpStream::connect(&behind).unwrap();
            let (mut up, mut down) = (node.try_clone().unwrap(), node);
            let (mut from, mut to) = (caller.try_clone().unwrap(), caller);
            std::thread::spawn(move || std::io::copy(&mut from, &mut up));
            std::thread::spawn(move || std::io::copy(&mut down, &mut to));
        }
    });
    says(&wrong(examined(&["--server", &server], as_is), "clock"), &["clock", "NTP"]);
}

#[test]
fn faults_of_certificates_and_of_the_access_file() {
    let ca = Authority::new("ca");
    let files = Files::of(&ca.sign_until(&["127.0.0.1"], (2020, 1, 1)), &ca);
    let (cert, key) = (files.text("cert.pem"), files.text("key.pem"));
    let found = examined(&["--offline", "--tls-cert", &cert, "--tls-key", &key], as_is);
    says(&wrong(found, "certificates"), &["tls_cert", "expired on", "2020"]);
    let (code, found) = {
        files.put(&ca.sign(&["127.0.0.1"]));
        examined(&["--offline", "--tls-cert", &cert, "--tls-key", &key], as_is)
    };
    let well = |finding: &Value| finding["check"] == "certificates" && finding["verdict"] != "wrong";
    assert!(code == 0 && found.iter().any(well), "{found:#?}");

    let folder = Folder::new("doctor-access");
    let path = folder.file("access.toml");
    std::fs::write(&path, "[[tokens]]\nname = \"a\"\nrights = [\"rule\"]\n").unwrap();
    let found = examined(&["--offline", "--access-file", &path], as_is);
    says(&wrong(found, "access"), &["access_file", "tokens[0]", "correct it"]);
}

#[test]
fn faults_of_discovery() {
    let kube = Kube::start("doctor-discovery");
    let ask = |selector: &str| {
        let kubeconfig = kube.kubeconfig.to_str().unwrap();
        let flags = ["--offline", "--discovery", "kubernetes", "--discovery-kubeconfig", kubeconfig];
        examined(&[&flags[..], &["--discovery-pod-selector", selector]].concat(), as_is)
    };
    let (code, found) = ask("app=vllm");
    assert_eq!(code, 0, "{found:#?}");
    // One of the two pods lacks its model's label.
    let some = |finding: &Value| finding["check"] == "discovery" && finding["verdict"] == "doubtful";
    assert!(found.iter().any(some), "{found:#?}");
    says(&wrong(ask("app=vlm"), "discovery"), &["0 selected", "app=vlm", "vllm", "discover --explain"]);
    kube.fake.allow(Access { forbidden: vec![("list", Resource::Pods)], ..Access::default() });
    says(&wrong(ask("app=vllm"), "kubernetes"), &["403", "get, list and watch"]);
}
