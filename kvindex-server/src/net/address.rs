//! Addresses as people and programs write them: one parser and one printer for every `host:port` of the
//! configuration, of other nodes and of engines, and what may be told to others of an address.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// A host: an IP address, with the interface where it is link-local, or a name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// An address. One that is IPv4 inside IPv6 is kept as IPv4.
    Ip(IpAddr),
    /// A link-local address and the interface that it is meant on, by name or number.
    Zoned(Ipv6Addr, String),
    /// A name to look up.
    Name(String),
}

/// Where a socket is: `host:port`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    /// The host.
    pub host: Host,
    /// The port.
    pub port: u16,
}

/// Why a text is no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// There is nothing.
    #[error("is empty")]
    Empty,
    /// No port where one is needed.
    #[error("names no port; write host:port")]
    NoPort,
    /// The port is no number of a port.
    #[error("has no port from 0 to 65535 after the last colon")]
    BadPort,
    /// Brackets around something else, or only one of them.
    #[error("has brackets around what is no IPv6 address")]
    BadBrackets,
    /// An IPv6 address and a port without brackets between them.
    #[error("needs brackets around the IPv6 address, as in [fd00::7]:9590")]
    Unbracketed,
    /// An interface named beside an address that is not link-local.
    #[error("names an interface (%) beside an address that is not link-local")]
    ZoneNotNeeded,
    /// Neither an address nor something that can be a name.
    #[error("is neither an IP address nor a host name")]
    BadHost,
}

/// The longest name that DNS allows.
const MAX_NAME: usize = 253;

impl Host {
    /// Reads a host without a port; IPv6 with or without brackets.
    ///
    /// # Errors
    /// When it is neither an address nor a name.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if let Some(inner) = text.strip_prefix('[') {
            return Self::v6(inner.strip_suffix(']').ok_or(AddressError::BadBrackets)?);
        }
        if text.contains(':') {
            return Self::v6(text);
        }
        match text.parse::<IpAddr>() {
            Ok(ip) => Ok(Self::Ip(ip)),
            Err(_) if is_name(text) => Ok(Self::Name(text.to_owned())),
            Err(_) => Err(AddressError::BadHost),
        }
    }

    fn v6(text: &str) -> Result<Self, AddressError> {
        let (text, zone) = match text.split_once('%') {
            Some((text, zone)) => (text, Some(zone)),
            None => (text, None),
        };
        let ip: Ipv6Addr = text.parse().map_err(|_| AddressError::BadBrackets)?;
        match zone {
            None => Ok(Self::Ip(IpAddr::V6(ip).to_canonical())),
            Some(_) if !ip.is_unicast_link_local() => Err(AddressError::ZoneNotNeeded),
            Some(zone) if is_zone(zone) => Ok(Self::Zoned(ip, zone.to_owned())),
            Some(_) => Err(AddressError::BadHost),
        }
    }

    /// The address, if it is one.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(ip) => Some(*ip),
            Self::Zoned(ip, _) => Some(IpAddr::V6(*ip)),
            Self::Name(_) => None,
        }
    }

    /// As the resolver takes it: without brackets, with the interface.
    pub(crate) fn to_look_up(&self) -> String {
        match self {
            Self::Ip(ip) => ip.to_string(),
            Self::Zoned(ip, zone) => format!("{ip}%{zone}"),
            Self::Name(name) => name.clone(),
        }
    }
}

impl HostPort {
    /// Reads `host:port`.
    ///
    /// # Errors
    /// When a part is missing or malformed.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let (host, port) = split(text)?;
        match port {
            Some(port) => Ok(Self { host, port }),
            // `fd00::7:9590` is an address whose last group looks like a port.
            None if matches!(host, Host::Ip(IpAddr::V6(_))) && !text.starts_with('[') => {
                Err(AddressError::Unbracketed)
            }
            None => Err(AddressError::NoPort),
        }
    }

    /// Reads `host:port`, or a host alone, which then has this port.
    ///
    /// # Errors
    /// When a part is malformed.
    pub fn parse_or(text: &str, port: u16) -> Result<Self, AddressError> {
        let (host, told) = split(text)?;
        Ok(Self { host, port: told.unwrap_or(port) })
    }

    /// The socket address, where the host is an address; an interface is looked up by its name.
    ///
    /// # Errors
    /// When the host is a name, or this machine has no such interface.
    pub fn socket_addr(&self) -> std::io::Result<SocketAddr> {
        match &self.host {
            Host::Ip(ip) => Ok(SocketAddr::new(*ip, self.port)),
            Host::Zoned(ip, zone) => {
                Ok(SocketAddrV6::new(*ip, self.port, 0, super::own::interface_index(zone)?).into())
            }
            Host::Name(name) => {
                Err(std::io::Error::other(format!("is the name {name:?}, not an address of this machine")))
            }
        }
    }
}

