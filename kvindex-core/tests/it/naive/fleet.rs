//! Who is in a random history: a few workers, the streams they have, and how each names its blocks.

use kvindex_core::{CopyPolicy, DEFAULT_TENANT, DpRank, EngineBlockHash, EngineKind, StreamId, WorkerSpec};
use xxhash_rust::xxh3::xxh3_64;

use crate::history::Dice;
use crate::rig::{MODEL, spec};

pub(crate) const ADAPTER: &str = "adapter";

/// A tenant and a model.
pub(crate) type Home = (&'static str, &'static str);
const HOMES: [Home; 3] = [(DEFAULT_TENANT, MODEL), (DEFAULT_TENANT, "n"), ("t", MODEL)];

/// How a stream names a block's prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Naming {
    /// As most engines of the fleet do.
    Shared,
    /// With a salt of its own.
    Salted(u8),
    /// With the names that the fleet has for other content.
    Twisted,
    /// With the names that the fleet has one block further up.
    Shifted,
    /// With so few names that they come again for something else, the least and the greatest among them.
    Few,
}

impl Naming {
    /// The names of all prefixes of a path.
    pub(crate) fn names(self, path: &[u8]) -> Vec<EngineBlockHash> {
        let letter = |letter: u8| if self == Self::Twisted { letter ^ 1 } else { letter };
        let mut before = if let Self::Salted(salt) = self { u64::from(salt) + 1 } else { 0 };
        let path = path.get(usize::from(self == Self::Shifted)..).unwrap_or(path);
        let mut names: Vec<EngineBlockHash> = Vec::new();
        for unit in path {
            let mut bytes = [letter(*unit); 9];
            bytes[..8].copy_from_slice(&before.to_le_bytes());
            before = xxh3_64(&bytes);
            let few = (before % 14).wrapping_sub(1);
            names.push(EngineBlockHash(if self == Self::Few { few } else { before }));
        }
        if self == Self::Shifted {
            names.push(EngineBlockHash(before ^ 1));
        }
        names
    }
}

/// Who there is.
#[derive(Debug, Clone)]
pub(crate) struct Fleet {
    pub(crate) workers: Vec<WorkerSpec>,
    pub(crate) streams: Vec<StreamId>,
    /// Namings that each stream draws from.
    pub(super) habits: Vec<Vec<Naming>>,
    /// How often, in percent, a stream falls out of its habit.
    pub(super) lapses: usize,
    pub(crate) adapters: bool,
    /// Whether names cover the adapter, as engines' do.
    pub(super) apart: bool,
    /// Tenants and models that its workers serve, one at a time.
    pub(crate) homes: Vec<Home>,
    pub(crate) max_orphans: usize,
    /// Whether there is host memory behind the device.
    pub(crate) tiers: bool,
    pub(super) schemes: bool,
}

impl Fleet {
    pub(super) fn random(dice: &mut Dice) -> Self {
        let count = 2 + dice.below(5);
        let (set, sglang, ranks) = (dice.chance(10), dice.chance(25), dice.chance(25));
        let homes = match dice.below(10) {
            0 => HOMES[..2].to_vec(),
            1 => vec![HOMES[0], HOMES[2]],
            _ => HOMES[..1].to_vec(),
        };
        let mut workers: Vec<WorkerSpec> = Vec::new();
        let mut streams = Vec::new();
        for number in 0..count {
            if number == 0 || !ranks || dice.chance(50) {
                let mut spec = spec(&format!("w{}", workers.len()));
                spec.copies =
                    if set { dice.pick(&[CopyPolicy::Count, CopyPolicy::Set]) } else { spec.copies };
                settle(&mut spec, dice.pick(&homes));
                spec.engine = if sglang { EngineKind::Sglang } else { EngineKind::Vllm };
                workers.push(spec);
                streams.extend(workers.last().map(|spec| id(spec, 0)));
            } else {
                streams.extend(workers.last().map(|spec| id(spec, number as u32)));
            }
        }
        let kind = dice.below(10);
        let habit = |number: usize| {
            let own = Naming::Salted(number as u8);
            match kind {
                0 => vec![own],
                1 => vec![Naming::Shared, own],
                2 => vec![Naming::Few],
                3 => vec![Naming::Shared, Naming::Few],
                _ if number > 0 => vec![Naming::Shared],
                4 => vec![own],
                5 => vec![Naming::Twisted],
                6 => vec![Naming::Shifted],
                7 => vec![Naming::Shared, Naming::Shared, own, Naming::Twisted],
                _ => vec![Naming::Shared],
            }
        };
        Self {
            habits: (0..count).map(habit).collect(),
            lapses: dice.pick(&[0, 0, 3, 10]),
            workers,
            streams,
            adapters: dice.chance(30),
            apart: dice.chance(50),
            homes,
            max_orphans: if dice.chance(10) { 4 } else { 65_536 },
            tiers: dice.chance(40),
            schemes: dice.chance(10),
        }
    }
}

/// Makes a worker serve another model.
pub(super) fn settle(spec: &mut WorkerSpec, (tenant, model): Home) {
    (spec.tenant, spec.model) = (tenant.into(), model.into());
}

fn id(spec: &WorkerSpec, rank: u32) -> StreamId {
    StreamId { worker: spec.id.clone(), dp_rank: DpRank(rank) }
}
