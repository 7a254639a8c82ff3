//! `kvindex demo --nodes 3`: real processes, of which the one that leads most is killed while engines talk and comes
//! back, and all end equal to the engines' truth. The table of all faults is `just faults`.

use serde_json::Value;

use crate::node::run;

#[test]
fn a_killed_leader_costs_no_answer() {
    let (code, out, err) = run(&["demo", "--nodes", "3", "--output", "json"]);
    assert_eq!(code, 0, "{out}\n{err}");
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let cluster = lines.iter().find_map(|line| line.get("cluster").filter(|cluster| cluster.is_object()));
    let cluster = cluster.unwrap_or_else(|| panic!("no line tells of the cluster: {out}"));
    assert_eq!((&cluster["nodes"], &cluster["equal_digests"]), (&3.into(), &true.into()), "{cluster}");
    assert!(cluster["answers_compared"].as_u64().unwrap() > 0, "{cluster}");
    let killed = cluster["killed"].as_str().unwrap();
    assert!(killed.contains("was killed") && killed.contains("came back"), "{killed}");
}
