//! Who belongs to the cluster: a table that shard 0 replicates, and from which every shard's leader takes its
//! members. Ids are given out once and never again, because an id stands for what its data once promised.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use kvindex_core::replication::{NodeAddress, NodeId};

/// A node that belongs to the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownNode {
    /// Where it is.
    pub address: NodeAddress,
    /// Drawn by the node when it asked to join: asking twice gives one id.
    pub nonce: u64,
    /// Whether it shall vote once it has caught up; otherwise it only follows and answers.
    pub voter: bool,
}

/// The table.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Directory {
    last_id: u64,
    /// Nodes that join get a vote while there are fewer voters than this.
    size: u16,
    nodes: BTreeMap<NodeId, KnownNode>,
}

/// A change of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum DirectoryChange {
    /// The nodes that found the cluster.
    Found {
        /// The voters.
        nodes: BTreeMap<NodeId, KnownNode>,
        /// How many voters there shall be.
        size: u16,
    },
    /// A node without data joins. Whoever was known at its address lost its data, so its id goes.
    Admit {
        /// Where it is.
        address: NodeAddress,
        /// See [`KnownNode::nonce`].
        nonce: u64,
    },
    /// A node gets a vote, or loses it.
    Vote {
        /// Which.
        node: NodeId,
        /// Whether it shall vote.
        voter: bool,
    },
    /// A node is somewhere else now.
    Move {
        /// Which.
        node: NodeId,
        /// Where.
        address: NodeAddress,
    },
    /// A node leaves for good.
    Dismiss(NodeId),
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DirectoryAnswer {
    /// The node has this id.
    Admitted(NodeId),
    /// It is so now.
    Done,
    /// There is no such node.
    Unknown,
    /// The cluster is still being founded: ask again.
    NotFounded,
}

