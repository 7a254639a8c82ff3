//! ZeroMQ endpoints as operators write them: who connects to whom, and the engines' rule for data-parallel
//! ranks.
//!
//! An engine's publisher binds an endpoint that contains `*` or `::` and *connects* to any other TCP address, so
//! one side of a stream must do what the other does not. kvindex mirrors that rule: an endpoint with a host is
//! the engine's, and kvindex connects to it; one without a host of its own (`*`, `0.0.0.0`, `[::]`) is kvindex's,
//! and the engine connects to it. `bind+tcp://` says the same for one address of this machine.
//!
//! The engines' replay socket does not follow their rule: it always binds. So kvindex always connects to it.

use std::fmt;
use std::net::IpAddr;

use crate::net::{Host, HostPort};

/// What marks an address of this machine that kvindex is to bind.
const BIND: &str = "bind+";

/// A checked endpoint of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// `tcp://host:port`, to connect to; the host may be a name, an IPv4 or a bracketed IPv6 address.
    Tcp { host: String, port: u16 },
    /// `ipc://path`, to connect to: engines always bind these.
    Local(String),
    /// To bind, for an engine that connects to it; `*`, or an IP address of this machine, IPv6 in brackets.
    Bind { host: String, port: u16 },
}

impl Endpoint {
    /// Reads the endpoint of a publisher; the error says what is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if let Some(rest) = text.strip_prefix("ipc://") {
            return if rest.is_empty() {
                Err(format!("{text:?} has no path after the scheme"))
            } else {
                Ok(Self::Local(text.into()))
            };
        }
        let (address, asked_to_bind) = match text.strip_prefix(BIND) {
            Some(address) => (address, true),
            None => (text, false),
        };
        let Some((host, port)) = address.strip_prefix("tcp://").and_then(|rest| rest.rsplit_once(':')) else {
            return Err(format!(
                "{text:?} must look like tcp://host:port, bind+tcp://address:port or ipc://path"
            ));
        };
        let port = match port.parse::<u16>() {
            Ok(port) if port > 0 => port,
            _ => return Err(format!("{text:?}: the port must be a number from 1 to 65535")),
        };
        check_host(text, host)?;
        let host = host.to_owned();
        match (is_unspecified(&host), asked_to_bind) {
            (true, _) => Ok(Self::Bind { host, port }),
            (false, false) => Ok(Self::Tcp { host, port }),
            (false, true) if address_of(&host).is_some() => Ok(Self::Bind { host, port }),
            (false, true) => Err(format!(
                "{text:?}: {host:?} is no address to bind; name an IP address of this machine, or *"
            )),
        }
    }

    /// Reads the endpoint of a replay socket, which engines always bind.
    pub(crate) fn parse_replay(text: &str) -> Result<Self, String> {
        match Self::parse(text)? {
            Self::Bind { .. } => Err(format!(
                "{text:?}: an engine always binds its replay socket, also where it connects to publish; name the \
                 engine's host"
            )),
            endpoint => Ok(endpoint),
        }
    }

    /// The address as ZeroMQ reads it.
    pub(crate) fn address(&self) -> String {
        match self {
            Self::Tcp { host, port } | Self::Bind { host, port } => format!("tcp://{host}:{port}"),
            Self::Local(text) => text.clone(),
        }
    }

    /// Equal for two endpoints that are one place: host names know no case, paths do.
    pub(crate) fn place(&self) -> String {
        match self {
            Self::Tcp { .. } | Self::Bind { .. } => self.to_string().to_ascii_lowercase(),
            Self::Local(text) => text.clone(),
        }
    }

    /// The host that kvindex connects to by a checked endpoint; `None` for a port or a path of its own machine.
    pub(crate) fn host_of(text: &str) -> Option<Host> {
        match Self::parse(text) {
            Ok(Self::Tcp { host, .. }) => Host::parse(&host).ok(),
            _ => None,
        }
    }

    /// The host and port, where the host is a name to look up.
    pub(crate) fn named(&self) -> Option<HostPort> {
        match self {
            Self::Tcp { host, port } => match Host::parse(host) {
                Ok(host @ Host::Name(_)) => Some(HostPort { host, port: *port }),
                _ => None,
            },
            Self::Bind { .. } | Self::Local(_) => None,
        }
    }

    /// Whether kvindex binds it.
    pub(crate) fn binds(&self) -> bool {
        matches!(self, Self::Bind { .. })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let marked = matches!(self, Self::Bind { host, .. } if !is_unspecified(host));
        write!(f, "{}{}", if marked { BIND } else { "" }, self.address())
    }
}

fn check_host(text: &str, host: &str) -> Result<(), String> {
    if host.is_empty() {
        return Err(format!("{text:?} names no host; write * to let the engine connect to kvindex"));
    }
    if host.contains(':') && !(host.starts_with('[') && host.ends_with(']')) {
        return Err(format!("{text:?}: put an IPv6 address in brackets"));
    }
    // A star inside a name would be taken for one, and looked up for ever.
    if host != "*" && host.chars().any(|c| c.is_whitespace() || c.is_control() || matches!(c, '/' | '*')) {
        return Err(format!("{text:?}: {host:?} is not a host"));
    }
    Ok(())
}

fn address_of(host: &str) -> Option<IpAddr> {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    bare.parse().ok()
}

fn is_unspecified(host: &str) -> bool {
    host == "*" || address_of(host).is_some_and(|address| address.is_unspecified())
}

/// Endpoints of ranks 0 to `ranks` - 1, given rank 0's: TCP counts ports up, as vLLM and SGLang do.
pub(crate) fn spread(base: &Endpoint, ranks: u32) -> Result<Vec<Endpoint>, String> {
    let port_of = |port: u16, rank: u32| {
        let number = u32::from(port) + rank;
        u16::try_from(number)
            .map_err(|_| format!("{base}: rank {rank} would need port {number}, the limit is 65535"))
    };
    let one = |rank: u32| match base {
        Endpoint::Tcp { host, port } => Ok(Endpoint::Tcp { host: host.clone(), port: port_of(*port, rank)? }),
        Endpoint::Bind { host, port } => {
            Ok(Endpoint::Bind { host: host.clone(), port: port_of(*port, rank)? })
        }
        Endpoint::Local(_) if ranks == 1 => Ok(base.clone()),
        Endpoint::Local(_) => {
            Err(format!("{base}: an ipc endpoint cannot serve {ranks} ranks; list streams"))
        }
    };
    (0..ranks).map(one).collect()
}

#[cfg(test)]
#[path = "endpoints_test.rs"]
mod tests;
