//! The router as a program, and how SIGTERM ends it.

use kvindex_router::engine::EngineOptions;
use kvindex_router::stage::{Reply, Stage, post};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::ONE_AND_TWO;

/// How long anything may take on a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// `kvindex-router serve` in a process of its own; killed when dropped.
struct Program {
    child: Child,
    url: String,
}

impl Program {
    fn start(stage: &Stage, drain: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kvindex-router"));
        command.args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--index",
            &stage.index_url().unwrap(),
            "--drain",
            drain,
        ]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.split_whitespace().nth(1).unwrap().to_owned();
        Self { child, url }
    }

    async fn post(&self, stage: &Stage, tokens: u64) -> anyhow::Result<Reply> {
        let mut chat = stage.chat("Hans", true);
        chat["max_tokens"] = tokens.into();
        post(&format!("{}/v1/chat/completions", self.url), &[], &chat).await
    }

    /// Until it knows the engines.
    async fn is_up(&self, stage: &Stage) {
        let began = Instant::now();
        while !self.post(stage, 1).await.is_ok_and(|reply| reply.status == 200) {
            assert!(began.elapsed() < SOON, "it does not serve");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Sends SIGTERM in the midst of an answer; what came of the answer, and of the program.
    async fn terminate_during(mut self, stage: &Stage, tokens: u64) -> (anyhow::Result<Reply>, ExitStatus) {
        let end = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert!(
                Command::new("kill")
                    .args(["-TERM", &self.child.id().to_string()])
                    .status()
                    .unwrap()
                    .success()
            );
        };
        let (reply, ()) = tokio::join!(self.post(stage, tokens), end);
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (reply, status);
            }
            assert!(began.elapsed() < SOON, "it does not end");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn stage() -> Stage {
    let options = EngineOptions { step: Duration::from_millis(100), ..EngineOptions::default() };
    Stage::start(&ONE_AND_TWO[..1], options).await.unwrap()
}

/// Found by a review: SIGTERM, by which Kubernetes ends a pod, cut every answer.
#[tokio::test(flavor = "multi_thread")]
async fn sigterm_lets_answers_end() {
    let stage = stage().await;
    let program = Program::start(&stage, "60");
    program.is_up(&stage).await;
    let (reply, status) = program.terminate_during(&stage, 30).await;
    assert_eq!(reply.unwrap().events().unwrap().len(), 31, "30 words and the usage");
    assert!(status.success(), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_take_too_long_are_cut_after_sigterm() {
    let stage = stage().await;
    let program = Program::start(&stage, "1");
    program.is_up(&stage).await;
    let began = Instant::now();
    // Some seven minutes.
    let (reply, status) = program.terminate_during(&stage, 4096).await;
    assert!(reply.is_err() || reply.unwrap().events().is_err(), "it is no whole answer");
    assert!(status.success() && began.elapsed() < SOON, "{status}");
}
