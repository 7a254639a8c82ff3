//! Commands that a codec must carry: any at all, and one of every form.

use std::sync::Arc;

use bytes::Bytes;
use kvindex_core::replication::ShardCommand;
use kvindex_core::{
    Batch, BatchSeq, Change, ClearPolicy, Command, CopyPolicy, DpRank, EngineBlockHash, EngineKind,
    ForgottenBlocks, GapPolicy, Generation, Group, GroupKind, GroupSpec, HashScheme, HiddenIdentity,
    ItemForm, LocalBlockHash, PodRef, Registration, StoredRun, StreamEvents, StreamId, Tier, WorkerId,
    WorkerSpec,
};
use proptest::prelude::*;

fn worker(name: &str) -> WorkerId {
    WorkerId::new(name).unwrap()
}

fn stream(name: &str, rank: u32) -> StreamId {
    StreamId { worker: worker(name), dp_rank: DpRank(rank) }
}

fn registration() -> impl Strategy<Value = Registration> {
    number().prop_map(Registration)
}

/// Small ones, as logs have them, and any.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0u64..10, 1 => any::<u64>(), 1 => Just(u64::MAX)]
}

fn small() -> impl Strategy<Value = u32> {
    prop_oneof![4 => 0u32..4, 1 => any::<u32>()]
}

/// So few that columns, parents and removals meet.
fn hash() -> impl Strategy<Value = u64> {
    prop_oneof![3 => 0u64..6, 1 => any::<u64>()]
}

fn streams() -> impl Strategy<Value = StreamId> {
    let rank = prop_oneof![3 => 0u32..2, 1 => any::<u32>()];
    (prop::sample::select(vec!["a", "b", "a-much-longer-name", "a-much-longer-one", "ü", "û"]), rank)
        .prop_map(|(w, r)| stream(w, r))
}

fn tier() -> impl Strategy<Value = Tier> {
    let known =
        prop::sample::select(vec![Tier::Device, Tier::Device, Tier::Host, Tier::Disk, Tier::External]);
    prop_oneof![5 => known, 1 => "[a-zü]{0,9}".prop_map(Tier::Other)]
}

fn group() -> impl Strategy<Value = Group> {
    prop_oneof![3 => (0u16..3).prop_map(Group), 1 => any::<u16>().prop_map(Group)]
}

fn kind() -> impl Strategy<Value = GroupKind> {
    use GroupKind::{Full, Mamba, Other, SlidingWindow};
    prop::sample::select(vec![Full, SlidingWindow, Mamba, Other])
}

fn scheme() -> impl Strategy<Value = HashScheme> {
    let items = prop::sample::select(vec![ItemForm::Hidden, ItemForm::Bare, ItemForm::WithOffset]);
    (any::<bool>(), items, any::<u8>(), any::<bool>()).prop_map(|(salt, items, lookahead, content_only)| {
        HashScheme { salt, items, lookahead, content_only }
    })
}

/// Columns that fit each other, and ones that do not.
fn columns(stride: u32) -> impl Strategy<Value = (Vec<u64>, Vec<u64>)> {
    let hashes = || prop::collection::vec(hash(), 0..9);
    let fitting = hashes().prop_map(move |engine| {
        let locals = (0..engine.len() as u64 * u64::from(stride.min(5))).map(|i| i * 7);
        let locals = locals.collect();
        (engine, locals)
    });
    prop_oneof![3 => fitting, 1 => (hashes(), hashes())]
}

fn stored() -> impl Strategy<Value = Change> {
    let shape = (
        prop::option::of(prop::sample::select(vec!["", "adapter", "ü"])),
        small(),
        prop_oneof![4 => Just(1u32), 1 => small()],
        prop_oneof![2 => Just(HashScheme::default()), 1 => scheme()],
        tier(),
        group(),
        prop::option::of(kind()),
        prop::option::of(small()),
    );
    let shape =
        shape.prop_map(|(lora, block_size, stride, scheme, tier, group, kind, sliding_window)| StoredRun {
            lora: lora.map(Arc::from),
            block_size,
            stride,
            scheme,
            tier,
            group,
            kind,
            sliding_window,
            parent: None,
            engine_hashes: Vec::new().into(),
            local_hashes: Vec::new().into(),
        });
    let with_columns = shape.prop_flat_map(|run| {
        let columns = columns(run.stride);
        (Just(run), prop::option::of(hash()), columns)
    });
    with_columns.prop_map(|(run, parent, (engine, local))| {
        Change::Stored(StoredRun {
            parent: parent.map(EngineBlockHash),
            engine_hashes: engine.into_iter().map(EngineBlockHash).collect(),
            local_hashes: local.into_iter().map(LocalBlockHash).collect(),
            ..run
        })
    })
}

