//! What a seed means: how large the cluster is, what its engines do, how good its network and disks are, and which
//! faults strike when.

use kvindex_core::replication::{Settings, log_store::Durability};
use kvindex_core::{DpRank, StreamId, WorkerId};
use std::fmt;
use std::time::Duration;

use crate::dice::Dice;
use crate::engine::EnginePlan;
use crate::faults::Kind;
use crate::network::{Link, address};

/// Faults strike from here, so that there is something to break.
const CALM_MS: u64 = 1_500;

/// Nodes that a run has at most.
pub(crate) const MOST_NODES: u64 = 7;
/// The lowest cap on an index's bytes, from and below: workers alone take some 10 KiB, all that engines hold as much
/// again.
const CAP_BYTES: (usize, usize) = (12 << 10, 40 << 10);
/// How long a change of workers or nodes may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// A fault and when it strikes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PlannedFault {
    /// Which.
    pub kind: Kind,
    /// When, in virtual milliseconds.
    pub at_ms: u64,
    /// How long.
    pub lasts_ms: u64,
    /// What it leaves open follows from this.
    pub seed: u64,
}

/// A run before it begins.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// What all of it follows from.
    pub seed: u64,
    /// Nodes at the start.
    pub nodes: u64,
    /// Shards.
    pub shards: u16,
    /// Streams.
    pub engines: Vec<EnginePlan>,
    /// Prompts that engines get and clients ask for; each letter is a block.
    pub prompts: Vec<Vec<u8>>,
    /// The network.
    pub link: Link,
    /// Milliseconds that a disk takes for a write, from and below.
    pub disk_ms: (u64, u64),
    /// When an entry counts as kept.
    pub durability: Durability,
    /// Whether followers listen to the engines.
    pub standby: bool,
    /// Whether faults strike while the cluster is being founded.
    pub rough: bool,
    /// Clients that read and write.
    pub clients: u64,
    /// Log bytes after which a snapshot is taken.
    pub snapshot_after: u64,
    /// Entries kept behind it.
    pub keep_entries: u64,
    /// What nodes' indexes may take.
    pub caps: Caps,
    /// What strikes.
    pub faults: Vec<PlannedFault>,
    /// When the last fault ends.
    pub storm_ends_ms: u64,
}

/// Caps on the bytes of nodes' indexes; the lowest one if there are any. So low that engines fill it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Caps(Option<usize>);

impl Caps {
    /// In half of all runs. Thrown apart from the rest of the plan, which does not depend on it.
    fn of(seed: u64) -> Self {
        let mut dice = Dice::of(seed, "caps");
        let lowest = CAP_BYTES.0 + dice.below(CAP_BYTES.1 - CAP_BYTES.0);
        Self(dice.percent(50).then_some(lowest))
    }

    /// Of one node: they differ, as pods do.
    pub(crate) fn of_node(self, node: u64) -> Option<usize> {
        let more = usize::try_from(node % 3).unwrap_or(0);
        self.0.map(|lowest| lowest + lowest / 5 * more)
    }

    /// The lowest of all.
    pub(crate) fn lowest(self) -> Option<usize> {
        self.0
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (nodes, shards, streams) = (self.nodes, self.shards, self.engines.len());
        write!(f, "{nodes} nodes, {shards} shards, {streams} streams, {}", self.durability.name())?;
        let said = [
            (!self.standby, ", no standby"),
            (self.rough, ", a rough founding"),
            (self.caps.0.is_some(), ", capped"),
        ];
        said.iter().filter(|(so, _)| *so).try_for_each(|(_, text)| f.write_str(text))?;
        self.faults.iter().try_for_each(|fault| write!(f, ", {}", fault.kind.name()))
    }
}

