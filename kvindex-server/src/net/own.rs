//! Which of this machine's addresses others are told when nobody said: the one that the kernel would send from,
//! or else one of an interface.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use super::address::{HostPort, Reach};

/// Which addresses are preferred.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum IpFamily {
    /// IPv4 where there is one, else IPv6.
    #[default]
    Any,
    /// Only IPv4.
    Ipv4,
    /// Only IPv6.
    Ipv6,
}

impl IpFamily {
    /// Every family with its word in a configuration; the default first.
    pub const ALL: [(&'static str, Self); 3] =
        [("any", Self::Any), ("ipv4", Self::Ipv4), ("ipv6", Self::Ipv6)];

    /// Its word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
        }
    }

    /// Whether an address is of it.
    #[must_use]
    pub fn has(self, ip: &IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::Ipv4 => ip.is_ipv4(),
            Self::Ipv6 => ip.is_ipv6(),
        }
    }
}

/// Addresses for documentation, which lead nowhere: no packet is sent, the kernel only says from where it would.
const FAR: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)), 9),
    SocketAddr::new(IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), 9),
];

/// An address of this machine by which others reach what listens on `bound`, every address of a machine.
///
/// # Errors
/// When it has none of the family; the text says what it has.
pub fn own_address(bound: IpAddr, family: IpFamily) -> Result<IpAddr, String> {
    let routed: Vec<IpAddr> = FAR.into_iter().filter_map(sends_from).collect();
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let up: Vec<IpAddr> = interfaces.into_iter().map(|interface| interface.ip()).collect();
    choose(&routed, &up, bound, family)
}

/// What others are told of a listener on `bound`: what the operator says, with the listener's port where that names
/// none, else where it listens, else an own address.
///
/// # Errors
/// When there is nothing that others could reach; the text says why.
pub fn told(advertised: Option<&str>, bound: SocketAddr, family: IpFamily) -> Result<HostPort, String> {
    if let Some(text) = advertised {
        return HostPort::parse_or(text, bound.port()).map_err(|error| format!("{text:?} {error}"));
    }
    let bound = HostPort::from(bound);
    let Some(ip) = bound.host.ip() else { return Ok(bound) };
    let reach = Reach::of(ip);
    if reach == Reach::Unspecified {
        return Ok(SocketAddr::new(own_address(ip, family)?, bound.port).into());
    }
    match reach.not_told(reach == Reach::Loopback) {
        None => Ok(bound),
        Some(reason) => Err(format!("{bound}, where it listens, {reason}")),
    }
}