fn change() -> impl Strategy<Value = Change> {
    let removed = (tier(), group(), prop::collection::vec(hash(), 0..5)).prop_map(|(tier, group, hashes)| {
        Change::Removed { tier, group, hashes: hashes.into_iter().map(EngineBlockHash).collect() }
    });
    let cleared = prop::option::of(tier()).prop_map(|tier| Change::Cleared { tier });
    prop_oneof![6 => stored(), 3 => removed, 1 => cleared, 1 => Just(Change::Unreadable)]
}

fn events_of_any_kind() -> impl Strategy<Value = Command> {
    let batch = || {
        (number(), prop::collection::vec(change(), 0..5))
            .prop_map(|(seq, changes)| Batch { seq: BatchSeq(seq), changes: changes.into() })
    };
    let batches = prop_oneof![
        2 => prop::collection::vec(batch(), 1..=1),
        1 => prop::collection::vec(batch(), 0..4),
    ];
    (streams(), number(), number(), batches, prop::option::of(any::<u64>()), registration()).prop_map(
        |(stream, generation, at_ms, batches, payload_digest, registration)| {
            let (generation, batches) = (Generation(generation), batches.into());
            Command::Events(StreamEvents { stream, generation, at_ms, batches, payload_digest, registration })
        },
    )
}

/// Any command.
pub(super) fn command() -> impl Strategy<Value = ShardCommand> {
    let new_generation = (streams(), number(), number(), registration()).prop_map(
        |(stream, generation, at_ms, registration)| {
            let generation = Generation(generation);
            Command::NewGeneration { stream, generation, at_ms, registration }
        },
    );
    let gap = (streams(), number(), number(), number(), any::<bool>(), number(), registration()).prop_map(
        |(stream, generation, first, last, keep, at_ms, registration)| Command::Gap {
            stream,
            generation: Generation(generation),
            first: BatchSeq(first),
            last: BatchSeq(last),
            policy: if keep { GapPolicy::KeepAsSuspect } else { GapPolicy::Purge },
            at_ms,
            registration,
        },
    );
    let evict = (number(), number()).prop_map(|(entries, at_ms)| Command::Evict { entries, at_ms });
    let forget = (streams(), number(), tier(), group(), prop::collection::vec(hash(), 0..5), number())
        .prop_map(|(stream, generation, tier, group, hashes, at_ms)| {
            let hashes = hashes.into_iter().map(EngineBlockHash).collect();
            Command::Forget(ForgottenBlocks {
                stream,
                generation: Generation(generation),
                tier,
                group,
                hashes,
                at_ms,
                registration: Registration(at_ms / 2),
            })
        });
    let host = prop::collection::vec(any::<u8>(), 0..20).prop_map(|bytes| ShardCommand::Host(bytes.into()));
    prop_oneof![
        8 => events_of_any_kind().prop_map(ShardCommand::Index),
        1 => new_generation.prop_map(ShardCommand::Index),
        1 => gap.prop_map(ShardCommand::Index),
        1 => evict.prop_map(ShardCommand::Index),
        1 => forget.prop_map(ShardCommand::Index),
        1 => Just(ShardCommand::Index(Command::Register(Box::new(described("a"))))),
        1 => Just(ShardCommand::Index(Command::Unregister { worker: worker("b") })),
        1 => host,
    ]
}

/// A worker of which everything is known.
fn described(name: &str) -> WorkerSpec {
    let text = |text: &str| Some(text.to_owned());
    WorkerSpec {
        tenant: "t".into(),
        engine: EngineKind::Sglang,
        engine_version: text("0.5.23"),
        address: text("[::1]:8000"),
        pod: Some(PodRef { namespace: "n".into(), name: "p-0".into(), uid: "u-1".into() }),
        service: text("s"),
        role: text("decode"),
        pd_group: text("g"),
        labels: [("zone".to_owned(), "z".to_owned())].into(),
        copies: CopyPolicy::Set,
        groups: vec![GroupSpec {
            group: Group(1),
            kind: GroupKind::SlidingWindow,
            block_size: 16,
            sliding_window: Some(128),
        }],
        cleared: ClearPolicy::AllTiers,
        hidden_identity: HiddenIdentity::Unused,
        offload_chunk: Some(4),
        ..WorkerSpec::new(worker(name), "m")
    }
}

/// An ordinary run of so many blocks after block 1.
pub(super) fn run(blocks: u64) -> StoredRun {
    StoredRun {
        lora: None,
        block_size: 16,
        stride: 1,
        scheme: HashScheme::default(),
        tier: Tier::Device,
        group: Group(0),
        kind: None,
        sliding_window: None,
        parent: Some(EngineBlockHash(1)),
        engine_hashes: (0..blocks).map(|i| EngineBlockHash(1000 + i)).collect(),
        local_hashes: (0..blocks).map(|i| LocalBlockHash(5000 + i)).collect(),
    }
}