/// Host and port, where there is one.
fn split(text: &str) -> Result<(Host, Option<u16>), AddressError> {
    if text.is_empty() {
        return Err(AddressError::Empty);
    }
    let port = |text: &str| {
        // `parse` would take a sign.
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<u16>().ok()).flatten().ok_or(AddressError::BadPort)
    };
    if text.starts_with('[') {
        let end = text.find(']').ok_or(AddressError::BadBrackets)?;
        let (host, rest) = text.split_at(end + 1);
        let host = Host::parse(host)?;
        return match rest.strip_prefix(':') {
            Some(rest) => Ok((host, Some(port(rest)?))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err(AddressError::BadPort),
        };
    }
    match text.split_once(':') {
        None => Ok((Host::parse(text)?, None)),
        Some((_, rest)) if rest.contains(':') => Ok((Host::parse(text)?, None)),
        Some((host, rest)) => Ok((Host::parse(host)?, Some(port(rest)?))),
    }
}

fn is_zone(zone: &str) -> bool {
    // Interface names have at most 15 bytes.
    let fits = (1..=15).contains(&zone.len());
    fits && zone.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'[' | b']' | b'%' | b'/'))
}

fn is_name(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        (1..=63).contains(&label.len()) && label.bytes().all(inner)
    };
    // No top-level domain is a number: `10.0.0.300` is a slip of the pen.
    let last_is_number =
        name.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    name.len() <= MAX_NAME && !last_is_number && name.split('.').all(label)
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(IpAddr::V4(ip)) => write!(f, "{ip}"),
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
            Self::Zoned(ip, zone) => write!(f, "[{ip}%{zone}]"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl From<SocketAddr> for HostPort {
    fn from(address: SocketAddr) -> Self {
        let address = canonical(address);
        let host = match address {
            SocketAddr::V6(v6) if v6.scope_id() != 0 => Host::Zoned(*v6.ip(), v6.scope_id().to_string()),
            _ => Host::Ip(address.ip()),
        };
        Self { host, port: address.port() }
    }
}

/// IPv4 inside IPv6, as a dual-stack socket sees an IPv4 client, becomes what it is: one client, one address.
#[must_use]
pub fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::new(ip.into(), address.port()),
        IpAddr::V6(_) => address,
    }
}

/// How far an address leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// To this machine, from others: global, private and unique local addresses.
    Others,
    /// Only within this machine.
    Loopback,
    /// Only on one link, and only with the interface's name, which is another one at the other end.
    LinkLocal,
    /// Every address of this machine: a place to listen, not one to reach.
    Unspecified,
    /// To a group.
    Multicast,
}

impl Reach {
    /// Of an address.
    #[must_use]
    pub fn of(ip: IpAddr) -> Self {
        let ip = ip.to_canonical();
        let link_local = match ip {
            IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        };
        match ip {
            ip if ip.is_unspecified() => Self::Unspecified,
            ip if ip.is_loopback() => Self::Loopback,
            ip if ip.is_multicast() => Self::Multicast,
            _ if link_local => Self::LinkLocal,
            _ => Self::Others,
        }
    }

    /// Why an address is not to be told to others, if it is not; loopback is told where the node itself listens
    /// there, because then nobody else is meant.
    #[must_use]
    pub fn not_told(self, listens_on_loopback: bool) -> Option<&'static str> {
        match self {
            Self::Others => None,
            Self::Loopback if listens_on_loopback => None,
            Self::Loopback => Some("is a loopback address, and the node listens beyond it"),
            Self::LinkLocal => {
                Some("is link-local: others would need the name of their own interface with it")
            }
            Self::Unspecified => Some("stands for every address of a machine, so nobody can reach it"),
            Self::Multicast => Some("is no address of one machine"),
        }
    }
}

#[cfg(test)]
#[path = "address_test.rs"]
mod tests;
