//! The files that a node reads besides its configuration: certificates and who may call.

use kvindex_server::config::Config;
use kvindex_server::net::examine_certificates;
use kvindex_server::{check_access, open_doors};
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use super::finding::{Finding, Findings};

/// A certificate that ends sooner should have been renewed.
const SOON: Duration = Duration::from_secs(14 * 24 * 3600);
const DAY: u64 = 24 * 3600;

pub(super) fn examine(config: &Config, findings: &mut Findings) {
    certificates(config, findings);
    access(config, findings);
    for open in open_doors(config, config.listen, config.net.metrics_listen) {
        let check = if open.in_clear { "certificates" } else { "access" };
        let what = format!("the {} port, {}: {}", open.door, open.address, open.what);
        findings.note(Finding::doubtful(check, what, open.next));
    }
}

fn certificates(config: &Config, findings: &mut Findings) {
    let doors = examine_certificates(&config.tls);
    let near = |address: SocketAddr| address.ip().to_canonical().is_loopback();
    let peers = config.cluster.as_ref().and_then(|cluster| cluster.peer_listen);
    if doors.is_empty() && near(config.listen) && peers.is_none_or(near) {
        findings.note(Finding::well("certificates", "none needed: the node listens on this machine only"));
    }
    for (door, examined) in doors {
        findings.note(match examined {
            Err(error) => {
                let next = "give a certificate, its key and its CA that belong together and are valid now";
                Finding::wrong("certificates", error.to_string(), next)
            }
            Ok(ends) => {
                let left = ends.duration_since(SystemTime::now()).unwrap_or_default();
                let what = format!("the {door} one is good for {} days", left.as_secs() / DAY);
                if left < SOON {
                    let next = "renew it; a running node takes new files by itself";
                    Finding::doubtful("certificates", what, next)
                } else {
                    Finding::well("certificates", what)
                }
            }
        });
    }
}

fn access(config: &Config, findings: &mut Findings) {
    let Some(path) = &config.access.file else {
        if config.listen.ip().to_canonical().is_loopback() {
            findings.note(Finding::well("access", "open to this machine only"));
        }
        return;
    };
    let read =
        std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()));
    let checked = read.and_then(|text| check_access(&text).map_err(|error| error.to_string()));
    findings.note(match checked {
        Ok(()) => Finding::well("access", format!("{} is in order", path.display())),
        Err(reason) => {
            let next = "correct it; a running node keeps the former one, a new one does not start";
            Finding::wrong("access", format!("access_file = {}: {reason}", path.display()), next)
        }
    });
}
