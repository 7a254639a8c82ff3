//! What the naive model answers, block by block.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use kvindex_core::{DpRank, EngineBlockHash, Namespace, SequenceHash, StreamId, Tier, WorkerId};

use super::compare::hold;
use super::{Naive, Name, Place};

/// How much of a prompt a stream serves: blocks, and for each tier (blocks on it, prefix up to it).
pub(crate) type Served = (usize, Vec<(Tier, usize, usize)>);

/// A stream's answer; several where several namespaces serve as much.
pub(crate) type Answer = ((WorkerId, DpRank), Vec<Served>);

/// One held name at a known place: whose, where, how often.
pub(crate) type Entry<'a> = (&'a WorkerId, DpRank, &'a Tier, &'a Namespace, SequenceHash, u32);

/// What a follower of the index knows to be held, by stream and tier.
pub(crate) type Followed = BTreeMap<(StreamId, Tier), BTreeSet<(Namespace, SequenceHash)>>;

/// The model as it stands, looked up by place.
pub(crate) struct View<'a> {
    naive: &'a Naive,
    streams: Vec<Stream<'a>>,
}

struct Stream<'a> {
    worker: &'a WorkerId,
    rank: DpRank,
    home: (&'a str, &'a str),
    size_known: bool,
    tiers: Vec<Held<'a>>,
}

struct Held<'a> {
    tier: &'a Tier,
    names: &'a BTreeMap<EngineBlockHash, Name>,
    places: HashSet<Place>,
}

impl<'a> View<'a> {
    pub(crate) fn of(naive: &'a Naive) -> Self {
        let streams = naive.streams().map(|(spec, rank, stream)| {
            let held = stream.tiers.iter().map(|(tier, held)| {
                let places = held.names.values().filter_map(|name| name.place).collect();
                Held { tier, names: &held.names, places }
            });
            let (tiers, size_known) = (held.collect(), stream.size_known);
            let home = (spec.tenant.as_str(), spec.model.as_str());
            Stream { worker: &spec.id, rank, home, size_known, tiers }
        });
        Self { naive, streams: streams.collect() }
    }

    /// Every held name at a known place, in order.
    pub(crate) fn placed(&self) -> Vec<Entry<'a>> {
        let mut all: Vec<Entry<'a>> = Vec::new();
        for stream in &self.streams {
            for held in &stream.tiers {
                let names = held.names.values().filter_map(|name| Some((name.place?, name.copies)));
                all.extend(names.map(|((space, hash), copies)| {
                    (stream.worker, stream.rank, held.tier, &self.naive.spaces[space], hash, copies)
                }));
            }
        }
        all.sort_unstable();
        all
    }

    /// Whether a follower knows all that is held at known places, and no more.
    pub(crate) fn followed(&self, followed: &Followed) -> Result<(), String> {
        let nothing = BTreeSet::new();
        let mut held = 0;
        for stream in &self.streams {
            for Held { tier, places, .. } in &stream.tiers {
                let id = StreamId { worker: stream.worker.clone(), dp_rank: stream.rank };
                let known = followed.get(&(id, (*tier).clone())).unwrap_or(&nothing);
                let place = |(space, hash): &Place| (self.naive.spaces[*space].clone(), *hash);
                let missed = places.iter().map(place).find(|place| !known.contains(place));
                let (worker, rank) = (stream.worker, stream.rank);
                hold(missed.is_none(), || {
                    format!("followers do not know {missed:?} of {worker}/{rank} {tier}")
                })?;
                held += places.len();
            }
        }
        let known: usize = followed.values().map(BTreeSet::len).sum();
        hold(known == held, || format!("followers know {known} blocks, of which {held} are held"))
    }

    /// What each stream of a tenant's model serves of a chain of sequence hashes: its best over the namespaces of
    /// model and adapter.
    pub(crate) fn by_hashes(
        &self,
        home: (&str, &str),
        lora: Option<&str>,
        chain: &[SequenceHash],
    ) -> Vec<Answer> {
        let asked =
            |space: &Namespace| (&*space.tenant, &*space.model) == home && space.lora.as_deref() == lora;
        let numbers = 0..self.naive.spaces.len();
        let spaces: Vec<usize> = numbers.filter(|number| asked(&self.naive.spaces[*number])).collect();
        let answer = |stream: &Stream<'_>| {
            let one =
                |space: &usize| stream.serves(chain, |held, hash| held.places.contains(&(*space, hash)));
            let all: Vec<Served> = spaces.iter().map(one).collect();
            let best = all.iter().map(|served| served.0).max().unwrap_or(0);
            (stream.id(), all.into_iter().filter(|served| served.0 == best).collect())
        };
        self.streams.iter().filter(|stream| stream.home == home).map(answer).collect()
    }

    /// The same by the engines' own names, which cannot be asked for before the block size is known.
    pub(crate) fn by_names(&self, home: (&str, &str), chain: &[EngineBlockHash]) -> Vec<Answer> {
        let answer = |stream: &Stream<'_>| {
            let chain = if stream.size_known { chain } else { &[] };
            (stream.id(), vec![stream.serves(chain, |held, name| held.names.contains_key(&name))])
        };
        self.streams.iter().filter(|stream| stream.home == home).map(answer).collect()
    }
}

impl Stream<'_> {
    fn id(&self) -> (WorkerId, DpRank) {
        (self.worker.clone(), self.rank)
    }

    /// The longest prefix whose every block is on some tier.
    fn serves<T: Copy>(&self, chain: &[T], holds: impl Fn(&Held<'_>, T) -> bool) -> Served {
        let prefix = |tiers: &[Held<'_>]| {
            chain.iter().take_while(|block| tiers.iter().any(|held| holds(held, **block))).count()
        };
        let whole = prefix(&self.tiers);
        if whole == 0 {
            return (0, Vec::new());
        }
        let tiers = self.tiers.iter().enumerate().map(|(i, held)| {
            let here = chain[..whole].iter().filter(|block| holds(held, **block)).count();
            (held.tier.clone(), here, prefix(&self.tiers[..=i]))
        });
        (whole, tiers.collect())
    }
}
