//! What a change would do, shard by shard: how many votes are left, and whether enough of them answer. The node
//! decides; this tells beforehand.

use serde::Serialize;
use std::collections::BTreeSet;

use super::view::View;
use crate::tables::{self, cell};

/// A change of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Remove { node: u64, force: bool },
    Vote { node: u64, voter: bool },
    Transfer { shard: u32, to: u64 },
}

/// What it would do.
#[derive(Debug, Serialize)]
pub(super) struct Plan {
    /// The change in words.
    pub(super) what: String,
    /// Whether every shard that it concerns can go on.
    pub(super) goes_on: bool,
    /// The shards that it concerns.
    pub(super) shards: Vec<ShardPlan>,
    /// What else to know.
    pub(super) notes: Vec<String>,
}

/// What it would do to one shard.
#[derive(Debug, Serialize)]
pub(super) struct ShardPlan {
    shard: u32,
    leader: u64,
    /// Votes as they are.
    voters: usize,
    /// Votes afterwards.
    voters_after: usize,
    /// How many of those answer now.
    answering_after: usize,
    /// How many must.
    quorum_after: usize,
    goes_on: bool,
}

impl Plan {
    /// An error says why there is nothing to plan.
    pub(super) fn of(change: Change, view: &View) -> Result<Self, String> {
        match change {
            Change::Remove { node, force } => Self::removal(node, force, view),
            Change::Vote { node, voter } => Self::vote(node, voter, view),
            Change::Transfer { shard, to } => Self::transfer(shard, to, view),
        }
    }

    fn removal(node: u64, force: bool, view: &View) -> Result<Self, String> {
        let address = known(node, view)?;
        let mut after = voters(view);
        after.remove(&node);
        let mut plan = Self::with(format!("remove node {node} ({address}) for good"), &after, view)?;
        plan.note_of_led(node, view);
        plan.notes.push("its id is never used again; to come back, the node needs an empty data_dir".into());
        if !plan.goes_on {
            plan.notes.push(match force {
                true => "too few of the others answer: the shards stand still until they do".into(),
                false => "too few of the others answer: it will be refused without --force".into(),
            });
        }
        Ok(plan)
    }

    fn vote(node: u64, voter: bool, view: &View) -> Result<Self, String> {
        let address = known(node, view)?;
        let mut after = voters(view);
        let changed = if voter { after.insert(node) } else { after.remove(&node) };
        let what = match voter {
            true => format!("give node {node} ({address}) a vote"),
            false => format!("take the vote of node {node} ({address}) away"),
        };
        let mut plan = Self::with(what, &after, view)?;
        match (changed, voter) {
            (false, true) => plan.notes.push("it has a vote already".into()),
            (false, false) => plan.notes.push("it has no vote as it is".into()),
            (true, true) => plan.notes.push("it votes in each shard once it has caught up there".into()),
            (true, false) => plan.note_of_led(node, view),
        }
        Ok(plan)
    }

    fn transfer(shard: u32, to: u64, view: &View) -> Result<Self, String> {
        let state = view.shards.get(&shard).ok_or_else(|| {
            format!("there is no shard {shard}: the cluster has {}", view.asked.shards.len())
        })?;
        known(to, view)?;
        let heir = state.members.iter().find(|member| member.node_id == to && member.voter);
        let heir = heir.ok_or_else(|| format!("node {to} has no vote in shard {shard}; promote it first"))?;
        let after = state.members.iter().filter(|member| member.voter).map(|member| member.node_id).collect();
        let mut plan = Self::with(format!("let node {to} lead shard {shard}"), &after, view)?;
        plan.shards.retain(|concerned| concerned.shard == shard);
        if state.leader == to {
            plan.notes.push("it leads the shard already".into());
        }
        if let (Some(last), Some(matched)) = (state.last, heir.matched)
            && matched < last
        {
            plan.notes.push(format!("it is {} entries behind and takes over after them", last - matched));
        }
        if !view.answering.contains(&to) {
            plan.notes
                .push(format!("node {to} does not answer: the shard's leader stays if it cannot take over"));
            plan.goes_on = false;
        }
        Ok(plan)
    }

    /// The plan in which `after` vote.
    fn with(what: String, after: &BTreeSet<u64>, view: &View) -> Result<Self, String> {
        if after.is_empty() {
            return Err("that is the last voter: give another node a vote first".into());
        }
        let shards: Vec<ShardPlan> = (view.shards.values())
            .map(|state| {
                let answering = after.intersection(&view.answering).count();
                let quorum = after.len() / 2 + 1;
                ShardPlan {
                    shard: state.shard,
                    leader: state.leader,
                    voters: state.members.iter().filter(|member| member.voter).count(),
                    voters_after: after.len(),
                    answering_after: answering,
                    quorum_after: quorum,
                    goes_on: answering >= quorum && state.leader != 0,
                }
            })
            .collect();
        let mut notes = Vec::new();
        for node in view.asked.nodes.iter().filter(|node| !view.answering.contains(&node.node_id)) {
            notes.push(format!("node {} does not answer here, at {}", node.node_id, node.address));
        }
        let headless: Vec<String> = (view.shards.values())
            .filter(|state| state.leader == 0)
            .map(|state| state.shard.to_string())
            .collect();
        if !headless.is_empty() {
            notes.push(format!("no leader is known of shard {}", headless.join(", ")));
        }
        Ok(Self { what, goes_on: shards.iter().all(|shard| shard.goes_on), shards, notes })
    }

