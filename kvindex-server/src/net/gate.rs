//! How many connections a door takes, and of these one address. One more is closed at once: a client that is refused
//! within a moment tries another node, one that waits in a queue does not.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::metrics::NetMetrics;

/// Between two lines in the log: whoever comes too often must not fill it as well.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// What part of a door's connections one address may have: a stranger leaves the others three quarters.
const SHARE: usize = 4;

/// Bits of an IPv6 address that count, but for unique-local ones: one host has all the rest to choose from.
const IPV6_PREFIX: u32 = 64;

/// Where a mesh's sidecar hands over what it let in (Istio's `InboundPassthroughBindIpv4`), whoever the client is.
const SIDECAR: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 6);

/// Counts a door's connections.
#[derive(Debug)]
pub(crate) struct Gate {
    door: &'static str,
    limit: usize,
    room: Arc<Semaphore>,
    shares: Arc<Shares>,
    metrics: NetMetrics,
    told: Mutex<Option<Instant>>,
}

/// Connections by address. It never has more entries than there are connections.
#[derive(Debug)]
struct Shares {
    most: usize,
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// The right to be open, until it is dropped.
#[derive(Debug)]
pub(crate) struct Pass {
    door: &'static str,
    metrics: NetMetrics,
    /// Whose share it is of; `None` for this machine's own.
    of: Option<IpAddr>,
    shares: Arc<Shares>,
    _room: OwnedSemaphorePermit,
}

/// The address that a share belongs to. This machine's own has none: what comes from there (a proxy, a test) may
/// stand for many, and whoever is on the machine has other ways.
fn owner(from: IpAddr) -> Option<IpAddr> {
    match from {
        IpAddr::V4(Ipv4Addr::LOCALHOST | SIDECAR) | IpAddr::V6(Ipv6Addr::LOCALHOST) => None,
        IpAddr::V4(_) => Some(from),
        // Addresses of one's own network are given out there, one to each.
        IpAddr::V6(address) if address.is_unique_local() => Some(from),
        IpAddr::V6(address) => {
            let prefix = address.to_bits() & (u128::MAX << (Ipv6Addr::BITS - IPV6_PREFIX));
            Some(Ipv6Addr::from_bits(prefix).into())
        }
    }
}

impl Shares {
    fn take(&self, of: IpAddr) -> bool {
        let mut open = self.open.lock();
        let count = open.entry(of).or_default();
        let fits = *count < self.most;
        *count += usize::from(fits);
        fits
    }

    fn give_back(&self, of: IpAddr) {
        let mut open = self.open.lock();
        if let Some(count) = open.get_mut(&of) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                open.remove(&of);
            }
        }
    }
}

impl Gate {
    pub(crate) fn new(door: &'static str, limit: usize, metrics: NetMetrics) -> Self {
        let room = Arc::new(Semaphore::new(limit.min(Semaphore::MAX_PERMITS)));
        let shares = Arc::new(Shares { most: limit.div_ceil(SHARE), open: Mutex::default() });
        Self { door, limit, room, shares, metrics, told: Mutex::default() }
    }

    /// Lets one more connection in, from an address without port; `None` when there is no room, which is counted.
    pub(crate) fn admit(&self, from: IpAddr) -> Option<Pass> {
        let Ok(room) = Arc::clone(&self.room).try_acquire_owned() else {
            return self.refuse("no room for another connection", None, self.limit);
        };
        let of = owner(from);
        if of.is_some_and(|of| !self.shares.take(of)) {
            return self.refuse("no room for another connection from this address", of, self.shares.most);
        }
        self.metrics.opened(self.door);
        let (metrics, shares) = (self.metrics.clone(), Arc::clone(&self.shares));
        Some(Pass { door: self.door, metrics, of, shares, _room: room })
    }

    fn refuse(&self, why: &str, from: Option<IpAddr>, limit: usize) -> Option<Pass> {
        self.metrics.refused(self.door);
        let mut told = self.told.lock();
        if told.is_none_or(|at| at.elapsed() >= TOLD_EVERY) {
            *told = Some(Instant::now());
            let from = from.map(tracing::field::display);
            tracing::warn!(door = self.door, limit, from, "{why}");
        }
        None
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some(of) = self.of {
            self.shares.give_back(of);
        }
        self.metrics.closed(self.door);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn admitted(gate: &Gate, from: &str, tries: usize) -> Vec<Pass> {
        (0..tries).filter_map(|_| gate.admit(from.parse().unwrap())).collect()
    }

    #[test]
    fn one_address_has_a_share_and_this_machine_has_all() {
        let gate = Gate::new("public", 8, NetMetrics::default());
        let first = admitted(&gate, "192.0.2.1", 5);
        assert_eq!(first.len(), 2, "a quarter");
        let second = admitted(&gate, "192.0.2.2", 1);
        assert_eq!(second.len(), 1, "another address has its own");
        let prefix =
            admitted(&gate, "2001:db8:0:1::1", 1).len() + admitted(&gate, "2001:db8:0:1:2::9", 1).len();
        assert_eq!(prefix, 2, "given back at once");
        let one = admitted(&gate, "2001:db8:0:1::1", 1);
        let rest = admitted(&gate, "2001:db8:0:1:ffff::1", 9);
        assert_eq!((one.len(), rest.len()), (1, 1), "a prefix of 64 bits is one address");
        for whoever in ["127.0.0.1", "127.0.0.6"] {
            assert_eq!(admitted(&gate, whoever, 9).len(), 3, "whatever room is left");
        }
        drop((first, rest));
        assert_eq!(admitted(&gate, "192.0.2.1", 5).len(), 2, "what is closed is given back");
        drop((one, second));
        assert!(gate.shares.open.lock().is_empty(), "no entry is left behind");
    }
}
