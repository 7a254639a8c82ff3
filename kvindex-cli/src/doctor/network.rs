//! What the network gives a node: its doors, the names and addresses others are told, the other nodes.

use kvindex_server::config::{ClusterConfig, Config};
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

use super::finding::{Finding, Findings};

/// How long a name or a connection may take; as long as a node gives its peers.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) async fn examine(config: &Config, findings: &mut Findings) {
    families(findings);
    door("listen", config.listen, findings).await;
    if let Some(cluster) = &config.cluster {
        if let Some(listen) = cluster.peer_listen {
            door("peer_listen", listen, findings).await;
        }
        told(config, cluster, findings).await;
        peers(&cluster.peers, findings).await;
    }
    overlaps(findings);
}

/// Which families there are at all: where one is missing, addresses of it cannot be dialled.
fn families(findings: &mut Findings) {
    let has = |address: &str| std::net::UdpSocket::bind(address).is_ok();
    findings.note(match (has("127.0.0.1:0"), has("[::1]:0")) {
        (true, true) => Finding::well("address families", "IPv4 and IPv6"),
        (true, false) => Finding::well("address families", "IPv4 only"),
        (false, true) => Finding::well("address families", "IPv6 only"),
        (false, false) => {
            let next = "bring the loopback interface up: `ip link set lo up`";
            Finding::wrong("address families", "neither 127.0.0.1 nor ::1 can be used", next)
        }
    });
}

/// Whether a door can be opened: it is free, or a kvindex stands in it already.
async fn door(key: &'static str, address: SocketAddr, findings: &mut Findings) {
    let finding = match TcpListener::bind(address).await {
        Ok(_) => Finding::well(key, format!("{address} is free")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let dialled = if address.ip().is_unspecified() { loopback(address) } else { address };
            match answers_as_kvindex(dialled).await {
                true => Finding::well(key, format!("a node serves on {address} already")),
                // Other nodes speak no HTTP/1 there.
                false if key == "peer_listen" => Finding::doubtful(
                    key,
                    format!("{address} is in use"),
                    "by this node itself, or by another program?",
                ),
                false => {
                    let next = format!("end the other program, or choose another port ({key})");
                    Finding::wrong(key, format!("{address} is taken by a program that is no kvindex"), next)
                }
            }
        }
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
            let next = format!("choose an address of this machine ({key}), or [::] for all");
            Finding::wrong(key, format!("{address} is no address of this machine"), next)
        }
        Err(error) => Finding::wrong(key, format!("{address}: {error}"), format!("choose another ({key})")),
    };
    findings.note(finding);
}

fn loopback(address: SocketAddr) -> SocketAddr {
    let ip: IpAddr = match address {
        SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, address.port())
}

async fn answers_as_kvindex(address: SocketAddr) -> bool {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let asked = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET /readyz HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(4096).read_to_end(&mut answer).await?;
        io::Result::Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer = tokio::time::timeout(PATIENCE, asked).await;
    answer.is_ok_and(|answer| answer.is_ok_and(|answer| answer.contains("ready")))
}

/// What others are told of this node must lead to it.
async fn told(config: &Config, cluster: &ClusterConfig, findings: &mut Findings) {
    let told = [
        ("advertise_peer", &cluster.advertise_peer, cluster.peer_listen),
        ("advertise", &cluster.advertise, Some(config.listen)),
    ];
    for (key, address, listen) in told {
        let Some(address) = address else { continue };
        match resolve(address).await {
            Err(reason) => {
                let next = format!("give {key} a name or address that other nodes can resolve");
                findings.note(Finding::wrong(key, format!("{address}: {reason}"), next));
            }
            Ok(found) => {
                let alone = listen.is_some_and(|listen| listen.ip().is_loopback());
                let loopback = found.iter().any(|address| address.ip().is_loopback());
                findings.note(if loopback && !alone {
                    let next = format!("tell others an address that is not loopback ({key})");
                    Finding::wrong(key, format!("{address} leads others to themselves"), next)
                } else {
                    Finding::well(key, format!("{address} is {}", list(&found)))
                });
            }
        }
    }
}

