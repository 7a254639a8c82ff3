//! Whether the index holds and answers what the naive model does.

use kvindex_core::{
    Doubt, EngineBlockHash, Index, Matches, Prompt, Query, ScoreQuery, Scratch, SequenceHash, find_matches,
    score,
};

use super::answers::{Answer, View};
use super::fleet::{ADAPTER, Home};
use super::history::History;
use crate::history::local;
use crate::rig::BLOCK;

/// Says what else is the case when a rule does not hold.
pub(crate) fn hold(rule: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if rule { Ok(()) } else { Err(otherwise()) }
}

/// Compares all that is held, and the answers to all that a history asks.
pub(crate) fn compare(
    index: &Index,
    view: &View<'_>,
    history: &History,
    scratch: &mut Scratch,
) -> Result<(), String> {
    compare_entries(index, view)?;
    let mut asking = Asking { index, view, scratch };
    for home in history.fleet.homes.iter().copied() {
        for path in &history.paths {
            let adapter = history.fleet.adapters.then_some(Some(ADAPTER));
            for lora in [None].into_iter().chain(adapter) {
                asking.by_hashes(home, lora, path)?;
            }
        }
        history.names.iter().try_for_each(|names| asking.by_names(home, names))?;
    }
    Ok(())
}

fn compare_entries(index: &Index, view: &View<'_>) -> Result<(), String> {
    let reader = index.reader();
    let entries = reader.entries().map(|(stream, tier, _, namespace, hash, copies)| {
        (&stream.worker, stream.dp_rank, tier, namespace, hash, copies)
    });
    let mut entries: Vec<_> = entries.collect();
    entries.sort_unstable();
    let expected = view.placed();
    let differ = || {
        let more = entries.iter().find(|entry| !expected.contains(entry));
        let fewer = expected.iter().find(|entry| !entries.contains(entry));
        format!("held but not expected: {more:?}; expected but not held: {fewer:?}; or other numbers of them")
    };
    hold(entries == expected, differ)
}

/// Asks the index and the model the same.
struct Asking<'a> {
    index: &'a Index,
    view: &'a View<'a>,
    scratch: &'a mut Scratch,
}

impl Asking<'_> {
    fn by_hashes(&mut self, (tenant, model): Home, lora: Option<&str>, path: &[u8]) -> Result<(), String> {
        let mut before = None;
        let chained = path.iter().map(|unit| {
            before = Some(SequenceHash::chain(before, local(&[*unit])));
            before.unwrap()
        });
        let hashes: Vec<SequenceHash> = chained.collect();
        let expected = self.view.by_hashes((tenant, model), lora, &hashes);
        let at = || format!("{tenant}/{model}, {lora:?}, {}", String::from_utf8_lossy(path));
        let query = Query {
            tenant,
            prompt: Prompt::SequenceHashes(&hashes),
            lora,
            block_size: Some(BLOCK),
            ..Query::tokens(model, &[])
        };
        let found = find_matches(&self.index.reader(), &query, self.scratch).unwrap();
        agree(&found, &expected).map_err(|error| format!("{error} on {}", at()))?;
        self.scores(&ScoreQuery { tenant, lora, ..ScoreQuery::new(model, BLOCK, &hashes) }, &expected)
            .map_err(|error| format!("{error} on {}", at()))
    }

    /// Scores name every stream that serves anything, once, the best first; with `top_k` and candidates too.
    fn scores(&mut self, query: &ScoreQuery<'_>, expected: &[Answer]) -> Result<(), String> {
        let reader = self.index.reader();
        let mut ask = |query: &ScoreQuery<'_>| {
            let all = score(&reader, query, self.scratch).unwrap().iter();
            let named = all.map(|score| (reader.stream_of(score.stream).unwrap(), score.blocks as usize));
            named.collect::<Vec<_>>()
        };
        let all = ask(query);
        let ordered = all.windows(2).all(|pair| pair[0].1 >= pair[1].1);
        hold(ordered, || format!("scores out of order: {all:?}"))?;
        let mut scored: Vec<_> = all.iter().map(|(id, blocks)| ((&id.worker, id.dp_rank), *blocks)).collect();
        scored.sort_unstable();
        let serving = expected.iter().filter_map(|((worker, rank), served)| {
            let blocks = served.first().map_or(0, |served| served.0);
            (blocks > 0).then_some(((worker, *rank), blocks))
        });
        let serving: Vec<_> = serving.collect();
        hold(scored == serving, || format!("scores {scored:?}, expected {serving:?}"))?;
        if let Some(beside) = self.index.scorer().score(query, &mut Scratch::default()).unwrap() {
            let named =
                beside.iter().map(|score| (reader.stream_of(score.stream).unwrap(), score.blocks as usize));
            hold(named.eq(all.iter().copied()), || format!("a scorer says {beside:?} instead of {all:?}"))?;
        }
        let best = ask(&ScoreQuery { top_k: 1, ..*query });
        let lengths = |scores: &[(_, usize)]| scores.iter().map(|score| score.1).collect::<Vec<_>>();
        hold(lengths(&best) == lengths(&all[..all.len().min(1)]), || format!("best {best:?} of {all:?}"))?;
        let some: Vec<_> = all.iter().map(|(id, _)| *id).step_by(2).collect();
        let candidates = reader.candidates(some.iter().copied());
        let mut chosen = ask(&ScoreQuery { candidates: Some(&candidates), ..*query });
        let mut wanted: Vec<_> = all.iter().step_by(2).copied().collect();
        chosen.sort_unstable();
        wanted.sort_unstable();
        hold(chosen == wanted, || format!("of candidates {chosen:?}, expected {wanted:?}"))
    }

    fn by_names(&mut self, (tenant, model): Home, names: &[EngineBlockHash]) -> Result<(), String> {
        let query = Query {
            tenant,
            prompt: Prompt::EngineHashes(names),
            block_size: Some(BLOCK),
            ..Query::tokens(model, &[])
        };
        let found = find_matches(&self.index.reader(), &query, self.scratch).unwrap();
        let expected = self.view.by_names((tenant, model), names);
        agree(&found, &expected).map_err(|error| format!("{error} on {tenant}/{model}, {names:?}"))
    }
}

/// Whether every stream serves what the model says, tier by tier.
fn agree(found: &Matches, expected: &[Answer]) -> Result<(), String> {
    for ((worker, rank), served) in expected {
        let it = found.workers.iter().find(|found| found.worker.id == *worker && found.dp_rank == *rank);
        let Some(it) = it else { return Err(format!("{worker}/{rank} is not found")) };
        let tiers = it.tiers.iter().map(|tier| (tier.tier.clone(), tier.blocks, tier.prefix_blocks));
        let tiers = if it.matched_blocks == 0 { Vec::new() } else { tiers.collect() };
        let answer = (it.matched_blocks, tiers);
        let nothing = served.is_empty() && answer.0 == 0;
        hold(nothing || served.contains(&answer), || {
            format!("{worker}/{rank} serves {answer:?}, expected {served:?}")
        })?;
        hold(it.matched_tokens == it.matched_blocks * BLOCK as usize, || "other tokens than blocks".into())?;
        let reports = it.doubts.contains(Doubt::RepeatedReports);
        hold(!reports, || format!("{worker}/{rank} is in report mode, which the model does not know"))?;
    }
    let serving = |blocks: usize| blocks > 0;
    let found = found.workers.iter().filter(|found| serving(found.matched_blocks)).count();
    let expected = expected.iter().filter_map(|(_, served)| served.first());
    let expected = expected.filter(|served| serving(served.0)).count();
    hold(found == expected, || format!("{found} streams serve something, expected {expected}"))
}
