//! Questions to the index, answered with trust stamps.

use std::time::Instant;

use prometheus_client::registry::Registry;

use kvindex_core::{
    DpRank, IndexReader, Query, QueryError, Scratch, StreamId, StreamStamp, WorkerExplanation, WorkerMatch,
    explain_hashed, find_hashed, hash_noted, hash_prompt, is_noted, note_namespaces,
};

use super::Node;
use super::groups::{GroupBest, best_of_groups};
use super::hot::HotTenant;
use crate::ingest::HashCheck;
use crate::metrics::StreamGauges;
use crate::trust::Trust;
use crate::workers::{StreamSource, WorkerDefinition};

/// A match and how far it can be relied on.
#[derive(Debug, Clone, PartialEq)]
pub struct TrustedMatch {
    /// The match.
    pub matched: WorkerMatch,
    /// Its stamp.
    pub trust: Trust,
}

/// Answer to a match.
#[derive(Debug)]
pub struct Found {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Best first.
    pub workers: Vec<TrustedMatch>,
    /// The best of each prefill-decode group, when asked for.
    pub groups: Vec<GroupBest>,
    /// Microseconds spent hashing the prompt.
    pub hash_us: u64,
    /// Microseconds spent on everything else: waiting for the lock, walking, sorting, stamping.
    pub walk_us: u64,
}

/// Answer to an explain.
#[derive(Debug)]
pub struct Explained {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Best first.
    pub workers: Vec<(WorkerExplanation, Trust)>,
    /// Microseconds spent hashing the prompt.
    pub hash_us: u64,
    /// Microseconds spent on everything else.
    pub walk_us: u64,
}

/// A known worker with its streams.
#[derive(Debug)]
pub struct ListedWorker {
    /// Its definition.
    pub definition: WorkerDefinition,
    /// Its streams: those with a source, and those whose events are pushed.
    pub streams: Vec<ListedStream>,
}

/// One stream of a known worker.
#[derive(Debug)]
pub struct ListedStream {
    /// The rank.
    pub dp_rank: DpRank,
    /// Where it publishes; `None` when its events are pushed.
    pub source: Option<StreamSource>,
    /// How far answers about it can be relied on.
    pub trust: Trust,
    /// Blocks it holds.
    pub blocks: usize,
    /// Whether its engine hashes as the worker's hash profile says.
    pub hash_check: HashCheck,
}

impl Node {
    /// Which workers hold how long a prefix; with `group_rollup` also the best of each prefill-decode group,
    /// chosen before `top_k` and `min_blocks` cut the list: a good decode worker may hold nothing.
    ///
    /// # Errors
    /// When the query contradicts itself.
    pub fn find(&self, query: &Query<'_>, group_rollup: bool) -> Result<Found, QueryError> {
        let started = Instant::now();
        let whole;
        let asked = if group_rollup {
            whole = Query { top_k: None, min_blocks: 0, ..query.clone() };
            &whole
        } else {
            query
        };
        let look = self.hot.next(query.tenant);
        let (matches, hash_us) = self.ask(asked, |reader, query, scratch| {
            let found = find_hashed(reader, query, scratch);
            if let Some(look) = look {
                self.hot.note(look, reader, query, scratch);
            }
            found
        })?;
        let trusted = |matched: WorkerMatch| {
            let stream = StreamId { worker: matched.worker.id.clone(), dp_rank: matched.dp_rank };
            let trust = Trust::judge(&matched.stream, self.link(&stream));
            TrustedMatch { matched, trust }
        };
        let mut workers: Vec<TrustedMatch> = matches.workers.into_iter().map(trusted).collect();
        let groups = if group_rollup { best_of_groups(&workers) } else { Vec::new() };
        if group_rollup {
            workers.retain(|worker| worker.matched.matched_blocks >= query.min_blocks);
            workers.truncate(query.top_k.unwrap_or(usize::MAX));
        }
        let best = workers.iter().map(|worker| worker.matched.matched_tokens).max().unwrap_or(0);
        let states = workers.iter().map(|worker| worker.trust.state);
        self.metrics.answered(matches.prompt_tokens as u64, best as u64, states);
        Ok(Found {
            prompt_tokens: matches.prompt_tokens,
            workers,
            groups,
            hash_us,
            walk_us: micros_since(started).saturating_sub(hash_us),
        })
    }

    /// Where each worker's match ends, and why.
    ///
    /// # Errors
    /// When the query contradicts itself.
    pub fn explain(&self, query: &Query<'_>) -> Result<Explained, QueryError> {
        let started = Instant::now();
        let (explanation, hash_us) = self.ask(query, explain_hashed)?;
        let trusted = |worker: WorkerExplanation| {
            let stream =
                StreamId { worker: worker.matched.worker.id.clone(), dp_rank: worker.matched.dp_rank };
            let trust = Trust::judge(&worker.matched.stream, self.link(&stream));
            (worker, trust)
        };
        Ok(Explained {
            prompt_tokens: explanation.prompt_tokens,
            workers: explanation.workers.into_iter().map(trusted).collect(),
            hash_us,
            walk_us: micros_since(started).saturating_sub(hash_us),
        })
    }