fn removal(hashes: impl IntoIterator<Item = u64>) -> Change {
    let hashes = hashes.into_iter().map(EngineBlockHash).collect();
    Change::Removed { tier: Tier::Device, group: Group(0), hashes }
}

/// One batch of one stream with these changes.
pub(super) fn events(changes: Vec<Change>) -> ShardCommand {
    let batches = vec![Batch { seq: BatchSeq(7), changes: changes.into() }].into();
    let (stream, generation, at_ms) = (stream("a", 0), Generation(3), 1_760_000_000_000);
    let (payload_digest, registration) = (Some(u64::MAX), Registration(300));
    Command::Events(StreamEvents { stream, generation, at_ms, batches, payload_digest, registration }).into()
}

/// A removal of these hashes.
pub(super) fn removed(hashes: Vec<u64>) -> ShardCommand {
    events(vec![removal(hashes)])
}

/// Commands that take every branch of the format once.
pub(super) fn every_form() -> Vec<ShardCommand> {
    let below = |parent: u64, run: StoredRun| StoredRun { parent: Some(EngineBlockHash(parent)), ..run };
    let full = run(5);
    let odd = StoredRun {
        lora: Some(Arc::from("adapter")),
        block_size: 64,
        stride: 2,
        scheme: HashScheme { salt: true, items: ItemForm::WithOffset, lookahead: 3, content_only: true },
        tier: Tier::Other("tape".into()),
        group: Group(300),
        kind: Some(GroupKind::SlidingWindow),
        sliding_window: Some(512),
        parent: None,
        local_hashes: (0..2).map(LocalBlockHash).collect(),
        engine_hashes: vec![EngineBlockHash(77)].into(),
    };
    let empty =
        StoredRun { engine_hashes: Vec::new().into(), local_hashes: Vec::new().into(), ..odd.clone() };
    let changes = vec![
        Change::Stored(full.clone()),
        Change::Stored(below(1004, run(1))),
        Change::Stored(below(1002, StoredRun { tier: Tier::Host, ..full })),
        Change::Stored(odd),
        Change::Stored(empty),
        removal([9]),
        removal([10, 11, 12]),
        removal([14]),
        removal([15]),
        removal([16]),
        removal([1001, 1002]),
        removal([]),
        Change::Cleared { tier: None },
        Change::Cleared { tier: Some(Tier::Disk) },
        Change::Unreadable,
    ];
    let batches = [(7, vec![]), (8, vec![Change::Unreadable]), (20, vec![removal([1])])];
    let batches = batches.map(|(seq, changes)| Batch { seq: BatchSeq(seq), changes: changes.into() });
    let (b, at_ms, registration) = (stream("ab", 1), 1_760_000_000_001, Registration(290));
    let several = StreamEvents {
        stream: b.clone(),
        generation: Generation(0),
        at_ms,
        batches: batches.into_iter().collect(),
        payload_digest: None,
        registration,
    };
    let gap = |policy| Command::Gap {
        stream: b.clone(),
        generation: Generation(1),
        first: BatchSeq(21),
        last: BatchSeq(30),
        policy,
        at_ms: at_ms + 1,
        registration,
    };
    vec![
        Command::Register(Box::new(described("a"))).into(),
        events(changes),
        events(vec![removal([13])]),
        Command::Events(several).into(),
        Command::NewGeneration { stream: b.clone(), generation: Generation(1), at_ms: 5, registration }
            .into(),
        Command::NewGeneration {
            stream: b.clone(),
            generation: Generation(1),
            at_ms: 5,
            registration: Registration(0),
        }
        .into(),
        gap(GapPolicy::Purge).into(),
        gap(GapPolicy::KeepAsSuspect).into(),
        Command::Evict { entries: 1000, at_ms }.into(),
        Command::Forget(ForgottenBlocks {
            stream: b,
            generation: Generation(1),
            tier: Tier::Host,
            group: Group(2),
            hashes: vec![EngineBlockHash(17), EngineBlockHash(16)],
            at_ms,
            registration,
        })
        .into(),
        ShardCommand::Host(Bytes::from_static(b"of the host")),
        Command::Unregister { worker: worker("b") }.into(),
    ]
}

/// Makes a command one of which nobody says for which registration it was made.
pub(super) fn without_registration(command: &mut ShardCommand) {
    let ShardCommand::Index(command) = command else { return };
    match command {
        Command::Events(events) => events.registration = Registration(0),
        Command::NewGeneration { registration, .. } | Command::Gap { registration, .. } => {
            *registration = Registration(0);
        }
        Command::Forget(blocks) => blocks.registration = Registration(0),
        Command::Register(_) | Command::Unregister { .. } | Command::Evict { .. } => {}
    }
}
