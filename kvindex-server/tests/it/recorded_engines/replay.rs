//! Recorded engines replayed into an index: the real decoder, the real sealing, the real index.

use kvindex_core::{
    Batch, BatchSeq, BlockHasher, ClearPolicy, Command, DpRank, EngineKind, Generation, Group, GroupKind,
    GroupSpec, HiddenIdentity, Index, IndexLimits, Registration, StreamEvents, StreamId, WorkerId,
    WorkerSpec,
};
use kvindex_recording::{GroupHeader, Header, Record};
use kvindex_server::ingest::decode::decode;

/// The model that the recorded engines are registered with.
pub(super) const MODEL: &str = "m";

/// What an operator may say about a worker beyond its engine and release.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Setting {
    pub(super) cleared: ClearPolicy,
    pub(super) hidden_identity: HiddenIdentity,
    /// Whether the size of an offload tier's chunks is left to be learned.
    pub(super) learn_chunk: bool,
}

/// An index, and where each recorded engine stands in it.
pub(super) struct Replayed {
    pub(super) index: Index,
    specs: Vec<WorkerSpec>,
    streams: Vec<StreamId>,
    generations: Vec<u64>,
    next: Vec<u64>,
    hasher: BlockHasher,
}

impl Replayed {
    pub(super) fn new(header: &Header, setting: Setting) -> Self {
        let specs: Vec<WorkerSpec> = (0..header.engines.len()).map(|e| spec_of(header, e, setting)).collect();
        let mut index = Index::new(IndexLimits::default());
        for spec in &specs {
            index.apply(&Command::Register(Box::new(spec.clone())));
        }
        let rank = |e: usize| DpRank(header.engines[e].dp_rank);
        let streams = (0..specs.len()).map(|e| StreamId { worker: specs[e].id.clone(), dp_rank: rank(e) });
        Self {
            streams: streams.collect(),
            generations: vec![0; specs.len()],
            next: vec![0; specs.len()],
            hasher: BlockHasher::new(),
            index,
            specs,
        }
    }

    /// Applies one message. A sequence number that begins anew is a restart, as the sequencer reads it.
    pub(super) fn apply(&mut self, record: &Record) {
        let engine = record.engine as usize;
        if record.seq == 0 && self.next[engine] > 0 {
            self.generations[engine] += 1;
        }
        self.next[engine] = record.seq + 1;
        let batch = decode(&record.payload).unwrap().batch;
        let changes = batch.seal(&self.specs[engine].profile(), &mut self.hasher);
        let events = StreamEvents {
            stream: self.streams[engine].clone(),
            generation: Generation(self.generations[engine]),
            at_ms: record.t_us / 1000,
            payload_digest: None,
            registration: Registration::default(),
            batches: vec![Batch { seq: BatchSeq(record.seq), changes }].into(),
        };
        let outcome = self.index.apply(&Command::Events(events));
        assert_eq!((outcome.batches, outcome.duplicates), (1, 0));
    }

    /// The worker and rank of an engine.
    pub(super) fn stream(&self, engine: usize) -> &StreamId {
        &self.streams[engine]
    }
}

fn spec_of(header: &Header, engine: usize, setting: Setting) -> WorkerSpec {
    let recorded = &header.engines[engine];
    let mut spec = WorkerSpec::new(WorkerId::new(recorded.name.clone()).unwrap(), MODEL);
    spec.engine = match header.engine {
        kvindex_recording::EngineKind::Vllm => EngineKind::Vllm,
        kvindex_recording::EngineKind::Sglang => EngineKind::Sglang,
    };
    spec.engine_version = Some(header.version.to_string());
    // All others announce their groups, and the index must learn them from that.
    if header.hides_group_kinds() {
        spec.groups = (0..).zip(&recorded.groups).map(|(at, group)| group_of(at, group)).collect();
    }
    spec.cleared = setting.cleared;
    spec.hidden_identity = setting.hidden_identity;
    spec.offload_chunk = header.offload_chunk().filter(|blocks| *blocks > 1 && !setting.learn_chunk);
    spec
}

fn group_of(at: u16, group: &GroupHeader) -> GroupSpec {
    GroupSpec {
        group: Group(at),
        kind: GroupKind::from_wire(group.event_kind().unwrap()),
        block_size: group.block_size,
        sliding_window: group.sliding_window,
    }
}
