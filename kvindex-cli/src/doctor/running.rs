//! What a running node says of itself: whether it is ready, how its engines' streams stand, whether they hash as they
//! should, and whether its clock agrees with this machine's.

use kvindex_client::v1::{self, TrustState};
use kvindex_client::{CallError, Client};
use std::time::{Duration, SystemTime};

use super::finding::{Finding, Findings};
use crate::args::ServerArgs;
use crate::connect;

/// Clocks further apart make log lines and `explain` misleading. No answer depends on one.
const APART: Duration = Duration::from_secs(5);

pub(super) async fn examine(server: &ServerArgs, findings: &mut Findings) {
    let timeout = Duration::from_millis(server.timeout_ms);
    let connected = connect::config(server)
        .and_then(|config| Client::connect(config).map_err(|error| anyhow::anyhow!("--server: {error}")));
    let client = match connected {
        Ok(client) => client,
        Err(error) => {
            return findings.note(Finding::wrong("node", format!("{error:#}"), "correct the flag"));
        }
    };
    match client.list_workers(v1::ListWorkersRequest::default()).await {
        Ok(listed) => {
            findings.note(Finding::well("node", format!("{} answers", server.server)));
            listed.workers.iter().for_each(|worker| streams(worker, findings));
            if listed.workers.is_empty() {
                let next = "register some, list them in the file, or switch discovery on";
                findings.note(Finding::doubtful("workers", "none is known", next));
            }
        }
        Err(CallError::Refused { message, .. }) => {
            findings.note(Finding::wrong("node", message, "give a token that may read"));
        }
        Err(error) => {
            let next = "start it, name another (--server), or leave it out (--offline)";
            findings.note(Finding::doubtful("node", error.to_string(), next));
            return;
        }
    }
    clock(server, timeout, findings).await;
}

fn streams(worker: &v1::Worker, findings: &mut Findings) {
    for stream in &worker.streams {
        let whose = format!("worker {}, rank {}", worker.worker_id, stream.dp_rank);
        if stream.hash_check == "differs" {
            let next =
                "start the engine with the hash algorithm and seed of its hash_profile, or correct that";
            let what = format!("{whose}: its blocks are not hashed as its hash_profile says");
            findings.note(Finding::wrong("hash flags", what, next));
        }
        let Some(trust) = &stream.trust else { continue };
        let what = format!("{whose}: {}", trust.reason);
        findings.note(match trust.state() {
            TrustState::Live if trust.reason.is_empty() => {
                Finding::well("streams", format!("{whose} is live"))
            }
            TrustState::Live => Finding::doubtful("streams", what, "see docs/engine-settings.md"),
            TrustState::Pending => Finding::doubtful("streams", what, "is the engine up, with kv events on?"),
            TrustState::Suspect | TrustState::Rebuilding | TrustState::Unspecified => {
                Finding::doubtful("streams", what, "see docs/consistency.md on what its answers are worth")
            }
        });
    }
}

/// By the `Date` that every HTTP answer carries, to the second.
async fn clock(server: &ServerArgs, timeout: Duration, findings: &mut Findings) {
    let url = format!("{}/healthz", server.server.trim_end_matches('/'));
    if !url.starts_with("http://") {
        return findings.note(Finding::skipped("clock", "not compared over TLS"));
    }
    let asked = tokio::task::spawn_blocking(move || {
        let config = ureq::Agent::config_builder().timeout_global(Some(timeout)).proxy(None).build();
        let answer = ureq::Agent::new_with_config(config).get(&url).call().ok()?;
        httpdate::parse_http_date(answer.headers().get("date")?.to_str().ok()?).ok()
    });
    let Ok(Some(theirs)) = asked.await else {
        return findings.note(Finding::skipped("clock", "the node's answers carry no date"));
    };
    let ours = SystemTime::now();
    let apart = ours.duration_since(theirs).unwrap_or_else(|behind| behind.duration());
    let what = format!("the node's clock is {} s from this machine's", apart.as_secs());
    findings.note(if apart > APART {
        Finding::wrong("clock", what, "set both by NTP: times in logs and in `explain` mislead")
    } else {
        Finding::well("clock", what)
    });
}
