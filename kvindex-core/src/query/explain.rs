//! `explain`: where each worker's match ends, and why. Advisory: it rests on a bounded journal.

use std::collections::HashMap;
use std::fmt;

use super::found::{Scratch, Walk, WorkerMatch};
use super::groups::{Units, first_lacking};
use super::prompt::{Prompt, Query, QueryError};
use crate::hash::SequenceHash;
use crate::ids::{BatchSeq, Generation, Group, Tier};
use crate::index::{Cause, Departure, Incident, IndexReader, Need, Place, Stream};
use crate::worker::Namespace;

/// Most other namespaces that are tried for a prompt.
const MAX_OTHER_NAMESPACES: usize = 64;

/// Answer to an explain, over all workers that the query asks.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// In the order of [`find_matches`](super::find_matches).
    pub workers: Vec<WorkerExplanation>,
}

/// One stream's explanation.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerExplanation {
    /// What it holds.
    pub matched: WorkerMatch,
    /// Whole blocks of the prompt at the stream's block size.
    pub prompt_blocks: usize,
    /// First block not held; `None` when all are.
    pub broke_at: Option<usize>,
    /// Blocks held after the break, out of reach of a prefix match.
    pub held_beyond: usize,
    /// Why it broke there.
    pub reason: Reason,
}

/// Why a match ends where it does. Times are milliseconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// It does not end: every whole block is held.
    Complete,
    /// Never stored, as far back as the journal reaches.
    NeverStored,
    /// The engine evicted it.
    Removed {
        /// From which tier.
        tier: Tier,
        /// When.
        at_ms: u64,
        /// By which batch.
        batch: BatchSeq,
    },
    /// The index took it away to stay below its cap; the engine may still hold it.
    Evicted {
        /// When.
        at_ms: u64,
    },
    /// The engine cleared its cache.
    Cleared {
        /// When.
        at_ms: u64,
        /// By which batch.
        batch: BatchSeq,
    },
    /// Batches were lost; the block was held before, or may have been in one of them.
    LostInGap {
        /// When.
        at_ms: u64,
        /// First lost batch.
        first: BatchSeq,
        /// Last lost batch.
        last: BatchSeq,
    },
    /// The same tokens are held in another namespace.
    OtherNamespace {
        /// Which difference it makes.
        what: String,
    },
    /// The engine restarted with an empty cache.
    GenerationChanged {
        /// When.
        at_ms: u64,
    },
    /// The groups that need every block hold this one; another KV-cache group of the model does not hold what it
    /// needs to go on from any later block.
    GroupLacks {
        /// Which group.
        group: Group,
        /// What it needs, for people.
        need: String,
    },
    /// No event of this stream was ever applied.
    NothingHeard,
    /// Not stored since this time; what was before is forgotten.
    BeforeJournal {
        /// How far back the journal reaches.
        since_ms: u64,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Complete => write!(f, "every whole block is held"),
            Self::NeverStored => write!(f, "never stored"),
            Self::Removed { tier, at_ms, batch } => {
                write!(f, "removed from {tier} by batch {batch} at {at_ms} ms")
            }
            Self::Evicted { at_ms } => {
                write!(
                    f,
                    "taken out of the index at {at_ms} ms to keep it small; the engine may still hold it"
                )
            }
            Self::Cleared { at_ms, batch } => {
                write!(f, "gone when the engine cleared its cache in batch {batch} at {at_ms} ms")
            }
            Self::LostInGap { at_ms, first, last } => {
                write!(f, "batches {first} to {last} were lost at {at_ms} ms, and its fate with them")
            }
            Self::OtherNamespace { what } => write!(f, "held in another namespace: {what}"),
            Self::GenerationChanged { at_ms } => write!(f, "gone when the engine restarted at {at_ms} ms"),
            Self::GroupLacks { group, need } => {
                write!(f, "KV-cache group {group} lacks what it needs further on: {need}")
            }
            Self::NothingHeard => write!(f, "nothing was heard from this engine yet"),
            Self::BeforeJournal { since_ms } => {
                write!(f, "not stored since {since_ms} ms, and the journal reaches no further back")
            }
        }
    }
}

/// Explains for every stream that the query asks where its match ends and why. With engine block hashes only
/// what is held is known, not why.
///
/// # Errors
/// When the query contradicts itself.
pub fn explain(
    reader: &IndexReader<'_>,
    query: &Query<'_>,
    scratch: &mut Scratch,
) -> Result<Explanation, QueryError> {
    super::hash_prompt(reader, query, scratch)?;
    Ok(explain_hashed(reader, query, scratch))
}

