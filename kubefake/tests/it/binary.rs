//! The program: serves a file, and what a person changes in it.

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use kube::{Client, ResourceExt};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Stops the program whatever the test came to.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn manifest(pods: &[(&str, u32)]) -> String {
    let one = |(name, restarts): &(&str, u32)| {
        format!(
            "kind: Pod\nmetadata: {{name: {name}}}\nspec:\n  containers: [{{name: c}}]\nstatus:\n  \
             containerStatuses: [{{name: c, restartCount: {restarts}}}]\n---\n"
        )
    };
    pods.iter().map(one).collect()
}

/// Each pod with its container's id.
async fn pods(api: &Api<Pod>) -> Vec<(String, String)> {
    let listed = api.list(&ListParams::default()).await.unwrap();
    let running = listed.items.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
    let id = |pod: &Pod| {
        let statuses = pod.status.clone().unwrap().container_statuses.unwrap();
        statuses[0].container_id.clone().unwrap()
    };
    running.map(|pod| (pod.name_any(), id(pod))).collect()
}

async fn until(api: &Api<Pod>, names: &[&str]) -> Vec<(String, String)> {
    for round in 0.. {
        let found = pods(api).await;
        if found.iter().map(|(name, _)| name.as_str()).eq(names.iter().copied()) {
            return found;
        }
        assert!(round < 100, "{found:?}, not {names:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    unreachable!()
}

#[tokio::test]
async fn a_file_is_served_as_it_changes() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let (file, kubeconfig) = (folder.join("pods.yaml"), folder.join("kubefake.kubeconfig"));
    std::fs::write(&file, manifest(&[("a", 0), ("b", 0)])).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubefake"));
    command.arg("--manifest").arg(&file).arg("--kubeconfig").arg(&kubeconfig).stdout(Stdio::piped());
    let mut running = Running(command.spawn().unwrap());
    let mut lines = BufReader::new(running.0.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().starts_with("serving 2 objects on http://127.0.0.1:"));
    assert_eq!(lines.next().unwrap().unwrap(), format!("export KUBECONFIG={}", kubeconfig.display()));
    let read = Kubeconfig::read_from(&kubeconfig).unwrap();
    let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await.unwrap();
    let api: Api<Pod> = Api::default_namespaced(Client::try_from(config).unwrap());
    let before = until(&api, &["a", "b"]).await;
    // A container starts again, a pod goes, one comes; and a slip of the pen changes nothing.
    std::fs::write(&file, "kind: [").unwrap();
    tokio::time::sleep(Duration::from_millis(600)).await;
    until(&api, &["a", "b"]).await;
    std::fs::write(&file, manifest(&[("b", 1), ("c", 0)])).unwrap();
    let after = until(&api, &["b", "c"]).await;
    assert_ne!(before[1].1, after[0].1, "another life");
}