impl Plan {
    /// The plan of a seed. `only`: faults of these kinds alone.
    #[must_use]
    pub(crate) fn of(seed: u64, only: &[Kind]) -> Self {
        let mut dice = Dice::of(seed, "plan");
        let nodes = [3, 3, 3, 3, 3, 3, 3, 5, 5, 1][dice.below(10)];
        let shards = u16::try_from(1 + dice.below(3)).unwrap_or(1);
        let prompts = prompts(&mut dice);
        let engines = engines(&mut dice);
        let lossy = dice.percent(30);
        let link = Link {
            delay_ms: [(0, 2), (0, 5), (1, 12)][dice.below(3)],
            lost: if lossy { 10 } else { 0 },
            doubled: if lossy { 20 } else { 0 },
            cut: false,
        };
        let durability = if dice.percent(85) { Durability::Fsync } else { Durability::ASYNC };
        let snapshot_after = [2 << 10, 8 << 10, 64 << 10][dice.below(3)];
        let (keep_entries, clients) = (dice.within(0..20), dice.within(1..4));
        let disk_ms = [(0, 1), (0, 3), (1, 8)][dice.below(3)];
        let (standby, rough) = (dice.percent(85), dice.percent(20));
        let calm_ms = if rough { 0 } else { CALM_MS };
        let faults = faults(&mut dice, only, durability, calm_ms);
        let storm_ends_ms =
            faults.iter().map(|fault| fault.at_ms + fault.lasts_ms).max().unwrap_or(CALM_MS).max(CALM_MS);
        Self {
            seed,
            nodes,
            shards,
            engines,
            prompts,
            link,
            disk_ms,
            durability,
            standby,
            rough,
            clients,
            snapshot_after,
            keep_entries,
            caps: Caps::of(seed),
            faults,
            storm_ends_ms,
        }
    }

    /// Where nodes look for each other.
    #[must_use]
    pub(crate) fn peers(&self) -> Vec<String> {
        (1..=MOST_NODES).map(|node| address(node).peer).collect()
    }

    /// Voters that a node is told the cluster shall have. Who joins a cluster of one must not found another one while it
    /// cannot reach it.
    #[must_use]
    pub(crate) fn size_for(&self, node: u64) -> u16 {
        let size = if self.nodes == 1 && node > 1 { MOST_NODES } else { self.nodes };
        u16::try_from(size).unwrap_or(u16::MAX)
    }

    /// How a process of a node paces its shards.
    #[must_use]
    pub(crate) fn settings(&self, node: u64, life: u64) -> Settings {
        Settings {
            heartbeat: Duration::from_millis(100),
            election: (Duration::from_millis(300), Duration::from_millis(600)),
            snapshot_after: self.snapshot_after,
            keep_entries: self.keep_entries,
            install: Duration::from_secs(3),
            seed: Dice::of(self.seed, &format!("elections of node {node} in life {life}")).next(),
        }
    }
}

/// Chains that share beginnings.
fn prompts(dice: &mut Dice) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = Vec::new();
    for _ in 0..8 + dice.below(12) {
        let mut prompt = match dice.pick(&all) {
            Some(other) if dice.percent(70) => other[..dice.below(other.len())].to_vec(),
            _ => Vec::new(),
        };
        for _ in 0..=dice.below(5) {
            prompt.push(b'a' + u8::try_from(dice.below(4)).unwrap_or(0));
        }
        all.push(prompt);
    }
    all
}

fn engines(dice: &mut Dice) -> Vec<EnginePlan> {
    let salted = dice.percent(50);
    let mut engines = Vec::new();
    for worker in 0..2 + dice.below(3) {
        let Ok(id) = WorkerId::new(format!("engine-{worker}")) else { continue };
        let ranks = if dice.percent(20) { 2 } else { 1 };
        for rank in 0..ranks {
            engines.push(EnginePlan {
                stream: StreamId { worker: id.clone(), dp_rank: DpRank(rank) },
                capacity: 10 + dice.below(30),
                buffer: [0, 40, 400, 10_000, 10_000][dice.below(5)],
                step_ms: [(5, 20), (10, 60), (40, 200)][dice.below(3)],
                salted,
            });
        }
    }
    engines
}

fn faults(dice: &mut Dice, only: &[Kind], durability: Durability, calm_ms: u64) -> Vec<PlannedFault> {
    // Where what is acknowledged is not flushed, a loss of power may lose it, and says so: such a node joins anew.
    let fits = |kind: &Kind| durability == Durability::Fsync || *kind != Kind::PowerLoss;
    let kinds: Vec<Kind> = match only {
        [] => Kind::ALL.iter().map(|(kind, _)| *kind).filter(fits).collect(),
        only => only.iter().copied().filter(fits).collect(),
    };
    let mut faults = Vec::new();
    for _ in 0..1 + dice.below(8) {
        let Some(kind) = dice.pick(&kinds).copied() else { break };
        let at_ms = calm_ms + dice.within(0..6_000);
        let lasts_ms =
            [dice.within(20..300), dice.within(300..1_500), dice.within(1_500..4_000)][dice.below(3)];
        faults.push(PlannedFault { kind, at_ms, lasts_ms, seed: dice.next() });
    }
    faults.sort_by_key(|fault| fault.at_ms);
    faults
}