/// Second half of [`explain`], after [`hash_prompt`](super::hash_prompt).
#[must_use]
pub fn explain_hashed(reader: &IndexReader<'_>, query: &Query<'_>, scratch: &mut Scratch) -> Explanation {
    let found = super::find_hashed(reader, query, scratch);
    let mut workers: Vec<WorkerExplanation> =
        found.workers.into_iter().map(|matched| Case { reader, query, scratch }.outline(matched)).collect();
    let departures = newest_departures(reader, scratch, &workers);
    let elsewhere = Elsewhere::search(reader, query);
    for worker in &mut workers {
        worker.reason = Case { reader, query, scratch }.reason(worker, &departures, &elsewhere);
    }
    Explanation { prompt_tokens: found.prompt_tokens, workers }
}

struct Case<'a> {
    reader: &'a IndexReader<'a>,
    query: &'a Query<'a>,
    scratch: &'a Scratch,
}

impl Case<'_> {
    /// Where the match ends, without the reason.
    fn outline(&self, matched: WorkerMatch) -> WorkerExplanation {
        let prompt_blocks = match self.query.prompt {
            Prompt::EngineHashes(hashes) => hashes.len(),
            _ => self.walk(&matched).map_or_else(
                || self.query.prompt_tokens().checked_div(matched.block_size as usize).unwrap_or(0),
                |walk| walk.hashes.len(),
            ),
        };
        let whole = matched.block_size > 0 && matched.matched_blocks >= prompt_blocks;
        let broke_at = (!whole).then_some(matched.matched_blocks);
        let held_beyond = broke_at.map_or(0, |at| self.held_beyond(&matched, at));
        WorkerExplanation { matched, prompt_blocks, broke_at, held_beyond, reason: Reason::NeverStored }
    }

    fn walk(&self, matched: &WorkerMatch) -> Option<&Walk> {
        let walks = self.scratch.walks.iter();
        walks.filter(|walk| walk.block_size == matched.block_size).max_by_key(|walk| walk.path.len())
    }

    fn stream(&self, matched: &WorkerMatch) -> Option<&Stream> {
        let rank = matched.dp_rank;
        let registry = self.reader.registry();
        registry.stream(*registry.worker(&matched.worker.id)?.streams.get(&rank)?)
    }

    /// Blocks after the break that the stream still holds, found one by one: their parents may be gone.
    fn held_beyond(&self, matched: &WorkerMatch, broke_at: usize) -> usize {
        let (Some(walk), Some(stream)) = (self.walk(matched), self.stream(matched)) else { return 0 };
        let tree = self.reader.tree();
        let mut before: Option<Place> = None;
        let mut held = 0;
        for (i, hash) in walk.hashes.iter().enumerate() {
            let place = tree.find(walk.space, before, *hash);
            let holders = place.and_then(|at| Some((at, tree.run(at.run)?)));
            let holds = holders.is_some_and(|(at, run)| {
                stream.slots.iter().any(|slot| run.holders.contains(at.offset, *slot))
            });
            held += usize::from(holds && i > broke_at);
            before = place;
        }
        held
    }

    fn reason(
        &self,
        worker: &WorkerExplanation,
        departures: &HashMap<(u32, SequenceHash), Departure>,
        elsewhere: &Elsewhere,
    ) -> Reason {
        let Some(at) = worker.broke_at else {
            return Reason::Complete;
        };
        let Some(stream) = self.stream(&worker.matched) else {
            return Reason::NothingHeard;
        };
        if stream.stamp.applied.is_none() && stream.stamp.generation == Generation(0) {
            return Reason::NothingHeard;
        }
        if let Some((group, need)) = self.lacking_group(stream, &worker.matched) {
            return Reason::GroupLacks { group, need };
        }
        let block = self.scratch.walks.iter().filter_map(|walk| walk.hashes.get(at));
        let gone = block.filter_map(|hash| departures.get(&(stream.serial, *hash))).max_by_key(|d| d.at_ms);
        if let Some(departure) = gone {
            return self.departed(stream, departure);
        }
        if let Some(what) = elsewhere.held_further(self.reader, stream, worker.matched.matched_tokens) {
            return Reason::OtherNamespace { what };
        }
        self.not_seen(stream)
    }

    /// The group that ends the match of a hybrid model, if those that need every block do not.
    fn lacking_group(&self, stream: &Stream, matched: &WorkerMatch) -> Option<(Group, String)> {
        let walk = self.walk(matched)?;
        let mut shapes = stream.groups.shapes(&stream.spec.groups);
        shapes.sort_by_key(|shape| (shape.need != Need::All, shape.group));
        let owners = super::found::owners_of(self.reader, stream, |_| true);
        let units = Units::Path(&walk.path);
        let lacking = first_lacking(self.reader, units, &shapes, &owners, matched.matched_blocks)?;
        let need = match lacking.need {
            Need::All => return None,
            Need::Last(blocks) => format!("the last {blocks} blocks before a boundary (sliding window)"),
            Need::State => "the state at a boundary (mamba)".to_owned(),
        };
        Some((lacking.group, need))
    }

    fn departed(&self, stream: &Stream, gone: &Departure) -> Reason {
        let (at_ms, batch) = (gone.at_ms, gone.batch);
        match gone.cause() {
            Cause::Removed => {
                let owner = self.reader.registry().owner(gone.owner());
                Reason::Removed { tier: owner.map_or(Tier::Device, |o| o.tier.clone()), at_ms, batch }
            }
            Cause::Evicted => Reason::Evicted { at_ms },
            Cause::Cleared | Cause::Unregistered => Reason::Cleared { at_ms, batch },
            Cause::Restarted => Reason::GenerationChanged { at_ms },
            Cause::Purged => {
                last_gap(stream).unwrap_or(Reason::LostInGap { at_ms, first: batch, last: batch })
            }
        }
    }

    /// The journal does not know the block.
    fn not_seen(&self, stream: &Stream) -> Reason {
        last_gap(stream).unwrap_or_else(|| match self.reader.journal().forgotten_until_ms {
            Some(since_ms) => Reason::BeforeJournal { since_ms },
            None => Reason::NeverStored,
        })
    }
}