    fn note_of_led(&mut self, node: u64, view: &View) {
        let led: Vec<String> = (view.shards.values())
            .filter(|state| state.leader == node)
            .map(|state| state.shard.to_string())
            .collect();
        if !led.is_empty() {
            self.notes.push(format!("it leads shard {}, which another voter takes over", led.join(", ")));
        }
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let mut rows = tables::table(&[">shard", ">leader", ">voters", ">then", ">answering", ">quorum", ""]);
        for shard in &self.shards {
            rows.add_row(vec![
                cell(shard.shard),
                cell(if shard.leader == 0 { "-".into() } else { shard.leader.to_string() }),
                cell(shard.voters),
                cell(shard.voters_after),
                cell(shard.answering_after),
                cell(shard.quorum_after),
                cell(if shard.goes_on { "goes on" } else { "stands still" }),
            ]);
        }
        let mut text = format!("{}\n{}", self.what, tables::lines(&rows));
        for note in &self.notes {
            text += &format!("\n- {note}");
        }
        text
    }
}

/// Who shall vote, as the directory has it.
fn voters(view: &View) -> BTreeSet<u64> {
    view.asked.nodes.iter().filter(|node| node.voter).map(|node| node.node_id).collect()
}

/// Where the node is.
fn known(node: u64, view: &View) -> Result<&str, String> {
    let known = view.node(node).map(|known| known.address.as_str());
    known.ok_or_else(|| {
        let ids: Vec<String> = view.asked.nodes.iter().map(|known| known.node_id.to_string()).collect();
        format!("node {node} is no node of the cluster; its nodes are {}", ids.join(", "))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use kvindex_client::v1;

    use super::*;

    /// Nodes 1 to `nodes`, of which those up to `voters` vote; `answering` answer. One shard, led by node 1.
    fn view(nodes: u64, voters: u64, answering: &[u64]) -> View {
        let node = |id: u64| v1::ClusterNode {
            node_id: id,
            address: format!("10.0.0.{id}:9590"),
            voter: id <= voters,
            ..v1::ClusterNode::default()
        };
        let member = |id: u64| v1::ShardMember { node_id: id, voter: id <= voters, matched: Some(7 + id) };
        let shard = v1::ShardState {
            leader: 1,
            last: Some(10),
            members: (1..=nodes).map(member).collect(),
            ..v1::ShardState::default()
        };
        let status = |id: u64| v1::ClusterStatusResponse {
            cluster_id: "c".into(),
            node_id: id,
            nodes: (1..=nodes).map(node).collect(),
            shards: vec![shard.clone()],
            waits_for: String::new(),
        };
        View::new(status(1), answering.iter().filter(|id| **id != 1).map(|id| status(*id)))
    }

    #[test]
    fn a_removal_counts_the_votes_that_are_left_and_answer() {
        let plan = Plan::of(Change::Remove { node: 3, force: false }, &view(3, 3, &[1, 2, 3])).unwrap();
        assert!(plan.goes_on);
        let shard = &plan.shards[0];
        assert_eq!(
            (shard.voters, shard.voters_after, shard.answering_after, shard.quorum_after),
            (3, 2, 2, 2)
        );
        let plan = Plan::of(Change::Remove { node: 3, force: false }, &view(3, 3, &[1, 3])).unwrap();
        assert!(!plan.goes_on);
        let text = plan.text();
        assert!(text.contains("refused without --force") && text.contains("stands still"), "{text}");
        assert!(text.contains("node 2 does not answer here, at 10.0.0.2:9590"), "{text}");
    }

    #[test]
    fn votes_that_change_nothing_and_leaders_that_go_are_told() {
        let notes = |node, voter, view: &View| Plan::of(Change::Vote { node, voter }, view).unwrap().notes;
        let four = view(4, 3, &[1, 2, 3, 4]);
        assert!(notes(4, true, &four)[0].contains("once it has caught up"));
        assert!(notes(3, true, &four)[0].contains("already"));
        assert!(notes(4, false, &four)[0].contains("no vote as it is"));
        assert!(notes(1, false, &four)[0].contains("leads shard 0"));
    }

    #[test]
    fn what_cannot_be_done_is_said_before_it_is_tried() {
        let refused = |change, view: &View| Plan::of(change, view).unwrap_err();
        let (alone, two) = (view(1, 1, &[1]), view(2, 1, &[1, 2]));
        assert!(refused(Change::Remove { node: 1, force: true }, &alone).contains("last voter"));
        assert!(refused(Change::Vote { node: 1, voter: false }, &two).contains("last voter"));
        assert!(refused(Change::Vote { node: 9, voter: true }, &two).contains("its nodes are 1, 2"));
        assert!(refused(Change::Transfer { shard: 5, to: 1 }, &two).contains("no shard 5"));
        assert!(refused(Change::Transfer { shard: 0, to: 2 }, &two).contains("promote it first"));
    }

    #[test]
    fn a_transfer_tells_what_the_new_leader_lacks() {
        let plan = Plan::of(Change::Transfer { shard: 0, to: 2 }, &view(3, 3, &[1, 2, 3])).unwrap();
        assert!(plan.goes_on && plan.notes[0].contains("1 entries behind"), "{plan:?}");
        let plan = Plan::of(Change::Transfer { shard: 0, to: 2 }, &view(3, 3, &[1, 3])).unwrap();
        assert!(!plan.goes_on && plan.notes.iter().any(|note| note.contains("does not answer")), "{plan:?}");
        let plan = Plan::of(Change::Transfer { shard: 0, to: 1 }, &view(3, 3, &[1, 2, 3])).unwrap();
        assert!(plan.notes.iter().any(|note| note.contains("already")), "{plan:?}");
    }
}