    /// Which prefixes this node's questions ask for most, of each tenant that `sees` lets pass, by its name.
    #[must_use]
    pub fn hot(&self, sees: impl Fn(&str) -> bool) -> Vec<HotTenant> {
        self.hot.list(sees)
    }

    /// Every known worker with its streams, by worker id.
    #[must_use]
    pub fn list_workers(&self) -> Vec<ListedWorker> {
        let heard: Vec<_> = self.index.read().reader().workers().collect();
        let known = self.known_workers().into_iter();
        known
            .map(|known| {
                let found = heard.binary_search_by(|w| w.worker.id.cmp(&known.definition.spec.id)).ok();
                let heard = found.and_then(|at| heard.get(at)).map_or(&[][..], |w| w.streams.as_slice());
                self.listed(known.definition, heard)
            })
            .collect()
    }

    fn listed(&self, definition: WorkerDefinition, heard: &[(DpRank, StreamStamp, usize)]) -> ListedWorker {
        let sourced = definition.streams.iter().map(|source| source.dp_rank);
        let mut ranks: Vec<DpRank> = sourced.chain(heard.iter().map(|(rank, _, _)| *rank)).collect();
        ranks.sort_unstable();
        ranks.dedup();
        let stream = |dp_rank: DpRank| {
            let stream = StreamId { worker: definition.spec.id.clone(), dp_rank };
            let known = heard.iter().find(|(rank, _, _)| *rank == dp_rank);
            let (stamp, blocks) = known.map(|(_, stamp, held)| (*stamp, *held)).unwrap_or_default();
            let source = definition.streams.iter().find(|source| source.dp_rank == dp_rank).cloned();
            let link = self.link(&stream);
            let trust = Trust::judge(&stamp, link);
            ListedStream { dp_rank, source, trust, blocks, hash_check: link.hash_check }
        };
        let streams = ranks.into_iter().map(stream).collect();
        ListedWorker { definition, streams }
    }

    /// All metrics as text, sizes and streams as they are now.
    pub(crate) fn render_metrics(&self, others: &[Registry]) -> String {
        let streams = self.list_workers().into_iter().flat_map(|listed| {
            let worker = listed.definition.spec.id;
            let gauges = move |stream: ListedStream| StreamGauges {
                worker: worker.as_str().to_owned(),
                dp_rank: stream.dp_rank.0,
                trust: stream.trust,
                hash_check: stream.hash_check,
            };
            listed.streams.into_iter().map(gauges)
        });
        let (streams, usage) = (streams.collect::<Vec<_>>(), self.usage());
        self.metrics.capped(self.index_cap());
        self.metrics.render(&self.stats(), &usage.tenants, &streams, self.engines.counters(), others)
    }

    /// Hashes a query's prompt and answers it; also tells the microseconds that hashing took.
    fn ask<A>(
        &self,
        query: &Query<'_>,
        answer: impl FnOnce(&IndexReader<'_>, &Query<'_>, &mut Scratch) -> A,
    ) -> Result<(A, u64), QueryError> {
        let mut scratch = self.scratches.lock().pop().unwrap_or_default();
        let mut hash_us = 0;
        let noted = query.is_long().then(|| self.hash_unlocked(query, &mut scratch, &mut hash_us));
        let index = self.index.read();
        let reader = index.reader();
        // The wait for the index is no part of hashing.
        let started = Instant::now();
        let hashed = match noted {
            Some(Err(error)) => Err(error),
            Some(Ok(())) if is_noted(&reader, query, &scratch) => Ok(()),
            // A short one; or a namespace came while a long one was hashed, which its blocks may lie in.
            Some(Ok(())) | None => hash_prompt(&reader, query, &mut scratch),
        };
        hash_us += micros_since(started);
        let answered = hashed.map(|()| (answer(&reader, query, &mut scratch), hash_us));
        drop(index);
        self.keep_scratch(scratch);
        answered
    }

    /// Hashes a long prompt without holding up who changes the index, and who asks behind them.
    fn hash_unlocked(
        &self,
        query: &Query<'_>,
        scratch: &mut Scratch,
        hash_us: &mut u64,
    ) -> Result<(), QueryError> {
        note_namespaces(&self.index.read().reader(), query, scratch)?;
        let started = Instant::now();
        hash_noted(query, scratch);
        *hash_us += micros_since(started);
        Ok(())
    }

    fn keep_scratch(&self, scratch: Scratch) {
        let mut scratches = self.scratches.lock();
        if scratches.len() < MAX_SCRATCHES {
            scratches.push(scratch);
        }
    }
}

fn micros_since(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// Kept buffers: as many as queries run at one time on a large machine.
const MAX_SCRATCHES: usize = 64;
