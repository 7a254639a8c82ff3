//! A cluster as tables for people: its nodes, then its shards.

use kvindex_client::v1;

use crate::tables::{cell, lines, table};

/// The answer to `cluster status`.
pub(super) fn status(response: &v1::ClusterStatusResponse) -> String {
    if response.cluster_id.is_empty() {
        let colon = if response.waits_for.is_empty() { "" } else { ": " };
        return format!("this node has not joined a cluster yet{colon}{}", response.waits_for);
    }
    let mut summary = format!(
        "cluster {}, {} shards, as node {} sees it",
        response.cluster_id,
        response.shards.len(),
        response.node_id
    );
    if !response.waits_for.is_empty() {
        summary += &format!("\n{}", response.waits_for);
    }
    format!("{summary}\n\n{}\n\n{}", nodes(response), shards(response))
}

fn nodes(response: &v1::ClusterStatusResponse) -> String {
    let mut rows = table(&[">node", "address", "peer address", "vote", ">leads"]);
    for node in &response.nodes {
        let led = response.shards.iter().filter(|shard| shard.leader == node.node_id).count();
        rows.add_row(vec![
            cell(node.node_id),
            cell(&node.address),
            cell(&node.peer_address),
            cell(if node.voter { "yes" } else { "no" }),
            cell(led),
        ]);
    }
    lines(&rows)
}

fn shards(response: &v1::ClusterStatusResponse) -> String {
    let digests = response.shards.iter().any(|shard| shard.digest.is_some());
    let mut headings = vec![
        ">shard",
        ">leader",
        "role here",
        ">term",
        ">applied",
        ">behind",
        ">age ms",
        "members (* votes)",
    ];
    if digests {
        headings.push("digest");
    }
    let mut rows = table(&headings);
    for shard in &response.shards {
        let mut row = vec![
            cell(shard.shard),
            cell(if shard.leader == 0 { "-".into() } else { shard.leader.to_string() }),
            cell(role(shard)),
            cell(shard.term),
            cell(number(shard.applied)),
            cell(shard.entries_behind),
            cell(number(shard.age_ms)),
            cell(members(shard)),
        ];
        if digests {
            row.push(cell(shard.digest.map_or_else(|| "-".into(), |digest| format!("{digest:016x}"))));
        }
        rows.add_row(row);
    }
    lines(&rows)
}

/// Its part here, and why it plays none.
fn role(shard: &v1::ShardState) -> String {
    if shard.stopped.is_empty() { shard.role.clone() } else { format!("{}: {}", shard.role, shard.stopped) }
}

fn members(shard: &v1::ShardState) -> String {
    let member = |member: &v1::ShardMember| {
        let vote = if member.voter { "*" } else { "" };
        format!("{}{vote}", member.node_id)
    };
    let mut text = shard.members.iter().map(member).collect::<Vec<_>>().join(" ");
    if shard.changing {
        text += " (changing)";
    }
    text
}

fn number(number: Option<u64>) -> String {
    number.map_or_else(|| "-".into(), |number| number.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_and_shards_stand_in_one_answer() {
        let member = |node_id, voter| v1::ShardMember { node_id, voter, matched: None };
        let node = |node_id, voter| v1::ClusterNode {
            node_id,
            peer_address: format!("10.0.0.{node_id}:9591"),
            address: format!("10.0.0.{node_id}:9590"),
            voter,
        };
        let led = v1::ShardState {
            role: "follower".into(),
            leader: 2,
            term: 3,
            applied: Some(41),
            age_ms: Some(7),
            members: vec![member(1, true), member(2, true), member(4, false)],
            ..v1::ShardState::default()
        };
        let stopped = v1::ShardState {
            shard: 1,
            role: "stopped".into(),
            stopped: "disk full".into(),
            changing: true,
            ..v1::ShardState::default()
        };
        let response = v1::ClusterStatusResponse {
            cluster_id: "c1".into(),
            node_id: 1,
            nodes: vec![node(1, true), node(2, true), node(4, false)],
            shards: vec![led, stopped],
            waits_for: String::new(),
        };
        let expected = "\
cluster c1, 2 shards, as node 1 sees it

 node  address        peer address   vote  leads
    1  10.0.0.1:9590  10.0.0.1:9591  yes       0
    2  10.0.0.2:9590  10.0.0.2:9591  yes       1
    4  10.0.0.4:9590  10.0.0.4:9591  no        0

 shard  leader  role here           term  applied  behind  age ms  members (* votes)
     0       2  follower               3       41       0       7  1* 2* 4
     1       -  stopped: disk full     0        -       0       -   (changing)";
        assert_eq!(status(&response), expected);
        assert!(status(&v1::ClusterStatusResponse::default()).contains("not joined"));
    }
}
