//! ZeroMQ endpoints as operators write them, and vLLM's rule for data-parallel ranks.

use std::fmt;

/// A checked endpoint to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// `tcp://host:port`; the host may be a name, an IPv4 or a bracketed IPv6 address.
    Tcp { host: String, port: u16 },
    /// `ipc://path`.
    Local(String),
}

impl Endpoint {
    /// Reads an endpoint; the error says what is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if let Some(rest) = text.strip_prefix("ipc://") {
            return if rest.is_empty() {
                Err(format!("{text:?} has no path after the scheme"))
            } else {
                Ok(Self::Local(text.into()))
            };
        }
        let Some((host, port)) = text.strip_prefix("tcp://").and_then(|rest| rest.rsplit_once(':')) else {
            return Err(format!("{text:?} must look like tcp://host:port or ipc://path"));
        };
        let port = match port.parse::<u16>() {
            Ok(port) if port > 0 => port,
            _ => return Err(format!("{text:?}: the port must be a number from 1 to 65535")),
        };
        if matches!(host, "" | "*" | "0.0.0.0" | "[::]") {
            return Err(format!("{text:?}: name the engine's host, kvindex connects to it"));
        }
        if host.contains(':') && !(host.starts_with('[') && host.ends_with(']')) {
            return Err(format!("{text:?}: put an IPv6 address in brackets"));
        }
        if host.chars().any(|c| c.is_whitespace() || c.is_control() || c == '/') {
            return Err(format!("{text:?}: {host:?} is not a host"));
        }
        Ok(Self::Tcp { host: host.into(), port })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
            Self::Local(text) => f.write_str(text),
        }
    }
}

/// Endpoints of ranks 0 to `ranks` - 1, given rank 0's: TCP counts ports up, as vLLM does it.
pub(crate) fn spread(base: &Endpoint, ranks: u32) -> Result<Vec<String>, String> {
    let one = |rank: u32| match base {
        Endpoint::Tcp { host, port } => {
            let number = u32::from(*port) + rank;
            let port = u16::try_from(number)
                .map_err(|_| format!("{base}: rank {rank} would need port {number}, the limit is 65535"))?;
            Ok(Endpoint::Tcp { host: host.clone(), port }.to_string())
        }
        Endpoint::Local(text) if ranks == 1 => Ok(text.clone()),
        Endpoint::Local(_) => {
            Err(format!("{base}: an ipc endpoint cannot serve {ranks} ranks; list streams"))
        }
    };
    (0..ranks).map(one).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn endpoints_are_read_and_printed() {
        for text in ["tcp://10.0.0.7:5557", "tcp://engine-0.svc:1", "tcp://[fd00::1]:5557", "ipc:///tmp/kv"] {
            assert_eq!(Endpoint::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn bad_endpoints_say_why() {
        for (text, why) in [
            ("", "must look like"),
            ("10.0.0.7:5557", "must look like"),
            ("http://a:1", "must look like"),
            ("tcp://a", "must look like"),
            ("tcp://a:0", "1 to 65535"),
            ("tcp://a:65536", "1 to 65535"),
            ("tcp://*:5557", "name the engine's host"),
            ("tcp://fd00::1:5557", "brackets"),
            ("ipc://", "no path"),
            ("inproc://kv", "must look like"),
        ] {
            let error = Endpoint::parse(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn ranks_count_ports_up() {
        let base = Endpoint::parse("tcp://h:65534").unwrap();
        assert_eq!(spread(&base, 2).unwrap(), ["tcp://h:65534", "tcp://h:65535"]);
        assert!(spread(&base, 3).unwrap_err().contains("65536"));
        assert!(spread(&Endpoint::parse("ipc:///kv").unwrap(), 2).is_err());
    }
}
