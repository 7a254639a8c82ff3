//! Tests of endpoints.
#![allow(clippy::unwrap_used)]

use super::*;

#[test]
fn endpoints_are_read_and_printed() {
    for text in ["tcp://10.0.0.7:5557", "tcp://engine-0.svc:1", "tcp://[fd00::1]:5557", "ipc:///tmp/kv"] {
        let endpoint = Endpoint::parse(text).unwrap();
        assert_eq!((endpoint.to_string().as_str(), endpoint.address().as_str()), (text, text));
        assert!(!endpoint.binds());
        assert_eq!(Endpoint::parse_replay(text).unwrap(), endpoint);
    }
}

#[test]
fn an_endpoint_without_a_host_of_its_own_is_bound() {
    for text in ["tcp://*:5557", "tcp://0.0.0.0:5557", "tcp://[::]:5557", "tcp://[0:0::0]:5557"] {
        let endpoint = Endpoint::parse(text).unwrap();
        assert_eq!((endpoint.to_string().as_str(), endpoint.address().as_str()), (text, text));
        assert!(endpoint.binds());
        assert_eq!(Endpoint::parse(&format!("bind+{text}")).unwrap(), endpoint, "saying it twice is no harm");
        assert!(Endpoint::parse_replay(text).unwrap_err().contains("always binds its replay socket"));
    }
}

#[test]
fn one_address_is_bound_when_asked_for() {
    for (text, address) in [
        ("bind+tcp://127.0.0.1:5557", "tcp://127.0.0.1:5557"),
        ("bind+tcp://[fd00::1]:5557", "tcp://[fd00::1]:5557"),
    ] {
        let endpoint = Endpoint::parse(text).unwrap();
        assert_eq!((endpoint.to_string().as_str(), endpoint.address().as_str()), (text, address));
        assert!(endpoint.binds());
        assert!(Endpoint::parse_replay(text).unwrap_err().contains("name the engine's host"));
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
        ("tcp://*:0", "1 to 65535"),
        ("tcp://*:*", "1 to 65535"),
        ("bind+tcp://127.0.0.1:0", "1 to 65535"),
        ("tcp://:5557", "names no host"),
        ("tcp://a*:5557", "is not a host"),
        ("tcp://a b:5557", "is not a host"),
        ("tcp://fd00::1:5557", "brackets"),
        ("bind+tcp://engine-0.svc:5557", "IP address of this machine"),
        ("bind+ipc:///tmp/kv", "must look like"),
        ("bind+bind+tcp://*:1", "must look like"),
        ("ipc://", "no path"),
        ("inproc://kv", "must look like"),
    ] {
        for error in [Endpoint::parse(text).unwrap_err(), Endpoint::parse_replay(text).unwrap_err()] {
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}

#[test]
fn ranks_count_ports_up() {
    let texts = |text: &str, ranks| {
        let spread = spread(&Endpoint::parse(text).unwrap(), ranks)?;
        Ok::<_, String>(spread.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    assert_eq!(texts("tcp://h:65534", 2).unwrap(), ["tcp://h:65534", "tcp://h:65535"]);
    assert_eq!(texts("tcp://*:5557", 2).unwrap(), ["tcp://*:5557", "tcp://*:5558"]);
    let bound = texts("bind+tcp://127.0.0.1:5557", 2).unwrap();
    assert_eq!(bound, ["bind+tcp://127.0.0.1:5557", "bind+tcp://127.0.0.1:5558"]);
    assert!(texts("tcp://h:65534", 3).unwrap_err().contains("65536"));
    assert!(texts("ipc:///kv", 2).is_err());
}

#[test]
fn only_names_are_looked_up() {
    let named = |text: &str| Endpoint::parse(text).unwrap().named().map(|named| named.to_string());
    assert_eq!(named("tcp://engine-0.engines:5557"), Some("engine-0.engines:5557".into()));
    for text in [
        "tcp://10.0.0.7:5557",
        "tcp://[fd00::7]:5557",
        "tcp://*:5557",
        "ipc:///run/x",
        "bind+tcp://10.0.0.7:1",
    ] {
        assert_eq!(named(text), None, "{text}");
    }
}