/// The last gap of the stream's current generation.
fn last_gap(stream: &Stream) -> Option<Reason> {
    let this_life = stream.incidents.iter().rev().take_while(|i| !matches!(i, Incident::Generation { .. }));
    this_life.into_iter().find_map(|incident| match incident {
        Incident::Gap { first, last, at_ms } => {
            Some(Reason::LostInGap { at_ms: *at_ms, first: *first, last: *last })
        }
        Incident::Generation { .. } => None,
    })
}

/// The newest departure of each block at which a stream's match ends, in one pass over the journal.
fn newest_departures(
    reader: &IndexReader<'_>,
    scratch: &Scratch,
    workers: &[WorkerExplanation],
) -> HashMap<(u32, SequenceHash), Departure> {
    let mut breaks: Vec<SequenceHash> = Vec::new();
    for at in workers.iter().filter_map(|worker| worker.broke_at) {
        breaks.extend(scratch.walks.iter().filter_map(|walk| walk.hashes.get(at)));
    }
    breaks.sort_unstable();
    breaks.dedup();
    let mut found = HashMap::new();
    for departure in reader.journal().newest_first() {
        if breaks.binary_search(&departure.block).is_ok() {
            found.entry((departure.stream, departure.block)).or_insert(*departure);
        }
    }
    found
}

/// The same prompt, looked up where it would be with another adapter or without its salt and images.
struct Elsewhere {
    tries: Vec<(String, Scratch)>,
}

impl Elsewhere {
    fn search(reader: &IndexReader<'_>, query: &Query<'_>) -> Self {
        let mut tries = Vec::new();
        let mut attempt = |what: String, query: &Query<'_>| {
            let mut scratch = Scratch::default();
            scratch.hash_all(reader, query);
            scratch.walk_all(reader);
            tries.push((what, scratch));
        };
        if let Prompt::Tokens { tokens, salt, items } = query.prompt
            && (salt.is_some() || !items.is_empty())
        {
            let bare = Prompt::Tokens { tokens, salt: None, items: &[] };
            attempt("without this salt or these images".into(), &Query { prompt: bare, ..query.clone() });
        }
        let mut adapters: Vec<Option<&str>> = reader
            .spaces()
            .all()
            .iter()
            .filter(|n| is_sibling(n, query))
            .map(|n| n.lora.as_deref())
            .collect();
        adapters.sort_unstable();
        adapters.dedup();
        for lora in adapters.into_iter().take(MAX_OTHER_NAMESPACES) {
            let what =
                lora.map_or("without a LoRA adapter".into(), |name| format!("with LoRA adapter {name}"));
            attempt(what, &Query { lora, ..query.clone() });
        }
        Self { tries }
    }

    /// Whether the stream holds more than `tokens` of the prompt in another namespace.
    fn held_further(&self, reader: &IndexReader<'_>, stream: &Stream, tokens: usize) -> Option<String> {
        let deepest = |scratch: &Scratch| {
            let owners = stream.slots.iter().filter(|slot| reader.registry().owner(**slot).is_some());
            let walks = |slot| scratch.walks.iter().map(move |walk| walk.tokens_held(slot));
            owners.flat_map(|slot| walks(*slot)).max().unwrap_or(0)
        };
        self.tries.iter().find(|(_, scratch)| deepest(scratch) > tokens).map(|(what, _)| what.clone())
    }
}

/// Another adapter of the same tenant and model.
fn is_sibling(namespace: &Namespace, query: &Query<'_>) -> bool {
    *namespace.tenant == *query.tenant
        && *namespace.model == *query.model
        && namespace.lora.as_deref() != query.lora
}