fn sends_from(far: SocketAddr) -> Option<IpAddr> {
    let any: SocketAddr = if far.is_ipv4() { ([0; 4], 0).into() } else { ([0; 16], 0).into() };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(far).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// What the kernel would send from comes first: of a machine with bridges and tunnels it is the one that leads out.
fn choose(
    routed: &[IpAddr],
    interfaces: &[IpAddr],
    bound: IpAddr,
    family: IpFamily,
) -> Result<IpAddr, String> {
    let served = |ip: &IpAddr| bound.is_ipv6() || ip.is_ipv4();
    let told = |ip: &&IpAddr| Reach::of(**ip) == Reach::Others && family.has(ip) && served(ip);
    let first = |all: &[IpAddr], v4: bool| all.iter().filter(told).find(|ip| ip.is_ipv4() == v4).copied();
    let found = first(routed, true).or_else(|| first(routed, false));
    let found = found.or_else(|| first(interfaces, true)).or_else(|| first(interfaces, false));
    found.ok_or_else(|| {
        let wanted = match (family, bound) {
            (IpFamily::Ipv6, IpAddr::V4(_)) => {
                "ip_family is ipv6, and the node listens on IPv4 only".to_owned()
            }
            (IpFamily::Any, _) => "no interface has an address that others reach".to_owned(),
            (family, _) => format!("no interface has an {} address that others reach", family.name()),
        };
        let has: Vec<String> = interfaces.iter().map(ToString::to_string).collect();
        format!("{wanted} (there are {})", if has.is_empty() { "none".to_owned() } else { has.join(", ") })
    })
}

/// The number of an interface, by its name or as a number.
pub(super) fn interface_index(zone: &str) -> io::Result<u32> {
    if let Ok(number) = zone.parse() {
        return Ok(number);
    }
    let found = if_addrs::get_if_addrs()?.into_iter().find(|interface| interface.name == zone);
    let index = found.and_then(|interface| interface.index);
    index.ok_or_else(|| io::Error::other(format!("this machine has no interface {zone:?}")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn of(text: &str) -> Vec<IpAddr> {
        text.split_whitespace().map(|ip| ip.parse().unwrap()).collect()
    }

    #[test]
    fn the_address_that_leads_out_is_told() {
        let table = [
            // routed, interfaces, bound, family, chosen
            ("10.0.0.7 fd00::7", "127.0.0.1 172.17.0.1 10.0.0.7 fd00::7", "::", IpFamily::Any, "10.0.0.7"),
            ("10.0.0.7 fd00::7", "10.0.0.7 fd00::7", "::", IpFamily::Ipv6, "fd00::7"),
            ("10.0.0.7 fd00::7", "10.0.0.7 fd00::7", "0.0.0.0", IpFamily::Any, "10.0.0.7"),
            ("fd00::7", "::1 fe80::1 fd00::7", "::", IpFamily::Any, "fd00::7"),
            // No default route: what an interface has.
            ("", "127.0.0.1 169.254.3.3 10.1.0.1 10.2.0.1", "::", IpFamily::Any, "10.1.0.1"),
            ("", "fe80::1 2001:db8::5", "::", IpFamily::Any, "2001:db8::5"),
            // The kernel's answer is of no use: a host with nothing but loopback and link-local routes.
            ("169.254.3.3 ::1", "169.254.3.3 10.9.0.1", "::", IpFamily::Ipv4, "10.9.0.1"),
        ];
        for (routed, interfaces, bound, family, chosen) in table {
            let found = choose(&of(routed), &of(interfaces), bound.parse().unwrap(), family);
            assert_eq!(found, Ok(chosen.parse().unwrap()), "{routed} | {interfaces}");
        }
    }

    #[test]
    fn where_there_is_none_the_reason_is_told() {
        let none = |interfaces: &str, bound: &str, family| {
            choose(&[], &of(interfaces), bound.parse().unwrap(), family).unwrap_err()
        };
        let said = none("127.0.0.1 fe80::1", "::", IpFamily::Any);
        assert_eq!(said, "no interface has an address that others reach (there are 127.0.0.1, fe80::1)");
        assert!(none("10.0.0.7", "::", IpFamily::Ipv6).contains("an ipv6 address"));
        assert!(none("fd00::7", "0.0.0.0", IpFamily::Any).contains("fd00::7"));
        assert!(none("10.0.0.7 fd00::7", "0.0.0.0", IpFamily::Ipv6).contains("listens on IPv4 only"));
        assert!(none("", "::", IpFamily::Any).contains("there are none"));
    }

    #[test]
    fn what_an_operator_says_is_told_and_else_where_it_listens() {
        let told = |said, bound: &str| {
            told(said, bound.parse().unwrap(), IpFamily::Any).map(|told| told.to_string())
        };
        assert_eq!(told(Some("node-1"), "[::]:9591").unwrap(), "node-1:9591");
        assert_eq!(told(Some("fd00::7"), "[::]:9591").unwrap(), "[fd00::7]:9591");
        assert_eq!(told(Some("node-1:80"), "10.0.0.7:9591").unwrap(), "node-1:80");
        assert_eq!(told(None, "10.0.0.7:9591").unwrap(), "10.0.0.7:9591");
        assert_eq!(told(None, "127.0.0.1:9591").unwrap(), "127.0.0.1:9591");
        let refused = told(None, "[fe80::1]:9591").unwrap_err();
        assert!(refused.contains("[fe80::1]:9591, where it listens, is link-local"), "{refused}");
        assert!(told(Some(""), "10.0.0.7:1").unwrap_err().contains("is empty"));
        // This machine's own address, if it has one.
        if let Ok(own) = told(None, "0.0.0.0:9591") {
            assert!(own.ends_with(":9591") && !own.starts_with("0.0.0.0"), "{own}");
        }
    }

    #[test]
    fn interfaces_have_numbers() {
        assert_eq!(interface_index("7").unwrap(), 7);
        assert!(interface_index("lo").is_ok());
        assert!(interface_index("nosuch0").unwrap_err().to_string().contains("nosuch0"));
    }
}