async fn peers(peers: &[String], findings: &mut Findings) {
    for peer in peers {
        let name = peer.strip_prefix("dns:").unwrap_or(peer);
        let found = match resolve(name).await {
            Ok(found) => found,
            Err(reason) => {
                let next = "correct cluster_peers; in Kubernetes a headless Service with \
                            publishNotReadyAddresses";
                findings.note(Finding::wrong("peers", format!("{peer}: {reason}"), next));
                continue;
            }
        };
        for address in found {
            findings.note(match reach(address).await {
                Ok(()) => Finding::well("peers", format!("{peer}: {address} can be reached")),
                // A cluster whose nodes do not run yet is none that is wrong.
                Err(reason) => Finding::doubtful(
                    "peers",
                    format!("{peer}: {address}: {reason}"),
                    "is kvindex running there, and do firewalls let its peer port through?",
                ),
            });
        }
    }
}

/// Two interfaces whose networks overlap: packets for one leave by the other.
fn overlaps(findings: &mut Findings) {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let networks: BTreeSet<(String, IpAddr, u8)> = interfaces
        .iter()
        .filter(|interface| !interface.is_loopback() && !interface.is_link_local())
        .map(|interface| match &interface.addr {
            if_addrs::IfAddr::V4(v4) => (interface.name.clone(), IpAddr::V4(v4.ip), v4.prefixlen),
            if_addrs::IfAddr::V6(v6) => (interface.name.clone(), IpAddr::V6(v6.ip), v6.prefixlen),
        })
        .collect();
    let mut found = false;
    for (name, ip, prefix) in &networks {
        for (other, other_ip, other_prefix) in networks.iter().filter(|(other, ..)| other > name) {
            // A network of one address is a route to it, not a network.
            let single = |ip: &IpAddr, prefix: u8| prefix == if ip.is_ipv4() { 32 } else { 128 };
            if single(ip, *prefix) || single(other_ip, *other_prefix) {
                continue;
            }
            if overlap(*ip, *prefix, *other_ip, *other_prefix) {
                found = true;
                let what = format!("{name} ({ip}/{prefix}) and {other} ({other_ip}/{other_prefix}) overlap");
                let next = "give containers, pods and hosts networks of their own";
                findings.note(Finding::doubtful("networks", what, next));
            }
        }
    }
    if !found {
        findings.note(Finding::well("networks", format!("{} interfaces, none overlap", networks.len())));
    }
}

/// Whether two networks share an address.
fn overlap(a: IpAddr, a_prefix: u8, b: IpAddr, b_prefix: u8) -> bool {
    let bits = |ip: IpAddr| match ip {
        // In the upper bits, so that prefixes count from the same end.
        IpAddr::V4(ip) => u128::from(ip.to_bits()) << 96,
        IpAddr::V6(ip) => ip.to_bits(),
    };
    let shorter = u32::from(a_prefix.min(b_prefix));
    let mask = u128::MAX.checked_shl(128 - shorter).unwrap_or(0);
    a.is_ipv4() == b.is_ipv4() && bits(a) & mask == bits(b) & mask
}

pub(super) async fn resolve(name: &str) -> Result<Vec<SocketAddr>, String> {
    match tokio::time::timeout(PATIENCE, tokio::net::lookup_host(name)).await {
        Ok(Ok(found)) => {
            let found: Vec<SocketAddr> = found.collect();
            if found.is_empty() { Err("its name has no address".into()) } else { Ok(found) }
        }
        Ok(Err(error)) => Err(format!("its name leads nowhere: {error}")),
        Err(_) => Err(format!("its name was not resolved within {} s", PATIENCE.as_secs())),
    }
}

async fn reach(address: SocketAddr) -> Result<(), String> {
    match tokio::time::timeout(PATIENCE, TcpStream::connect(address)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no connection within {} s", PATIENCE.as_secs())),
    }
}

fn list(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_overlap_when_the_shorter_prefix_is_the_same() {
        let overlaps = |a: &str, b: &str| {
            let parse = |text: &str| {
                let (ip, prefix) = text.split_once('/').unwrap_or((text, "32"));
                (ip.parse().unwrap_or(IpAddr::from([0, 0, 0, 0])), prefix.parse().unwrap_or(0))
            };
            let ((a, a_prefix), (b, b_prefix)) = (parse(a), parse(b));
            overlap(a, a_prefix, b, b_prefix)
        };
        assert!(overlaps("10.0.0.1/8", "10.244.0.1/16"));
        assert!(overlaps("172.17.0.1/16", "172.17.9.9/24"));
        assert!(!overlaps("172.17.0.1/16", "172.18.0.1/16"));
        assert!(overlaps("fd00::1/64", "fd00::2/64") && !overlaps("fd00::1/64", "fd00:0:0:1::1/64"));
        assert!(!overlaps("10.0.0.1/8", "a00::1/8"), "families have nothing in common");
        assert!(overlaps("10.0.0.1/0", "192.168.0.1/24"));
    }
}
