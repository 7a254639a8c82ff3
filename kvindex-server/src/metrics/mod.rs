//! Every metric, its name and its meaning. Labels are bounded: methods, codes, and workers that are registered;
//! never a prompt, a hash or a name that a caller may choose freely.

pub(crate) mod cluster;
mod ingest;
pub(crate) mod process;
mod questions;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use kvindex_core::{IndexStats, Outcome, TenantUsage};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::ingest::{HashCheck, IngestCounters};
use crate::net::NetMetrics;
use crate::trust::{Trust, TrustState};
use questions::Questions;

/// A finished call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct CallLabels {
    pub(crate) method: &'static str,
    pub(crate) transport: &'static str,
    pub(crate) code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MethodLabels {
    method: &'static str,
    transport: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EffectLabels {
    effect: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TenantLabels {
    tenant: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StreamLabels {
    worker: String,
    dp_rank: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    worker: String,
    dp_rank: u32,
    state: &'static str,
}

/// One stream, for its gauges.
#[derive(Debug, Clone)]
pub(crate) struct StreamGauges {
    pub(crate) worker: String,
    pub(crate) dp_rank: u32,
    pub(crate) trust: Trust,
    pub(crate) hash_check: HashCheck,
}

type HistogramFamily = Family<MethodLabels, Histogram, fn() -> Histogram>;

/// All metrics of a node. Clones share the numbers.
#[derive(Debug, Clone)]
pub struct Metrics {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    registry: parking_lot::Mutex<Registry>,
    calls: Family<CallLabels, Counter>,
    questions: Questions,
    call_seconds: HistogramFamily,
    open_streams: Gauge,
    watch_dropped: Counter,
    effects: Family<EffectLabels, Counter>,
    workers: Gauge,
    streams: Gauge,
    entries: Gauge,
    blocks: Gauge,
    runs: Gauge,
    orphans: Gauge,
    bytes: Gauge,
    cap: Gauge,
    tenant_bytes: Family<TenantLabels, Gauge>,
    tenant_evicted: Family<TenantLabels, Counter>,
    /// Tenants that have a series of their own there.
    evicted_of: parking_lot::Mutex<BTreeSet<String>>,
    snapshots: Counter,
    snapshot_failures: Counter,
    config_reloads: Family<ResultLabels, Counter>,
    config_waiting: Gauge,
    stream_lag: Family<StreamLabels, Gauge>,
    stream_generation: Family<StreamLabels, Gauge>,
    stream_state: Family<StateLabels, Gauge>,
    net: NetMetrics,
}

/// Tenants that have a series of their own.
const MAX_TENANTS: usize = 20;

/// From a short query in memory to a slow body on a bad link.
const CALL_SECONDS: [f64; 14] =
    [5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 10.0];

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All metrics at zero.
    #[must_use]
    pub fn new() -> Self {
        let inner = Inner {
            registry: parking_lot::Mutex::new(Registry::with_prefix("kvindex")),
            calls: Family::default(),
            questions: Questions::default(),
            call_seconds: Family::new_with_constructor(|| Histogram::new(CALL_SECONDS)),
            open_streams: Gauge::default(),
            watch_dropped: Counter::default(),
            effects: Family::default(),
            workers: Gauge::default(),
            streams: Gauge::default(),
            entries: Gauge::default(),
            blocks: Gauge::default(),
            runs: Gauge::default(),
            orphans: Gauge::default(),
            bytes: Gauge::default(),
            cap: Gauge::default(),
            tenant_bytes: Family::default(),
            tenant_evicted: Family::default(),
            evicted_of: parking_lot::Mutex::default(),
            snapshots: Counter::default(),
            snapshot_failures: Counter::default(),
            config_reloads: Family::default(),
            config_waiting: Gauge::default(),
            stream_lag: Family::default(),
            stream_generation: Family::default(),
            stream_state: Family::default(),
            net: NetMetrics::default(),
        };
        inner.describe();
        Self { inner: Arc::new(inner) }
    }

    /// Lets a room that is not always there add metrics of its own.
    pub(crate) fn describe_room(&self, describe: impl FnOnce(&mut Registry)) {
        describe(&mut self.inner.registry.lock());
    }

    /// The network's.
    pub(crate) fn net(&self) -> &NetMetrics {
        &self.inner.net
    }

    pub(crate) fn called(&self, labels: CallLabels, took: Duration) {
        let (method, transport) = (labels.method, labels.transport);
        self.inner.calls.get_or_create(&labels).inc();
        let seconds = self.inner.call_seconds.get_or_create(&MethodLabels { method, transport });
        seconds.observe(took.as_secs_f64());
    }

    /// Counts a configuration that was read again: taken, or refused.
    pub fn config_loaded(&self, taken: bool) {
        let result = if taken { "taken" } else { "refused" };
        self.inner.config_reloads.get_or_create(&ResultLabels { result }).inc();
    }

    /// Says how many keys have values that wait for the next start.
    pub fn config_waiting(&self, keys: usize) {
        self.inner.config_waiting.set(i64::try_from(keys).unwrap_or(i64::MAX));
    }

    /// Counts an answer: the tokens of its prompt, those of its best match, and how far each worker's can be trusted.
    pub(crate) fn answered(&self, asked: u64, best: u64, states: impl Iterator<Item = TrustState>) {
        self.inner.questions.count(asked, best, states);
    }

    pub(crate) fn stream_opened(&self) {
        self.inner.open_streams.inc();
    }

    pub(crate) fn stream_closed(&self) {
        self.inner.open_streams.dec();
    }

    pub(crate) fn watch_dropped(&self, events: u64) {
        self.inner.watch_dropped.inc_by(events);
    }

    pub(crate) fn snapshot_written(&self, ok: bool) {
        let counter = if ok { &self.inner.snapshots } else { &self.inner.snapshot_failures };
        counter.inc();
    }

    /// Counts what a command did to the index.
    pub(crate) fn applied(&self, outcome: &Outcome) {
        let effects = [
            ("batch", outcome.batches),
            ("duplicate_batch", outcome.duplicates),
            ("stale_command", outcome.stale),
            ("unknown_worker", outcome.unknown_worker),
            ("other_registration", outcome.other_registration),
            ("generation", outcome.generations),
            ("stored", outcome.stored),
            ("copied", outcome.copies),
            ("removed", outcome.removed),
            ("removed_unknown", outcome.removed_unknown),
            ("orphaned", outcome.orphaned),
            ("joined", outcome.joined),
            ("unjoinable", outcome.unjoinable),
            ("refused", outcome.refused),
            ("dropped", outcome.dropped),
            ("evicted", outcome.evicted),
        ];
        for (effect, count) in effects.into_iter().filter(|(_, count)| *count > 0) {
            self.inner.effects.get_or_create(&EffectLabels { effect }).inc_by(count);
        }
    }

    /// Counts what a cap has taken of a tenant. The first tenants have a series each, all others one together.
    pub(crate) fn evicted(&self, tenant: &str, entries: u64) {
        let mut named = self.inner.evicted_of.lock();
        if !named.contains(tenant) && named.len() < MAX_TENANTS {
            named.insert(tenant.to_owned());
        }
        let tenant = if named.contains(tenant) { tenant } else { "other" }.to_owned();
        self.inner.tenant_evicted.get_or_create(&TenantLabels { tenant }).inc_by(entries);
    }

    /// Says what the cap on the index's bytes is.
    pub(crate) fn capped(&self, bytes: usize) {
        self.inner.cap.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Everything in the Prometheus text format, with the index's present sizes and streams. Gauges are refilled for
    /// it: one call at a time, or two mix.
    pub(crate) fn render(
        &self,
        stats: &IndexStats,
        tenants: &[TenantUsage],
        streams: &[StreamGauges],
        counters: Option<&IngestCounters>,
        others: &[Registry],
    ) -> String {
        let inner = &self.inner;
        let set = |gauge: &Gauge, value: usize| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        set(&inner.workers, stats.workers);
        set(&inner.streams, stats.streams);
        set(&inner.entries, stats.entries);
        set(&inner.blocks, stats.blocks);
        set(&inner.runs, stats.runs);
        set(&inner.orphans, stats.orphans);
        set(&inner.bytes, stats.bytes);
        inner.fill_tenants(tenants);
        inner.fill_streams(streams);
        let mut out = String::new();
        let written = text::encode_registry(&mut out, &inner.registry.lock())
            .and_then(|()| match counters {
                Some(counters) => {
                    let checks = streams.iter().map(|stream| stream.hash_check);
                    text::encode_registry(&mut out, &ingest::registry(counters, checks))
                }
                None => Ok(()),
            })
            .and_then(|()| others.iter().try_for_each(|other| text::encode_registry(&mut out, other)))
            .and_then(|()| text::encode_eof(&mut out));
        written.map_or_else(|_| String::new(), |()| out) // writing to a string cannot fail
    }
}

impl Inner {
    /// The largest tenants by name, and all others together: tenants' names are their registrants' choice.
    fn fill_tenants(&self, tenants: &[TenantUsage]) {
        self.tenant_bytes.clear();
        let mut tenants: Vec<&TenantUsage> = tenants.iter().collect();
        tenants.sort_by_key(|tenant| std::cmp::Reverse(tenant.bytes));
        for (number, usage) in tenants.into_iter().enumerate() {
            let tenant = if number < MAX_TENANTS { usage.tenant.clone() } else { "other".to_owned() };
            let bytes = i64::try_from(usage.bytes).unwrap_or(i64::MAX);
            self.tenant_bytes.get_or_create(&TenantLabels { tenant }).inc_by(bytes);
        }
    }

    fn fill_streams(&self, streams: &[StreamGauges]) {
        // Refilled whole, so that a worker that left leaves no series behind.
        self.stream_lag.clear();
        self.stream_generation.clear();
        self.stream_state.clear();
        for stream in streams {
            let labels = StreamLabels { worker: stream.worker.clone(), dp_rank: stream.dp_rank };
            let clamp = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
            self.stream_lag.get_or_create(&labels).set(clamp(stream.trust.lag_ms));
            self.stream_generation.get_or_create(&labels).set(clamp(stream.trust.generation.0));
            for state in TrustState::ALL {
                let (worker, dp_rank) = (stream.worker.clone(), stream.dp_rank);
                let labels = StateLabels { worker, dp_rank, state: state.name() };
                self.stream_state.get_or_create(&labels).set(i64::from(state == stream.trust.state));
            }
        }
    }

    fn describe(&self) {
        let mut registry = self.registry.lock();
        let r = &mut *registry;
        self.net.register(r);
        r.register("api_calls", "Finished calls by method, transport and code", self.calls.clone());
        r.register(
            "api_call_seconds",
            "Time from a call's head to its answer's head, receiving the request included",
            self.call_seconds.clone(),
        );
        self.questions.describe(r);
        r.register("api_open_streams", "Match streams and watchers open now", self.open_streams.clone());
        r.register("watch_dropped_events", "Changes that slow watchers lost", self.watch_dropped.clone());
        r.register(
            "index_effects",
            "What applied commands did: blocks stored, removed, orphaned and so on, batches applied or ignored",
            self.effects.clone(),
        );
        r.register("index_workers", "Registered workers", self.workers.clone());
        r.register("index_streams", "Event streams heard of", self.streams.clone());
        r.register("index_entries", "(Block, owner) entries", self.entries.clone());
        r.register("index_blocks", "Distinct blocks at known positions", self.blocks.clone());
        r.register("index_runs", "Runs the blocks are packed into", self.runs.clone());
        r.register("index_orphans", "Blocks waiting for an unknown parent", self.orphans.clone());
        r.register("index_bytes", "Bytes the index occupies", self.bytes.clone());
        r.register("index_max_bytes", "Cap on these bytes, 0 for none", self.cap.clone());
        r.register(
            "index_tenant_evicted",
            "(Block, owner) entries that the cap took of a tenant: the first ones by name, all others as \"other\"",
            self.tenant_evicted.clone(),
        );
        r.register(
            "index_tenant_bytes",
            "Bytes of the index that are a tenant's: the largest by name, all others as \"other\"",
            self.tenant_bytes.clone(),
        );
        r.register("snapshots", "Snapshots written", self.snapshots.clone());
        r.register(
            "snapshot_failures",
            "Snapshots that could not be written",
            self.snapshot_failures.clone(),
        );
        r.register(
            "config_reloads",
            "Times the configuration was read again while the node ran, taken or refused",
            self.config_reloads.clone(),
        );
        r.register(
            "config_waiting_keys",
            "Keys whose values in the configuration wait for the node's next start",
            self.config_waiting.clone(),
        );
        r.register(
            "stream_lag_ms",
            "Age of the oldest batch of a stream known to exist and not yet applied",
            self.stream_lag.clone(),
        );
        r.register(
            "stream_generation",
            "Which life of the engine's cache a stream is in",
            self.stream_generation.clone(),
        );
        r.register(
            "stream_state",
            "1 for the trust state a stream is in, 0 for the others",
            self.stream_state.clone(),
        );
    }
}
