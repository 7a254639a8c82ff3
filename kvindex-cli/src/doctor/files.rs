//! The files that a node reads besides its configuration: certificates and who may call.

use kvindex_server::check_access;
use kvindex_server::config::Config;
use kvindex_server::net::examine_certificates;
use std::time::{Duration, SystemTime};

use super::finding::{Finding, Findings};

/// A certificate that ends sooner should have been renewed.
const SOON: Duration = Duration::from_secs(14 * 24 * 3600);
const DAY: u64 = 24 * 3600;

pub(super) fn examine(config: &Config, findings: &mut Findings) {
    certificates(config, findings);
    access(config, findings);
}

fn certificates(config: &Config, findings: &mut Findings) {
    let doors = examine_certificates(&config.tls);
    if doors.is_empty() {
        let open = !config.listen.ip().is_loopback();
        findings.note(if open {
            let what = "there is none, and the node listens beyond this machine";
            Finding::doubtful("certificates", what, "set tls_cert and tls_key (docs/security.md)")
        } else {
            Finding::well("certificates", "none needed: the node listens on this machine only")
        });
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
        let open = !config.listen.ip().is_loopback();
        findings.note(if open {
            let next = "make tokens with `kvindex token new` and set access_file";
            Finding::doubtful("access", "whoever reaches the port may do everything", next)
        } else {
            Finding::well("access", "open to this machine only")
        });
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
