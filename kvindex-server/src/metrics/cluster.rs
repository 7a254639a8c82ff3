//! Metrics of a node's part in its cluster: nodes, shards, proposals and the log, as they are at a scrape. Shards
//! are as many as the cluster was founded with.

use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::{MetricType, counter::Counter};
use prometheus_client::registry::Registry;

use kvindex_core::DurationCounts;
use kvindex_core::replication::{Role, ShardStatus};

use crate::cluster::Cluster;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ShardLabels {
    shard: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VoteLabels {
    vote: &'static str,
}

type ByShard = Family<ShardLabels, Gauge>;

/// A histogram that was counted elsewhere.
#[derive(Debug)]
pub(super) struct Counted(pub(super) DurationCounts);

impl EncodeMetric for Counted {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        let DurationCounts { buckets, sum, count } = &self.0;
        // The library writes its largest number as "+Inf".
        let buckets: Vec<_> = buckets.iter().map(|(end, count)| (end.min(f64::MAX), *count)).collect();
        encoder.encode_histogram::<NoLabelSet>(*sum, *count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

/// Everything about the cluster as this node sees it now.
pub(crate) fn registry(cluster: &Cluster) -> Registry {
    let mut registry = Registry::with_prefix("kvindex");
    nodes(&mut registry, cluster);
    shards(&mut registry, &cluster.status());
    if let Some(replica) = cluster.replica() {
        let (proposals, log) = (replica.proposals(), replica.log_counters());
        let help = "Time from an entry's proposal by this node to its being applied here";
        registry.register("proposal_seconds", help, Counted(proposals.applied.counts()));
        let failed = Counter::<u64>::default();
        failed.inc_by(proposals.failed());
        registry.register(
            "proposals_failed",
            "Entries of this node that were not taken, or perhaps not",
            failed,
        );
        let help = "Time of a commit of this node's log, its flush included where it flushed";
        registry.register("log_commit_seconds", help, Counted(log.commits.counts()));
        let bytes = Counter::<u64>::default();
        bytes.inc_by(log.bytes());
        registry.register("log_written_bytes", "About how many bytes its log has written", bytes);
    }
    registry
}

fn nodes(registry: &mut Registry, cluster: &Cluster) {
    let nodes = Family::<VoteLabels, Gauge>::default();
    for (label, vote) in [("yes", true), ("no", false)] {
        let count = cluster.directory().nodes().filter(|(_, node)| node.voter == vote).count();
        nodes.get_or_create(&VoteLabels { vote: label }).set(whole(count as u64));
    }
    registry.register("cluster_nodes", "Nodes that belong to the cluster, by whether they vote", nodes);
    let wanted = Gauge::<i64>::default();
    wanted.set(whole(cluster.settings().size.into()));
    registry.register("cluster_size", "Voters that the cluster shall have", wanted);
}

fn shards(registry: &mut Registry, status: &[ShardStatus]) {
    let mut put = |name: &str, help: &str, value: &dyn Fn(&ShardStatus) -> Option<u64>| {
        let family = ByShard::default();
        for shard in status {
            if let Some(value) = value(shard) {
                family.get_or_create(&ShardLabels { shard: shard.shard.0 }).set(whole(value));
            }
        }
        registry.register(name, help, family);
    };
    put("shard_led", "1 for shards that this node leads", &|shard| Some((shard.role == Role::Leader).into()));
    put("shard_has_leader", "1 for shards whose leader this node knows", &|shard| {
        Some(shard.leader.is_some().into())
    });
    put("shard_term", "The shard's term; it grows with each election", &|shard| Some(shard.term));
    put("shard_applied", "Number of the last entry applied here", &|shard| shard.lag.applied);
    put("shard_behind_entries", "Entries known to be committed and not applied here", &|shard| {
        Some(shard.lag.entries)
    });
    put(
        "shard_age_ms",
        "Age of the last moment at which all that was committed was applied here",
        &|shard| shard.lag.age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
    );
    put("shard_log_entries", "Entries in this node's log after its snapshot", &|shard| {
        Some(shard.last?.saturating_sub(shard.snapshot.unwrap_or(0)))
    });
}

fn whole(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
