//! The demo's story: play up to a checkpoint, wait until the node is there, ask everything, compare, go on.

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use kvindex_client::v1;
use kvindex_recording::{Checkpoint, Header, Query, Record};

use super::ask::{self, Question, Way};
use super::source::Case;
use super::stage::{Applied, Stage};
use super::tally::{Compared, Tally};

/// Questions a call: the node's default limit is 256.
const QUESTIONS_A_CALL: usize = 200;
/// Tokens a call, so that a call stays far below the node's limit on request bytes.
const TOKENS_A_CALL: usize = 2 << 20;
/// Queries shown at the end.
const SAMPLES: usize = 3;

/// What came out.
#[derive(Default)]
pub(super) struct Checked {
    /// All answers.
    pub(super) tally: Tally,
    /// Checkpoints passed.
    pub(super) checkpoints: u64,
    /// Some of the last checkpoint's queries with their answers.
    pub(super) samples: Vec<Sample>,
}

/// A query and the node's answer to it.
pub(super) struct Sample {
    /// What the recording asked.
    pub(super) query: Query,
    /// What the node was asked.
    pub(super) request: v1::MatchRequest,
    /// What it answered.
    pub(super) answer: v1::MatchResponse,
}

/// Plays the whole case and asks every query of every checkpoint.
pub(super) fn play_and_check(case: &mut Case, stage: &mut Stage) -> anyhow::Result<Checked> {
    let recording = std::sync::Arc::clone(&case.recording);
    let bar = progress_bar(recording.records.len() as u64);
    let mut lives = Lives::new(&recording.header);
    let mut checked = Checked::default();
    for checkpoint in &mut case.checkpoints {
        let checkpoint = checkpoint?;
        stage.play_until(checkpoint.pos, recording.records.len(), &bar)?;
        lives.follow(&recording.records, checkpoint.pos);
        let place = format!("checkpoint {}", checkpoint.checkpoint);
        stage.wait_applied(&lives.expected(&recording.header, &checkpoint)).context(place.clone())?;
        bar.set_message(place.clone());
        check(&recording.header, stage, &checkpoint, &mut checked).context(place)?;
    }
    bar.finish_and_clear();
    if checked.tally.of(Way::Tokens).answers == 0 {
        bail!("the recording has no queries to check");
    }
    Ok(checked)
}

fn check(
    header: &Header,
    stage: &mut Stage,
    checkpoint: &Checkpoint,
    checked: &mut Checked,
) -> anyhow::Result<()> {
    checked.checkpoints += 1;
    checked.samples.clear();
    let (mut waiting, mut tokens) = (Vec::new(), 0);
    for (place, query) in checkpoint.queries.iter().enumerate() {
        waiting.extend(ask::questions(header, place, query));
        tokens += query.tokens.len();
        if waiting.len() > QUESTIONS_A_CALL - 8 || tokens > TOKENS_A_CALL {
            ask_and_compare(header, stage, checkpoint, std::mem::take(&mut waiting), checked)?;
            tokens = 0;
        }
    }
    ask_and_compare(header, stage, checkpoint, waiting, checked)
}

fn ask_and_compare(
    header: &Header,
    stage: &mut Stage,
    checkpoint: &Checkpoint,
    questions: Vec<Question>,
    checked: &mut Checked,
) -> anyhow::Result<()> {
    let mut rest = questions.into_iter().peekable();
    while rest.peek().is_some() {
        let some: Vec<Question> = rest.by_ref().take(QUESTIONS_A_CALL).collect();
        let requests: Vec<_> = some.iter().filter_map(|q| q.request.clone()).collect();
        let mut answers = stage.ask(&requests)?.into_iter();
        for question in some {
            let answer = question.request.as_ref().and_then(|_| answers.next());
            compare(header, checkpoint, question, answer, checked);
        }
    }
    Ok(())
}

fn compare(
    header: &Header,
    checkpoint: &Checkpoint,
    question: Question,
    answer: Option<v1::MatchResponse>,
    checked: &mut Checked,
) {
    let Some(query) = checkpoint.queries.get(question.query) else { return };
    for index in &question.engines {
        let (Some(engine), Some(own)) = (header.engines.get(*index), query.engines.get(*index)) else {
            continue;
        };
        checked.tally.count(Compared {
            way: question.way,
            checkpoint: format!("{} ({})", checkpoint.checkpoint, checkpoint.label),
            query: question.query,
            worker: engine.name.clone(),
            engine: question.way.own_tokens(own, engine),
            node: ask::said_of(answer.as_ref(), &engine.name),
        });
    }
    let all = question.engines.len() == header.engines.len();
    if let (Way::Tokens, true, Some(request), Some(answer)) = (question.way, all, question.request, answer) {
        keep_best(&mut checked.samples, query, request, answer);
    }
}

/// Keeps the prompts that some worker holds most of, then the longest: they show most.
fn keep_best(samples: &mut Vec<Sample>, query: &Query, request: v1::MatchRequest, answer: v1::MatchResponse) {
    let rank = |query: &Query, answer: &v1::MatchResponse| {
        (answer.workers.first().map_or(0, |best| best.matched_tokens), query.tokens.len())
    };
    if samples.iter().any(|s| s.query.tokens == query.tokens) {
        return;
    }
    let new = rank(query, &answer);
    let place = samples.iter().position(|s| rank(&s.query, &s.answer) < new).unwrap_or(samples.len());
    if place < SAMPLES {
        samples.insert(place, Sample { query: query.clone(), request, answer });
        samples.truncate(SAMPLES);
    }
}

/// How often each engine has started again: nothing but a sequence number that begins anew says so.
struct Lives {
    heard: Vec<bool>,
    restarts: Vec<u64>,
    followed: usize,
}

impl Lives {
    fn new(header: &Header) -> Self {
        let engines = header.engines.len();
        Self { heard: vec![false; engines], restarts: vec![0; engines], followed: 0 }
    }

    fn follow(&mut self, records: &[Record], pos: usize) {
        for record in records.get(self.followed..pos).unwrap_or(&[]) {
            let engine = record.engine as usize;
            if let (Some(heard), Some(restarts)) = (self.heard.get_mut(engine), self.restarts.get_mut(engine))
            {
                *restarts += u64::from(*heard && record.seq == 0);
                *heard = true;
            }
        }
        self.followed = self.followed.max(pos);
    }

    /// What each stream must have applied; an engine that has sent nothing is not waited for.
    fn expected(&self, header: &Header, checkpoint: &Checkpoint) -> Vec<Applied> {
        let engines = header.engines.iter().zip(&self.restarts).zip(&checkpoint.next_seq);
        let sent = engines.filter_map(|((engine, restarts), next)| {
            let seq = next.checked_sub(1)?;
            Some(Applied { worker: engine.name.clone(), generation: *restarts, seq })
        });
        sent.collect()
    }
}

/// On stderr, and only where that is a terminal.
pub(crate) fn progress_bar(records: u64) -> ProgressBar {
    let bar = ProgressBar::new(records);
    let template = "{bar:40} {human_pos}/{human_len} event batches  {elapsed}  {msg}";
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        // Only a misspelt template gets here; the default style does as well.
        Err(_) => bar,
    }
}
