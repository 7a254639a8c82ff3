//! Doors that let in more than an operator may mean: told when a node starts, and by `kvindex doctor`. An open door is
//! a choice that should be seen.

use std::net::SocketAddr;

use crate::config::Config;

/// A door that is open to other machines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenDoor {
    /// Which one: `public`, `metrics` or `peer`.
    pub door: &'static str,
    /// Where it listens.
    pub address: SocketAddr,
    /// Whether it lacks a lock; otherwise it asks nobody who they are.
    pub in_clear: bool,
    /// Who can do what.
    pub what: &'static str,
    /// What would close it.
    pub next: &'static str,
}

/// Every such door of a configuration, with the addresses at which clients and scrapers are served.
#[must_use]
pub fn open_doors(config: &Config, public: SocketAddr, metrics: Option<SocketAddr>) -> Vec<OpenDoor> {
    let is_near = |address: SocketAddr| address.ip().to_canonical().is_loopback();
    let anyone = config.access.file.is_none();
    let mut open = Vec::new();
    let mut note = |door, address, in_clear, what, next| {
        if !is_near(address) {
            open.push(OpenDoor { door, address, in_clear, what, next });
        }
    };
    if anyone {
        let what = "every caller who reaches it may ask, publish and change workers";
        note("public", public, false, what, "make tokens with `kvindex token new` and set access_file");
    }
    if config.tls.public.is_none() {
        let what = "tokens, questions and answers cross the network in clear text";
        note("public", public, true, what, "set tls_cert and tls_key (docs/security.md)");
    }
    match metrics {
        Some(metrics) if anyone || config.access.metrics_open => {
            let what = "whoever reaches it reads which workers and tenants there are";
            note("metrics", metrics, false, what, "let only the scraper reach it, or close metrics_open");
        }
        None if !anyone && config.access.metrics_open => {
            let what = "whoever reaches it reads in /metrics which workers and tenants there are";
            note("public", public, false, what, "set metrics_listen, or close metrics_open");
        }
        _ => {}
    }
    if let Some(cluster) = config.cluster.as_ref().filter(|_| config.tls.peer.is_none()) {
        let what = "whoever reaches it is taken for a node and may write the log";
        let next = "set peer_tls_cert, peer_tls_key and peer_tls_ca (docs/security.md)";
        note("peer", cluster.peer_listen.unwrap_or(public), true, what, next);
    }
    open
}

/// Tells of them in the log.
pub(crate) fn tell(config: &Config, public: SocketAddr, metrics: Option<SocketAddr>) {
    for OpenDoor { door, address, what, next, .. } in open_doors(config, public, metrics) {
        tracing::warn!(door, %address, "{what}; {next}");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const NEAR: &str = "127.0.0.1:1";
    const FAR: &str = "[::]:1";

    fn doors(lines: &[&str], public: &str, metrics: Option<&str>) -> Vec<(&'static str, bool)> {
        let config = Config::of_text(&lines.join("\n")).unwrap();
        let metrics = metrics.map(|address| address.parse().unwrap());
        let open = open_doors(&config, public.parse().unwrap(), metrics);
        open.into_iter().map(|open| (open.door, open.in_clear)).collect()
    }

    const TOKENS: &str = "access_file = \"a\"";
    const TLS: &str = "tls_cert = \"c\"\ntls_key = \"k\"";
    const METRICS: &str = "metrics_open = true";
    const CLUSTER: &str = "peer_listen = \"[::]:2\"\ncluster_peers = \"10.0.0.1:9\"\ndata_dir = \"d\"";
    const PEER_TLS: &str = "peer_tls_cert = \"c\"\npeer_tls_key = \"k\"\npeer_tls_ca = \"a\"";

    #[test]
    fn each_open_door_is_told_of_whatever_the_others_are() {
        let open = [("public", false), ("public", true)];
        assert_eq!(doors(&[], NEAR, None), []);
        assert_eq!(doors(&[], "[::ffff:127.0.0.1]:1", None), []);
        assert_eq!(doors(&[], FAR, None), open);
        assert_eq!(doors(&[TOKENS], FAR, None), open[1..]);
        assert_eq!(doors(&[TLS], FAR, None), open[..1]);
        assert_eq!(doors(&[TOKENS, TLS], FAR, None), []);
        assert_eq!(doors(&[], NEAR, Some(FAR)), [("metrics", false)]);
        assert_eq!(doors(&[TOKENS, TLS], FAR, Some(FAR)), []);
        assert_eq!(doors(&[TOKENS, TLS, METRICS], FAR, Some(FAR)), [("metrics", false)]);
        assert_eq!(doors(&[TOKENS, TLS, METRICS], FAR, Some(NEAR)), []);
        assert_eq!(doors(&[TOKENS, TLS, METRICS], FAR, None), [("public", false)]);
        assert_eq!(doors(&[TOKENS, TLS, CLUSTER], FAR, None), [("peer", true)]);
        assert_eq!(doors(&[TOKENS, CLUSTER, PEER_TLS], FAR, None), open[1..]);
    }
}
