//! One case from its first message to its last checkpoint: everything asked, every way, every view.

use kvindex_core::{Index, IndexLimits, Scratch};
use kvindex_recording::{Checkpoint, Recording, Truth};

use super::ask::{Asked, View, Way};
use super::cases_dir;
use super::page::Row;
use super::replay::{Replayed, Setting};
use super::score::Score;

/// Replays a case and asks everything; one row for each view.
pub(super) fn replay(case: &str, setting: Setting) -> Vec<(View, Row)> {
    let path = cases_dir().join(case);
    let recording = Recording::open(&path).unwrap();
    let mut engines = Replayed::new(&recording.header, setting);
    let (mut scores, mut pos, mut scratch) = (Vec::new(), 0, Scratch::default());
    for checkpoint in Truth::open(&path).unwrap() {
        let checkpoint = checkpoint.unwrap();
        for record in &recording.records[pos..checkpoint.pos] {
            engines.apply(record);
        }
        pos = checkpoint.pos;
        engines.index.check_invariants().unwrap();
        let restored = (checkpoint.checkpoint % 16 == 0).then(|| restored(&engines.index));
        for place in 0..checkpoint.queries.len() {
            ask_all(&recording, &engines, (&checkpoint, place), restored.as_ref(), &mut scratch, &mut scores);
        }
    }
    rows(scores)
}

/// The index as a snapshot brings it back.
fn restored(index: &Index) -> Index {
    let restored = Index::restore(&index.snapshot(), IndexLimits::default()).unwrap();
    assert_eq!(restored.digest(), index.digest());
    assert_eq!(restored.snapshot(), index.snapshot());
    restored
}

type Scores = Vec<((View, Way), Score)>;

/// Asks every engine about one query, in every way and view; `restored` must answer alike.
fn ask_all(
    recording: &Recording,
    engines: &Replayed,
    (checkpoint, place): (&Checkpoint, usize),
    restored: Option<&Index>,
    scratch: &mut Scratch,
    scores: &mut Scores,
) {
    let (header, query) = (&recording.header, &checkpoint.queries[place]);
    for (engine, truth) in query.engines.iter().enumerate() {
        let asked = Asked { header, engine, query };
        let stream = engines.stream(engine);
        let ways = |view: &View| [(*view, Way::Tokens), (*view, Way::Hashes)];
        for (view, way) in View::of(truth).iter().flat_map(ways) {
            let Some(said) = asked.ask((way, view), &engines.index, stream, scratch) else { continue };
            if let Some(restored) = restored {
                let before = asked.matches((way, view), &engines.index, stream, scratch);
                assert_eq!(asked.matches((way, view), restored, stream, scratch), before);
            }
            let theirs = view.expected(truth, &header.engines[engine]);
            let found = scores.iter().position(|(of, _)| *of == (view, way)).unwrap_or_else(|| {
                scores.push(((view, way), Score::default()));
                scores.len() - 1
            });
            scores[found].1.add(said, theirs, || {
                let Checkpoint { checkpoint, label, .. } = checkpoint;
                let worker = &stream.worker;
                format!("checkpoint {checkpoint} ({label}), query {place}, {worker}, {way:?} {view:?}")
            });
        }
    }
}

fn rows(scores: Scores) -> Vec<(View, Row)> {
    let mut rows: Vec<(View, Row)> = Vec::new();
    for ((view, way), score) in scores {
        match way {
            Way::Tokens => rows.push((view, Row { tokens: score, hashes: None })),
            Way::Hashes => rows.iter_mut().filter(|(of, _)| *of == view).for_each(|(_, row)| {
                row.hashes = Some(score.clone());
            }),
        }
    }
    rows
}
