//! Whether pods that come and go leave memory behind in a node's process. Not run by default:
//! `cargo test --workspace --test it -- --ignored --nocapture discover_memory`.

use kubefake::{Fake, Key, Manifest, Resource};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::node::Node;

const NAMESPACE: &str = "ai-inference";
const ROUNDS: usize = 100;
/// Pods of one round; each has a socket in the node.
const PODS: u16 = 100;
/// The first rounds fill pools that stay: threads' arenas, tables, connections.
const WARM: usize = 10;

fn fleet() -> Manifest {
    let pod = |number: u16| {
        format!(
            "kind: Pod\nmetadata: {{name: vllm-{number}, labels: {{app: vllm, openfuyao.com/model: m}}}}\nspec:\n  \
             containers: [{{name: c, ports: [{{name: zmq-pub, containerPort: 5557}}]}}]\nstatus: {{podIP: \
             127.2.0.{number}}}\n---\n"
        )
    };
    let text: String = (1..=PODS).map(pod).collect();
    Manifest::parse(&text, NAMESPACE).unwrap()
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn resident_kib(process: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
#[ignore = "a measurement"]
fn a_hundred_rounds_of_pods_leave_no_memory_behind() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let fake = runtime.block_on(Fake::start("127.0.0.1:0".parse().unwrap())).unwrap();
    let _inside = runtime.enter();
    let kubeconfig = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("discover-memory.kubeconfig");
    fake.write_kubeconfig(&kubeconfig, NAMESPACE, None).unwrap();
    let node = Node::start(&[
        "--discovery",
        "kubernetes",
        "--discovery-pod-selector",
        "app=vllm",
        "--discovery-kubeconfig",
        kubeconfig.to_str().unwrap(),
    ]);
    let workers = || node.json(&["workers"])["workers"].as_array().map_or(0, Vec::len);
    let mut resident = Vec::new();
    for round in 1..=ROUNDS {
        fake.apply(&fleet(), &Manifest::default());
        until("found", || workers() == usize::from(PODS));
        for number in 1..=PODS {
            let key = Key::new(Resource::Pods, NAMESPACE, &format!("vllm-{number}"));
            assert!(fake.delete(&key, 0));
        }
        until("gone", || workers() == 0);
        fake.compact();
        resident.push(resident_kib(node.process()));
        if round % 10 == 0 {
            println!("round {round}: {:.1} MiB resident", resident[round - 1] / 1024.0);
        }
    }
    let (first, last) = (resident[WARM - 1], resident[ROUNDS - 1]);
    let growth = (last / first - 1.0) * 100.0;
    println!("0 to {PODS} to 0 pods, {ROUNDS} rounds: {growth:+.1} % since round {WARM}");
    assert!(growth < 5.0, "{first} KiB after round {WARM}, {last} KiB after round {ROUNDS}");
}
