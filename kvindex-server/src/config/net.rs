//! The keys of the network: where metrics are served, how many connections there may be; and what all addresses of
//! the configuration have in common. Which family is preferred is a key of discovery, and holds here too.

use clap::Args;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

use super::check::Checker;
use super::{Config, ConfigError, RawConfig, Shown, text};
use crate::net::{HostPort, Reach};

/// The network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, Args)]
#[serde(default)]
pub struct RawNet {
    /// Address and port for metrics and probes alone; the public port then serves no metrics [default: none].
    #[arg(long, value_name = "ADDRESS")]
    pub metrics_listen: Option<String>,
    /// Most open connections of clients; one more is closed at once [default: 4096].
    #[arg(long, value_name = "N")]
    pub max_connections: Option<u64>,
    /// Serve the status page at /ui of the public port; what it shows needs a token all the same [default: true].
    #[arg(long, value_name = "BOOL")]
    pub ui: Option<bool>,
}

/// How the network is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetConfig {
    /// A door for metrics and probes; `None` for the public one.
    pub metrics_listen: Option<SocketAddr>,
    /// Most open connections of clients.
    pub max_connections: usize,
    /// Whether the status page is served on the public port.
    pub ui: bool,
}

/// Each costs a file descriptor, of which processes often have no more than twice as many.
const DEFAULT_CONNECTIONS: u64 = 4096;

/// The port of metrics where only an address is told.
const METRICS_PORT: u16 = 9592;

impl Checker<'_> {
    pub(super) fn net(&self, all: &RawConfig) -> Result<NetConfig, ConfigError> {
        let raw = &all.net;
        let metrics = raw.metrics_listen.as_deref().filter(|text| !text.is_empty());
        Ok(NetConfig {
            metrics_listen: metrics
                .map(|text| self.bindable("metrics_listen", text, METRICS_PORT))
                .transpose()?,
            max_connections: self.number(
                "max_connections",
                raw.max_connections,
                DEFAULT_CONNECTIONS,
                1..=1 << 20,
            )?,
            ui: raw.ui.unwrap_or(true),
        })
    }

    /// An address of this machine, with a port or the usual one.
    pub(super) fn bindable(&self, key: &str, text: &str, port: u16) -> Result<SocketAddr, ConfigError> {
        let read = HostPort::parse_or(text, port).map_err(|error| error.to_string());
        let read = read.and_then(|read| read.socket_addr().map_err(|error| error.to_string()));
        read.map_err(|reason| {
            let must = format!("must be address:port, such as 127.0.0.1:{port} or [::]:{port}; it {reason}");
            self.invalid(key, text, &must)
        })
    }

    /// What others are told: a host that leads here from elsewhere, with a port or the one that is listened on.
    /// Loopback is told only by who listens there.
    pub(super) fn reachable(
        &self,
        key: &str,
        text: Option<String>,
        bound: SocketAddr,
    ) -> Result<Option<String>, ConfigError> {
        let Some(text) = text else { return Ok(None) };
        let must = |reason: &str| {
            let must = format!("must be host:port as others reach it, or a host alone; it {reason}");
            Err(self.invalid(key, &text, &must))
        };
        let read = match HostPort::parse_or(&text, bound.port()) {
            Ok(read) => read,
            Err(error) => return must(&error.to_string()),
        };
        // Port 0 stands for the one that the system chooses for the listener.
        if read.port == 0 && text.ends_with(":0") {
            return must("has port 0");
        }
        let on_loopback = Reach::of(bound.ip()) == Reach::Loopback;
        let told = read.host.ip().and_then(|ip| Reach::of(ip).not_told(on_loopback));
        told.map_or(Ok(Some(text.clone())), must)
    }
}

/// The values in effect.
pub(super) fn shown(config: &Config) -> Shown {
    let net = &config.net;
    vec![
        ("metrics_listen", text(net.metrics_listen.map_or_else(String::new, |listen| listen.to_string()))),
        ("max_connections", net.max_connections.to_string()),
        ("ui", net.ui.to_string()),
    ]
}
