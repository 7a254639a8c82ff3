//! Which hosts the callers of a tenant may name as engines: kvindex connects to what they name and shows them what it
//! hears, so a tenant that could name any host could name another tenant's.

use std::net::IpAddr;

use crate::net::Host;

/// What stands for every host that may be an engine at all.
const EVERY: &str = "*";

/// One entry of `engines`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Engines {
    /// Any host.
    All,
    /// Addresses that begin with these bits.
    Network { start: IpAddr, bits: u32 },
    /// This name, in lower case.
    Name(String),
    /// Names that end so, in lower case and with the dot.
    Within(String),
}

impl Engines {
    /// Reads an entry; the error says what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text == EVERY {
            return Ok(Self::All);
        }
        if let Some((start, bits)) = text.split_once('/') {
            return network(text, start, bits);
        }
        let (name, within) = match text.strip_prefix("*.") {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        match Host::parse(name) {
            Ok(Host::Ip(start)) if !within => Ok(Self::Network { start, bits: width(start) }),
            Ok(Host::Name(name)) if !is_number(&name) => {
                let name = plain(&name);
                Ok(if within { Self::Within(format!(".{name}")) } else { Self::Name(name) })
            }
            _ => Err(format!(
                "{text:?} must be an address, a network such as 10.1.0.0/16, a name, *.suffix, or * for any host"
            )),
        }
    }

    fn admits(&self, host: &Host) -> bool {
        match (self, host) {
            (Self::All, _) => true,
            (Self::Network { start, bits }, Host::Ip(ip)) => {
                width(*start) == width(*ip) && begin(*start, *bits) == begin(*ip, *bits)
            }
            (Self::Name(name), Host::Name(asked)) => *name == plain(asked),
            (Self::Within(suffix), Host::Name(asked)) => plain(asked).ends_with(suffix.as_str()),
            _ => false,
        }
    }
}

/// Whether these entries let callers name a host; the error says why not.
pub(super) fn admit(engines: &[Engines], host: &Host) -> Result<(), &'static str> {
    if is_own(host) {
        return Err("is this machine's or its link's, which no tenant's engine is reached by");
    }
    if engines.iter().any(|entry| entry.admits(host)) {
        return Ok(());
    }
    Err("is not among the tenant's engines (`engines` in [[tenants]] of the access file)")
}

/// Whether a host is, or may be read as, the node's own machine or a neighbour on its link.
fn is_own(host: &Host) -> bool {
    match host {
        Host::Ip(IpAddr::V4(ip)) => {
            ip.is_loopback() || ip.is_link_local() || ip.is_unspecified() || ip.is_multicast()
        }
        Host::Ip(IpAddr::V6(ip)) => {
            let carried = ip.to_ipv4().is_some();
            ip.is_loopback()
                || ip.is_unicast_link_local()
                || ip.is_unspecified()
                || ip.is_multicast()
                || carried
        }
        Host::Zoned(..) => true,
        Host::Name(name) => {
            let name = plain(name);
            name == "localhost" || name.ends_with(".localhost") || is_number(&name)
        }
    }
}

/// Names whose last part is a number are read as addresses by some resolvers: `127.1`, `0x7f000001`.
fn is_number(name: &str) -> bool {
    let last = name.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    let hex = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    let digits = |text: &str, digit: fn(&u8) -> bool| text.bytes().all(|byte| digit(&byte));
    digits(last, u8::is_ascii_digit) || hex.is_some_and(|hex| digits(hex, u8::is_ascii_hexdigit))
}

/// A name as it is compared: its case says nothing, and a dot at its end neither.
fn plain(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

fn network(text: &str, start: &str, bits: &str) -> Result<Engines, String> {
    let wrong = || format!("{text:?} must be a network such as 10.1.0.0/16 or fd00:1::/32");
    let start: IpAddr = start.parse().map_err(|_| wrong())?;
    if matches!(start, IpAddr::V6(address) if address.to_ipv4_mapped().is_some()) {
        return Err(format!("{text:?} is IPv4 written as IPv6; write it as IPv4, such as 10.1.0.0/16"));
    }
    let bits = bits.parse().ok().filter(|bits| *bits <= width(start)).ok_or_else(wrong)?;
    if begin(start, bits) != begin(start, width(start)) {
        return Err(format!(
            "{text:?} has bits set behind the first {bits}; write the network's first address"
        ));
    }
    Ok(Engines::Network { start, bits })
}

/// Bits of an address.
fn width(ip: IpAddr) -> u32 {
    if ip.is_ipv4() { 32 } else { 128 }
}

/// The first bits of an address, the others zero.
fn begin(ip: IpAddr, bits: u32) -> u128 {
    let number = match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()) << 96,
        IpAddr::V6(ip) => ip.to_bits(),
    };
    number & u128::MAX.checked_shl(128 - bits).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn admits(entries: &[&str], host: &str) -> bool {
        let entries: Vec<Engines> = entries.iter().map(|entry| Engines::parse(entry).unwrap()).collect();
        // What is no host is no endpoint either.
        Host::parse(host).is_ok_and(|host| admit(&entries, &host).is_ok())
    }

    #[test]
    fn hosts_within_the_entries_pass_and_others_do_not() {
        let entries = ["10.1.0.0/16", "fd00:1::/32", "192.0.2.7", "*.team-a.svc", "engine-1.example"];
        for host in [
            "10.1.255.3",
            "[fd00:1:2::7]",
            "::ffff:10.1.0.1",
            "192.0.2.7",
            "w0.Team-A.svc",
            "w0.x.team-a.svc.",
            "ENGINE-1.example",
        ] {
            assert!(admits(&entries, host), "{host}");
        }
        for host in
            ["10.2.0.1", "fd00:2::7", "192.0.2.8", "team-a.svc", "evilteam-a.svc", "x.engine-1.example"]
        {
            assert!(!admits(&entries, host), "{host}");
            assert!(!admits(&[], host), "{host}");
            assert!(admits(&["*"], host), "{host}");
        }
        assert!(admits(&["0.0.0.0/0"], "10.2.0.1") && !admits(&["0.0.0.0/0"], "fd00::1"));
        assert!(admits(&["::/0"], "fd00::1"));
    }

    #[test]
    fn the_machine_itself_never_passes_however_it_is_written() {
        let entries = ["*", "0.0.0.0/0", "::/0", "127.0.0.0/8", "localhost", "*.localhost"];
        for host in [
            "127.0.0.1",
            "127.9.9.9",
            "::1",
            "[::1]",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "169.254.169.254",
            "fe80::1",
            "fe80::1%eth0",
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "ff02::1",
            "localhost",
            "LOCALHOST.",
            "a.localhost",
            "127.1",
            "2130706433",
            "0x7f000001",
            "0x7f.1",
        ] {
            assert!(!admits(&entries, host), "{host}");
        }
    }

    #[test]
    fn entries_that_say_nothing_clear_are_refused() {
        for text in [
            "::ffff:10.0.0.0/104",
            "",
            "10.1.0.0/33",
            "10.1.2.3/16",
            "10.1/16",
            "*.",
            "*.10.1",
            "*x.example",
            "a b",
            "tcp://a",
            "127.1",
        ] {
            assert!(Engines::parse(text).is_err(), "{text}");
        }
    }
}
