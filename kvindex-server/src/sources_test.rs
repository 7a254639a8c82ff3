//! Tests of where ranks publish: ports that count up, and ports that collide.
#![allow(clippy::unwrap_used)]

use super::*;

fn stream(dp_rank: u32, endpoint: &str, replay_endpoint: &str) -> RawStream {
    let topic = String::new();
    RawStream { dp_rank, endpoint: endpoint.into(), replay_endpoint: replay_endpoint.into(), topic }
}

#[test]
fn ranks_are_spread_over_ports() {
    let sources = computed("tcp://h:5557", "tcp://h:5657", "kv", 2).unwrap();
    let second = &sources[1];
    assert_eq!(
        (second.dp_rank.0, second.endpoint.as_str(), second.topic.as_str()),
        (1, "tcp://h:5558", "kv")
    );
    assert_eq!(second.replay_endpoint.as_deref(), Some("tcp://h:5658"));
}

#[test]
fn ranks_that_connect_to_us_are_spread_too() {
    let sources = computed("tcp://*:5557", "tcp://h:5558", "", 2).unwrap();
    assert_eq!(sources[1].endpoint, "tcp://*:5558", "the engine's port 5558 is another machine's");
    assert_eq!(sources[1].replay_endpoint.as_deref(), Some("tcp://h:5559"));
    let one = computed("bind+tcp://127.0.0.1:5557", "", "", 2).unwrap();
    assert_eq!(one[1].endpoint, "bind+tcp://127.0.0.1:5558");
}

#[test]
fn the_usual_pair_of_ports_is_refused_with_two_ranks() {
    let error = computed("tcp://h:5557", "tcp://H:5558", "", 2).unwrap_err();
    assert_eq!(error.field, "replay_endpoint");
    for part in [
        "rank 1 would publish on tcp://h:5558, where rank 0 replays",
        "publishing on tcp://h:5557 to tcp://h:5558",
        "replaying on tcp://H:5558 to tcp://H:5559",
        "at least as far apart as there are ranks (2)",
    ] {
        assert!(error.message.contains(part), "{part}: {error}");
    }
    assert!(computed("tcp://h:5557", "tcp://h:5558", "", 1).is_ok());
    assert!(computed("tcp://h:5557", "tcp://h:5559", "", 2).is_ok());
    // Replay ports below the publishing ones collide as well.
    let below = computed("tcp://h:5558", "tcp://h:5557", "", 2).unwrap_err();
    assert!(below.message.contains("rank 0 would publish on tcp://h:5558, where rank 1 replays"), "{below}");
    let same = computed("tcp://h:5557", "tcp://h:5557", "", 1).unwrap_err();
    assert!(same.message.contains("rank 0 would publish on tcp://h:5557, where rank 0 replays"), "{same}");
}

#[test]
fn errors_name_the_field_and_the_limit() {
    assert_eq!(computed("tcp://h", "", "", 1).unwrap_err().field, "endpoint");
    let bound = computed("tcp://h:1", "tcp://*:2", "", 1).unwrap_err();
    assert_eq!((bound.field.as_str(), bound.message.contains("always binds")), ("replay_endpoint", true));
    let many = computed("tcp://h:1", "", "", MAX_DP_RANKS + 1).unwrap_err();
    assert_eq!(many.field, "data_parallel_size");
    assert!(many.message.contains(&MAX_DP_RANKS.to_string()), "{many}");
    assert_eq!(computed("tcp://h:65535", "", "", 2).unwrap_err().field, "endpoint");
    let high = listed(&[stream(MAX_DP_RANKS, "tcp://h:1", "")]).unwrap_err();
    assert!(high.message.contains(&(MAX_DP_RANKS - 1).to_string()), "{high}");
    let bound = listed(&[stream(0, "tcp://h:1", "bind+tcp://127.0.0.1:2")]).unwrap_err();
    assert_eq!(bound.field, "streams[0].replay_endpoint");
    assert_eq!(listed(&[stream(0, "", "")]).unwrap_err().field, "streams[0].endpoint");
}

#[test]
fn listed_streams_must_not_share_ranks_or_ports() {
    let twice = listed(&[stream(0, "tcp://h:1", ""), stream(0, "tcp://h:2", "")]).unwrap_err();
    assert_eq!(twice.field, "streams[1].dp_rank");
    let shared = listed(&[stream(0, "tcp://h:1", ""), stream(1, "tcp://h:1", "")]).unwrap_err();
    assert_eq!(shared.field, "streams[1].endpoint");
    assert!(shared.message.contains("streams[0].endpoint (rank 1 publishes, rank 0 publishes"), "{shared}");
    let usual = [stream(0, "tcp://h:5557", "tcp://h:5558"), stream(1, "tcp://h:5558", "tcp://h:5559")];
    let error = listed(&usual).unwrap_err();
    assert_eq!(error.field, "streams[1].endpoint");
    let told = "tcp://h:5558 is also streams[0].replay_endpoint (rank 1 publishes, rank 0 replays there)";
    assert!(error.message.starts_with(told) && error.message.contains("as far apart"), "{error}");
    // On two hosts the same ports are different places.
    let apart = [stream(0, "tcp://a:5557", "tcp://a:5558"), stream(1, "tcp://b:5558", "tcp://b:5559")];
    assert_eq!(listed(&apart).unwrap().len(), 2);
}

#[test]
fn listed_streams_are_sorted_by_rank_and_keep_their_topic() {
    let topic = "kv".to_owned();
    let sources = listed(&[
        RawStream { topic: topic.clone(), ..stream(3, "tcp://*:1", "tcp://h:9") },
        stream(1, "ipc:///kv", ""),
    ])
    .unwrap();
    let told: Vec<_> = sources.iter().map(|s| (s.dp_rank.0, s.endpoint.as_str(), s.topic.as_str())).collect();
    assert_eq!(told, [(1, "ipc:///kv", ""), (3, "tcp://*:1", "kv")]);
    assert_eq!(
        (sources[0].replay_endpoint.as_deref(), sources[1].replay_endpoint.as_deref()),
        (None, Some("tcp://h:9"))
    );
}
