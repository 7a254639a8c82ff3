//! Which publishers a subscription has, from what its monitor tells. A socket that connects has one at most; one
//! that binds takes whoever comes, so a port scanner's connection must not pass for an engine, nor its end for
//! the engine's.

/// What a monitor tells of one connection. ZeroMQ names the connection's descriptor where it opens and closes,
/// but not where its handshake ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// It is there; who is at the other end is not known yet.
    Opened(u32),
    /// A handshake ended well: a publisher.
    Welcomed,
    /// A handshake failed; the connection's end follows.
    Refused,
    /// It is gone.
    Closed(u32),
}

#[derive(Debug)]
struct Connection {
    descriptor: u32,
    publisher: bool,
}

/// The connections of one subscription.
#[derive(Debug, Default)]
pub(super) struct Peers {
    connections: Vec<Connection>,
    refused: bool,
}

impl Peers {
    /// Publishers that are connected.
    pub(super) fn publishers(&self) -> usize {
        self.connections.iter().filter(|connection| connection.publisher).count()
    }

    /// Takes in a change.
    pub(super) fn note(&mut self, change: Change) {
        match change {
            Change::Opened(descriptor) => {
                self.connections.push(Connection { descriptor, publisher: false });
            }
            Change::Welcomed => self.welcome(),
            Change::Refused => self.refused = true,
            Change::Closed(descriptor) => self.close(descriptor),
        }
    }

    /// A handshake takes an instant, so of several open ones the youngest is the likeliest to have ended.
    fn welcome(&mut self) {
        let waiting = self.connections.iter_mut().rev().find(|connection| !connection.publisher);
        if let Some(connection) = waiting {
            connection.publisher = true;
        }
    }

    fn close(&mut self, descriptor: u32) {
        let refused = std::mem::take(&mut self.refused);
        let Some(at) = self.connections.iter().position(|c| c.descriptor == descriptor) else {
            return;
        };
        let closed = self.connections.remove(at);
        if refused && closed.publisher {
            // It never was one: the handshake that ended well was another connection's.
            self.welcome();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Change::{Closed, Opened, Refused, Welcomed};
    use super::*;

    fn after(changes: &[Change]) -> usize {
        let mut peers = Peers::default();
        changes.iter().for_each(|change| peers.note(*change));
        peers.publishers()
    }

    #[test]
    fn a_publisher_comes_and_goes() {
        assert_eq!(after(&[Opened(7)]), 0);
        assert_eq!(after(&[Opened(7), Welcomed]), 1);
        assert_eq!(after(&[Opened(7), Welcomed, Closed(7)]), 0);
        assert_eq!(after(&[Opened(7), Welcomed, Opened(8), Welcomed]), 2);
        assert_eq!(after(&[Opened(7), Welcomed, Opened(8), Welcomed, Closed(7)]), 1);
    }

    #[test]
    fn a_stranger_that_leaves_takes_no_publisher_with_it() {
        assert_eq!(after(&[Opened(7), Welcomed, Opened(8), Refused, Closed(8)]), 1);
        // A socket of a wrong kind is cut off without a word.
        assert_eq!(after(&[Opened(7), Welcomed, Opened(8), Closed(8)]), 1);
    }

    #[test]
    fn a_silent_stranger_is_not_the_publisher_that_came_after_it() {
        let both = [Opened(7), Opened(8), Welcomed];
        assert_eq!(after(&both), 1);
        assert_eq!(after(&[&both[..], &[Refused, Closed(7)]].concat()), 1);
        assert_eq!(after(&[&both[..], &[Closed(8)]].concat()), 0);
        // The other way round the guess is wrong, until the stranger is sent away.
        let other = [Opened(8), Opened(7), Welcomed, Refused, Closed(7)];
        assert_eq!(after(&other), 1);
        assert_eq!(after(&[&other[..], &[Closed(8)]].concat()), 0);
    }
}
