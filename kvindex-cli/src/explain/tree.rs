//! The answer to `explain` as a picture: the prompt is a trunk that grows upwards, and each worker leaves it where its
//! match ends, with the reason beside it.

use kvindex_client::v1::{self, TrustState};
use unicode_width::UnicodeWidthStr;

use super::bar;
use crate::paint::{Colour, Paint};
use crate::printable;
use crate::tables;

/// Lines of names before the others are only counted.
const NAME_LINES: usize = 4;

/// Draws the tree. `now_ms` is this moment, in milliseconds since the Unix epoch.
pub(super) fn draw(response: &v1::ExplainResponse, paint: &Paint, now_ms: u64) -> String {
    let summary =
        format!("prompt of {} tokens{}", response.prompt_tokens, tables::timing(response.timing.as_ref()));
    if response.workers.is_empty() {
        return format!("{}\n{summary}", tables::NO_WORKER);
    }
    let tree = Tree { prompt: response.prompt_tokens, paint, now_ms };
    let mut lines = vec![paint.coloured(Colour::Bold, &summary), tree.legend(response), String::new()];
    lines.push(tree.knot(tree.prompt, '┬', "the prompt's end"));
    for branch in branches(&response.workers) {
        lines.push(tree.along(""));
        tree.branch(&branch, &mut lines);
    }
    lines.push(tree.along(""));
    lines.push(tree.knot(0, '┴', "the prompt's beginning"));
    lines.iter().map(|line| line.trim_end()).collect::<Vec<_>>().join("\n")
}

/// Workers that leave the trunk together, for the same reason.
type Branch<'a> = Vec<&'a v1::WorkerExplanation>;

/// Deepest first. Alike are workers of which everything but the name reads the same.
fn branches(workers: &[v1::WorkerExplanation]) -> Vec<Branch<'_>> {
    let mut sorted: Vec<&v1::WorkerExplanation> = workers.iter().collect();
    sorted.sort_by_key(|worker| std::cmp::Reverse(tokens_of(worker)));
    let mut branches: Vec<Branch<'_>> = Vec::new();
    for worker in sorted {
        let depth = tokens_of(worker);
        // Only branches of this depth: those before are done with.
        let same = branches
            .iter_mut()
            .rev()
            .take_while(|branch| branch.first().is_some_and(|first| tokens_of(first) == depth))
            .find(|branch| branch.first().is_some_and(|first| alike(first, worker)));
        match same {
            Some(branch) => branch.push(worker),
            None => branches.push(vec![worker]),
        }
    }
    branches
}

fn alike(one: &v1::WorkerExplanation, other: &v1::WorkerExplanation) -> bool {
    let (Some(mine), Some(theirs)) = (&one.matched, &other.matched) else { return false };
    fn said(matched: &v1::WorkerMatch) -> Option<(i32, &str)> {
        matched.trust.as_ref().map(|trust| (trust.state, trust.reason.as_str()))
    }
    (one.prompt_blocks, one.broke_at, one.held_beyond, &one.detail, one.at_ms)
        == (other.prompt_blocks, other.broke_at, other.held_beyond, &other.detail, other.at_ms)
        && (mine.matched_blocks, mine.block_size, &mine.tiers, &mine.doubts)
            == (theirs.matched_blocks, theirs.block_size, &theirs.tiers, &theirs.doubts)
        && said(mine) == said(theirs)
}

fn tokens_of(worker: &v1::WorkerExplanation) -> u64 {
    worker.matched.as_ref().map_or(0, |matched| matched.matched_tokens)
}

/// What is the same for every branch.
struct Tree<'a> {
    prompt: u64,
    paint: &'a Paint,
    now_ms: u64,
}