impl Directory {
    /// Every node.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &KnownNode)> {
        self.nodes.iter().map(|(id, node)| (*id, node))
    }

    /// One node.
    #[must_use]
    pub fn get(&self, node: NodeId) -> Option<&KnownNode> {
        self.nodes.get(&node)
    }

    /// Whether a node belonged to the cluster once and does so no more. Ids are given out in order, so a table that is
    /// behind takes nobody for removed who only joined later.
    #[must_use]
    pub fn dismissed(&self, node: NodeId) -> bool {
        node.0 <= self.last_id && !self.nodes.contains_key(&node)
    }

    /// Whether nobody founded the cluster yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty() && self.last_id == 0
    }

    /// Changes it.
    pub fn apply(&mut self, change: DirectoryChange) -> DirectoryAnswer {
        match change {
            // Whoever founds the cluster is listed first. A node that came before would have its id taken.
            DirectoryChange::Admit { .. } if self.is_empty() => DirectoryAnswer::NotFounded,
            DirectoryChange::Found { nodes, size } => {
                if self.is_empty() {
                    self.size = size;
                    self.last_id = nodes.keys().last().map_or(0, |id| id.0);
                    self.nodes = nodes;
                }
                DirectoryAnswer::Done
            }
            DirectoryChange::Admit { address, nonce } => {
                DirectoryAnswer::Admitted(self.admit(address, nonce))
            }
            DirectoryChange::Vote { node, voter } => self.alter(node, |known| known.voter = voter),
            DirectoryChange::Move { node, address } => self.alter(node, |known| known.address = address),
            DirectoryChange::Dismiss(node) => match self.nodes.remove(&node) {
                None => DirectoryAnswer::Unknown,
                Some(_) => DirectoryAnswer::Done,
            },
        }
    }

    fn alter(&mut self, node: NodeId, alter: impl FnOnce(&mut KnownNode)) -> DirectoryAnswer {
        match self.nodes.get_mut(&node) {
            None => DirectoryAnswer::Unknown,
            Some(known) => {
                alter(known);
                DirectoryAnswer::Done
            }
        }
    }

    fn admit(&mut self, address: NodeAddress, nonce: u64) -> NodeId {
        let same = |known: &KnownNode| known.address == address && known.nonce == nonce;
        if let Some((id, _)) = self.nodes.iter().find(|(_, known)| same(known)) {
            return *id;
        }
        self.nodes.retain(|_, known| known.address.peer != address.peer);
        self.last_id += 1;
        let id = NodeId(self.last_id);
        let voters = self.nodes.values().filter(|known| known.voter).count();
        let voter = voters < usize::from(self.size);
        self.nodes.insert(id, KnownNode { address, nonce, voter });
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> NodeAddress {
        NodeAddress { peer: format!("a:{port}"), public: format!("a:{}", port + 1) }
    }

    fn founded() -> Directory {
        let mut directory = Directory::default();
        let founder = |n: u16| KnownNode { address: address(n), nonce: n.into(), voter: true };
        let nodes = BTreeMap::from([(NodeId(1), founder(1)), (NodeId(2), founder(2))]);
        directory.apply(DirectoryChange::Found { nodes, size: 2 });
        directory
    }

    fn admit(directory: &mut Directory, port: u16, nonce: u64) -> DirectoryAnswer {
        directory.apply(DirectoryChange::Admit { address: address(port), nonce })
    }

    #[test]
    fn ids_are_given_out_once() {
        let mut directory = founded();
        assert_eq!(admit(&mut directory, 3, 7), DirectoryAnswer::Admitted(NodeId(3)));
        assert_eq!(admit(&mut directory, 3, 7), DirectoryAnswer::Admitted(NodeId(3)));
        assert_eq!(directory.apply(DirectoryChange::Dismiss(NodeId(3))), DirectoryAnswer::Done);
        assert_eq!(directory.apply(DirectoryChange::Dismiss(NodeId(3))), DirectoryAnswer::Unknown);
        assert_eq!(admit(&mut directory, 3, 8), DirectoryAnswer::Admitted(NodeId(4)));
        assert!(directory.dismissed(NodeId(3)) && !directory.dismissed(NodeId(5)));
        // Founding happens once.
        directory.apply(DirectoryChange::Found { nodes: BTreeMap::new(), size: 9 });
        assert!(directory.get(NodeId(4)).is_some());
    }

    #[test]
    fn nobody_is_admitted_before_the_founders() {
        let mut directory = Directory::default();
        assert_eq!(admit(&mut directory, 1, 1), DirectoryAnswer::NotFounded);
        assert!(directory.is_empty());
        let mut directory = founded();
        // A founder that asked to join before it knew of the plan is who it is.
        assert_eq!(admit(&mut directory, 2, 2), DirectoryAnswer::Admitted(NodeId(2)));
    }

    #[test]
    fn a_node_that_comes_back_empty_takes_the_place_and_the_vote_of_its_old_id() {
        let mut directory = founded();
        assert_eq!(admit(&mut directory, 2, 9), DirectoryAnswer::Admitted(NodeId(3)));
        let nodes: Vec<_> = directory.nodes().map(|(id, known)| (id.0, known.voter)).collect();
        assert_eq!(nodes, [(1, true), (3, true)]);
    }

    #[test]
    fn nodes_beyond_the_size_follow_without_a_vote_until_they_get_one() {
        let mut directory = founded();
        admit(&mut directory, 5, 1);
        assert!(directory.get(NodeId(3)).is_some_and(|known| !known.voter));
        directory.apply(DirectoryChange::Vote { node: NodeId(3), voter: true });
        assert!(directory.get(NodeId(3)).is_some_and(|known| known.voter));
    }

    #[test]
    fn a_node_may_move() {
        let mut directory = founded();
        let change = DirectoryChange::Move { node: NodeId(1), address: address(9) };
        assert_eq!(directory.apply(change), DirectoryAnswer::Done);
        assert_eq!(directory.get(NodeId(1)).map(|known| &known.address), Some(&address(9)));
        let nobody = DirectoryChange::Move { node: NodeId(7), address: address(8) };
        assert_eq!(directory.apply(nobody), DirectoryAnswer::Unknown);
    }
}
