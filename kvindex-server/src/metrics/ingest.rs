//! Metrics of the way in from engines: ingest counts in its own plain numbers, which are put under their public
//! names here at every scrape.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::cluster::Counted;
use crate::ingest::{HashCheck, IngestCounters};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    state: &'static str,
}

/// All ingest metrics as they are now; `checks` has the hash check of each stream.
pub(crate) fn registry(counters: &IngestCounters, checks: impl Iterator<Item = HashCheck>) -> Registry {
    let mut registry = Registry::with_prefix("kvindex_ingest");
    let rows = [
        ("batches_received", "Batches received live", &counters.received),
        ("batches_replayed", "Batches received by replay", &counters.replayed),
        ("payload_bytes", "Payload bytes received, live and by replay", &counters.bytes),
        ("batches_applied", "Batches passed on to the index", &counters.applied),
        ("batches_duplicate", "Batches that came again and were ignored", &counters.duplicates),
        ("gaps", "Gaps that nothing filled", &counters.gaps),
        ("gap_batches", "Batches lost in gaps", &counters.gap_batches),
        ("replays_requested", "Replays asked for", &counters.replays_requested),
        (
            "replays_failed",
            "Replays that never answered, died midway or sent garbage",
            &counters.replays_failed,
        ),
        (
            "backlog_dropped",
            "Batches that a full backlog dropped before they were read",
            &counters.backlog_dropped,
        ),
        ("streams_fallen_back", "Times commands were not taken, per stream", &counters.fallen_back),
        ("generations", "Times an engine was found to have started again", &counters.new_generations),
        ("bad_frames", "Messages of a wrong shape", &counters.bad_frames),
        ("socket_errors", "Socket errors", &counters.socket_errors),
        (
            "extra_publishers",
            "Times a further publisher came to an endpoint that kvindex binds for one engine",
            &counters.extra_publishers,
        ),
        (
            "batches_of_another_rank",
            "Batches that name another data-parallel rank than their stream has",
            &counters.another_rank,
        ),
        ("events_unknown", "Events with an unknown tag, passed over", &counters.unknown_events),
        (
            "events_without_tokens",
            "Stored events kept by engine hash alone, their tokens not being readable",
            &counters.events_without_tokens,
        ),
    ];
    for (name, help, counter) in rows {
        registry.register(name, help, fixed(counter.get()));
    }
    let skipped = [
        ("hash_width", counters.skipped_hash_width.get()),
        ("block_size", counters.skipped_block_size.get()),
        ("malformed", counters.skipped_malformed.get()),
    ];
    registry.register("events_skipped", "Events left out, by reason", by_reason(skipped));
    registry.register(
        "hash_checks",
        "Streams by whether their engine hashes as its hash profile says; unchecked without a profile",
        by_state(checks),
    );
    let help = "Time from the decisions on a turn's batches to their being applied, in a cluster to their being committed \
                and applied";
    registry.register("apply_seconds", help, Counted(counters.taken.counts()));
    let errors = by_reason(counters.decode_errors());
    registry.register("decode_errors", "Payloads that could not be decoded, by reason", errors);
    registry
}

fn by_state(checks: impl Iterator<Item = HashCheck>) -> Family<StateLabels, Gauge> {
    let family = Family::<StateLabels, Gauge>::default();
    for state in HashCheck::ALL {
        family.get_or_create(&StateLabels { state: state.name() }).set(0);
    }
    for state in checks {
        family.get_or_create(&StateLabels { state: state.name() }).inc();
    }
    family
}

fn fixed(value: u64) -> Counter {
    let counter = Counter::default();
    counter.inc_by(value);
    counter
}

fn by_reason(rows: impl IntoIterator<Item = (&'static str, u64)>) -> Family<ReasonLabels, Counter> {
    let family = Family::<ReasonLabels, Counter>::default();
    for (reason, count) in rows {
        family.get_or_create(&ReasonLabels { reason }).inc_by(count);
    }
    family
}
