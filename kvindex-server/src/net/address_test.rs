//! Tables of addresses: what is read, how it is printed, what is refused and why, and what is told to others.
#![allow(clippy::unwrap_used)]

use super::*;

#[test]
fn addresses_are_read_and_printed_alike() {
    let table = [
        ("10.0.0.7:9590", "10.0.0.7:9590"),
        ("[fd00::7]:9590", "[fd00::7]:9590"),
        ("[FD00:0:0::7]:9590", "[fd00::7]:9590"),
        ("[::]:0", "[::]:0"),
        ("[fe80::1%eth0]:9590", "[fe80::1%eth0]:9590"),
        ("[fe80::1%2]:9590", "[fe80::1%2]:9590"),
        ("[::ffff:10.0.0.7]:9590", "10.0.0.7:9590"),
        ("index-0.peers.ns.svc.cluster.local:9591", "index-0.peers.ns.svc.cluster.local:9591"),
        ("index-0.peers.:65535", "index-0.peers.:65535"),
        ("my_host:1", "my_host:1"),
    ];
    for (text, printed) in table {
        let read = HostPort::parse(text).unwrap();
        assert_eq!(read.to_string(), printed);
        assert_eq!(HostPort::parse(printed).unwrap(), read, "{printed} is read as it was meant");
    }
}

#[test]
fn a_port_is_added_where_none_is_told() {
    let table = [
        ("10.0.0.7", "10.0.0.7:9590"),
        ("fd00::7", "[fd00::7]:9590"),
        ("[fd00::7]", "[fd00::7]:9590"),
        ("fe80::1%eth0", "[fe80::1%eth0]:9590"),
        ("index-0", "index-0:9590"),
        ("index-0:80", "index-0:80"),
        ("::", "[::]:9590"),
    ];
    for (text, printed) in table {
        assert_eq!(HostPort::parse_or(text, 9590).unwrap().to_string(), printed);
    }
}

#[test]
fn what_is_no_address_is_refused_with_the_reason() {
    use AddressError::*;
    let table = [
        ("", Empty),
        ("10.0.0.7", NoPort),
        ("index-0", NoPort),
        ("[fd00::7]", NoPort),
        ("fd00::7", Unbracketed),
        ("fd00::7:9590", Unbracketed),
        ("index-0:", BadPort),
        ("index-0:+80", BadPort),
        ("index-0:65536", BadPort),
        ("index-0:http", BadPort),
        ("[fd00::7]9590", BadPort),
        ("[fd00::7", BadBrackets),
        ("[10.0.0.7]:80", BadBrackets),
        ("[index-0]:80", BadBrackets),
        ("a:b:c", BadBrackets),
        ("[fd00::7%eth0]:80", ZoneNotNeeded),
        ("[fe80::1%]:80", BadHost),
        ("[fe80::1%an-interface-too-long]:80", BadHost),
        (":80", BadHost),
        ("10.0.0.300:80", BadHost),
        ("two words:80", BadHost),
        ("a..b:80", BadHost),
        ("http//x:80", BadHost),
        ("*:80", BadHost),
    ];
    for (text, error) in table {
        assert_eq!(HostPort::parse(text), Err(error), "{text}");
    }
    assert_eq!(HostPort::parse_or(&"a".repeat(64), 1), Err(BadHost));
    assert_eq!(HostPort::parse_or(&"a.".repeat(127), 1).map(|_| ()), Ok(()));
    assert_eq!(HostPort::parse_or(&"a.".repeat(128), 1), Err(BadHost));
}

#[test]
fn an_ipv4_client_of_a_dual_stack_socket_has_one_address() {
    let as_seen: SocketAddr = "[::ffff:10.0.0.7]:4711".parse().unwrap();
    assert_eq!(canonical(as_seen).to_string(), "10.0.0.7:4711");
    assert_eq!(HostPort::from(as_seen).to_string(), "10.0.0.7:4711");
    for other in ["10.0.0.7:1", "[fd00::7]:1", "[::1]:1"] {
        assert_eq!(canonical(other.parse().unwrap()).to_string(), other);
    }
    let scoped = SocketAddrV6::new("fe80::1".parse().unwrap(), 80, 0, 2);
    assert_eq!(HostPort::from(SocketAddr::from(scoped)).to_string(), "[fe80::1%2]:80");
}

#[test]
fn only_addresses_that_others_reach_are_told() {
    let table = [
        ("10.0.0.7", Reach::Others),
        ("100.64.0.1", Reach::Others),
        ("2001:db8::7", Reach::Others),
        ("fd12:3456::7", Reach::Others),
        ("::ffff:10.0.0.7", Reach::Others),
        ("127.8.8.8", Reach::Loopback),
        ("::1", Reach::Loopback),
        ("::ffff:127.0.0.1", Reach::Loopback),
        ("169.254.1.1", Reach::LinkLocal),
        ("fe80::1", Reach::LinkLocal),
        ("febf::1", Reach::LinkLocal),
        ("0.0.0.0", Reach::Unspecified),
        ("::", Reach::Unspecified),
        ("224.0.0.1", Reach::Multicast),
        ("ff02::1", Reach::Multicast),
    ];
    for (ip, reach) in table {
        assert_eq!(Reach::of(ip.parse().unwrap()), reach, "{ip}");
        assert_eq!(reach.not_told(false).is_none(), reach == Reach::Others, "{ip}");
    }
    assert_eq!(Reach::Loopback.not_told(true), None);
    assert!(Reach::LinkLocal.not_told(true).is_some());
}