impl Tree<'_> {
    /// Columns of the numbers beside the trunk.
    fn margin(&self) -> usize {
        self.prompt.to_string().len() + 1
    }

    /// Columns right of the trunk.
    fn room(&self) -> usize {
        self.paint.width.saturating_sub(self.margin() + 4).max(20)
    }

    /// A line beside a number on the trunk.
    fn knot(&self, tokens: u64, knot: char, text: &str) -> String {
        format!("{tokens:>width$} {knot} {text}", width = self.margin())
    }

    /// A line beside the trunk.
    fn along(&self, text: &str) -> String {
        format!("{:width$} │  {text}", "", width = self.margin())
    }

    /// The tiers that are in the picture.
    fn legend(&self, response: &v1::ExplainResponse) -> String {
        let mut tiers: Vec<&str> = Vec::new();
        for tier in response.workers.iter().filter_map(|w| w.matched.as_ref()).flat_map(|m| &m.tiers) {
            if !tiers.contains(&tier.tier.as_str()) {
                tiers.push(&tier.tier);
            }
        }
        let mut legend = String::from("tokens on the left");
        for tier in tiers {
            let (letter, colour) = bar::letter(tier);
            let letter = self.paint.coloured(colour, &letter.to_string());
            legend += &format!(", {letter} {}", printable::name(tier));
        }
        legend + ", . not held"
    }

    fn branch(&self, branch: &Branch<'_>, lines: &mut Vec<String>) {
        let Some(first) = branch.first() else { return };
        let matched = first.matched.clone().unwrap_or_default();
        self.names(branch, &matched, lines);
        let cells = self.room().saturating_sub(8);
        let drawn = bar::bar(&matched, self.prompt, cells, self.paint);
        let share = tables::share(matched.matched_tokens, self.prompt);
        lines.push(self.along(&format!("[{drawn}] {share:>5}")));
        self.text(None, &held(first, &matched), lines);
        self.text(Some(Colour::Bold), &format!("why: {}", self.why(first)), lines);
        if let Some(trust) = matched.trust.as_ref().filter(|trust| !trust.reason.is_empty()) {
            self.text(Some(Colour::Yellow), &format!("trust: {}", trust.reason), lines);
        }
        if !matched.doubts.is_empty() {
            self.text(Some(Colour::Yellow), &format!("in doubt: {}", matched.doubts.join(", ")), lines);
        }
    }

    /// Who it is about, where its line leaves the trunk.
    fn names(&self, branch: &Branch<'_>, matched: &v1::WorkerMatch, lines: &mut Vec<String>) {
        let named = branch.iter().filter_map(|worker| worker.matched.as_ref()).map(|one| {
            let id = printable::name(&one.worker_id);
            match one.address.as_deref() {
                Some(address) if branch.len() == 1 => {
                    format!("{id} rank {}, {}", one.dp_rank, printable::name(address))
                }
                _ => format!("{id} rank {}", one.dp_rank),
            }
        });
        let named: Vec<String> = named.collect();
        let state = matched.trust.as_ref().map_or(TrustState::Unspecified, v1::Trust::state);
        let word = tables::trust_word(matched.trust.as_ref());
        let colour = match state {
            TrustState::Live => Colour::Green,
            TrustState::Suspect => Colour::Red,
            TrustState::Rebuilding | TrustState::Pending => Colour::Yellow,
            TrustState::Unspecified => Colour::Dim,
        };
        let trusted = self.paint.coloured(colour, word);
        let (depth, margin) = (matched.matched_tokens, self.margin());
        let heads = wrapped(&named.join("; "), self.room().saturating_sub(word.width() + 2));
        let last = heads.len().min(NAME_LINES).saturating_sub(1);
        for (index, head) in heads.iter().take(NAME_LINES).enumerate() {
            let mut head = self.paint.coloured(Colour::Bold, head);
            if index == last {
                head += &format!(", {trusted}");
            }
            lines.push(match index {
                0 => format!("{depth:>margin$} ├─ {head}"),
                _ => self.along(&head),
            });
        }
        if heads.len() > NAME_LINES {
            let all = branch.len();
            self.text(None, &format!("… {all} workers and ranks in all; --table lists each"), lines);
        }
    }

    /// The reason, with the time as people tell it.
    fn why(&self, worker: &v1::WorkerExplanation) -> String {
        let Some(at_ms) = worker.at_ms else { return worker.detail.clone() };
        let Some(past) = self.now_ms.checked_sub(at_ms) else { return worker.detail.clone() };
        let (stamp, since) = (format!(" at {at_ms} ms"), format!(" since {at_ms} ms"));
        let detail = worker.detail.replace(&stamp, &format!(", {} ago", duration(past)));
        detail.replace(&since, &format!(" in the last {}", duration(past)))
    }

    fn text(&self, colour: Option<Colour>, text: &str, lines: &mut Vec<String>) {
        for line in wrapped(&printable::name(text), self.room()) {
            lines.push(self.along(&match colour {
                Some(colour) => self.paint.coloured(colour, &line),
                None => line,
            }));
        }
    }
}

fn held(worker: &v1::WorkerExplanation, matched: &v1::WorkerMatch) -> String {
    if matched.block_size == 0 {
        return "its block size is not known yet".into();
    }
    let mut text = format!(
        "{} of {} blocks of {} tokens, {} tokens; {}",
        matched.matched_blocks,
        worker.prompt_blocks,
        matched.block_size,
        matched.matched_tokens,
        tables::tiers(matched)
    );
    if let (Some(broke_at), 1..) = (worker.broke_at, worker.held_beyond) {
        text += &format!("; {} more beyond block {broke_at}, of no use without it", worker.held_beyond);
    }
    text
}

/// A span of time to two digits.
fn duration(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..120_000 => format!("{} s", ms / 1_000),
        120_000..7_200_000 => format!("{} min", ms / 60_000),
        7_200_000..172_800_000 => format!("{} h", ms / 3_600_000),
        _ => format!("{} days", ms / 86_400_000),
    }
}

/// The text in lines of at most `room` columns, broken at blanks, and inside words that are longer.
fn wrapped(text: &str, room: usize) -> Vec<String> {
    let room = room.max(8);
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let mut rest = word;
        while let Some(line) = lines.last_mut() {
            let blank = usize::from(!line.is_empty());
            if line.width() + blank + rest.width() <= room {
                line.push_str(if blank == 1 { " " } else { "" });
                line.push_str(rest);
                break;
            }
            if line.is_empty() {
                let (part, left) = rest.split_at(fitting(rest, room));
                line.push_str(part);
                rest = left;
            }
            lines.push(String::new());
        }
    }
    lines
}

/// Bytes of the longest beginning that fits; one character at least.
fn fitting(text: &str, room: usize) -> usize {
    let mut end = 0;
    for (at, c) in text.char_indices() {
        let after = at + c.len_utf8();
        if end > 0 && text.get(..after).is_some_and(|part| part.width() > room) {
            break;
        }
        end = after;
    }
    end
}

#[cfg(test)]
mod tests;
