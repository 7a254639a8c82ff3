//! What a stream keeps, for how long, and what whoever leads next gets of it, as short stories.
#![allow(clippy::unwrap_used)]

use kvindex_core::{BatchSeq, Generation};

use super::simulated_test::{Content, arrival};
use super::{Follower, SETTLED_MS};
use crate::ingest::sequencer::{Action, Input, Phase, Resume, SequencerConfig};

const GRACE_MS: u64 = 100;

struct Story(Follower<Content>);

impl Story {
    /// A connected stream on standby.
    fn new(has_replay: bool) -> Self {
        let config = SequencerConfig { has_replay, ..SequencerConfig::default() };
        let mut story = Self(Follower::new(config));
        story.0.link_changed(true, 0);
        story
    }

    fn hear(&mut self, batches: &[Content]) -> &mut Self {
        for batch in batches {
            assert_eq!(self.0.hear(arrival(*batch), batch.1), 0);
        }
        self
    }

    /// The connection breaks and comes back, and nothing of the old one is left.
    fn reconnect(&mut self) -> &mut Self {
        self.0.link_changed(false, 0);
        self.0.link_changed(true, 0);
        self.0.drained();
        self
    }

    fn lead(&mut self, resume: Option<Resume>, expected: &str) -> &mut Self {
        self.0.lead(resume);
        self.read(expected)
    }

    /// What the sequencer makes of all that is unread.
    fn read(&mut self, expected: &str) -> &mut Self {
        let mut out = Vec::new();
        while let Some((input, at_ms)) = self.0.next_input() {
            self.0.step(input, at_ms, &mut out);
        }
        let shown: Vec<String> = out.iter().map(show).collect();
        assert_eq!(shown.join(" "), expected);
        self
    }

    fn trim(&mut self, resume: Option<Resume>, empty: bool) -> &mut Self {
        self.0.trim(resume);
        assert_eq!(!self.0.wants_trim(), empty, "{:?}", self.0);
        self
    }

    /// What is asked of the engine, of an index that stands here, on a node that has all that was committed or not.
    fn look(&mut self, applied: Option<Resume>, fresh: bool, now_ms: u64, asked: Option<u64>) -> &mut Self {
        assert!(self.0.wants_witness());
        let question = self.0.look_for_witness(applied, fresh, now_ms);
        assert_eq!(question.map(|seq| seq.0), asked, "at {now_ms}");
        self
    }

    /// What the engine answers, up to its end.
    fn testify(&mut self, batches: &[Content], now_ms: u64, speaks: bool) -> &mut Self {
        let told_all = batches.iter().all(|batch| self.0.testified(batch.1, arrival(*batch).digest));
        self.0.testimony_ended(told_all, now_ms);
        assert_eq!(!self.0.wants_witness(), speaks);
        self.standing(now_ms, if speaks { Phase::Live } else { Phase::Pending }, None)
    }

    fn standing(&mut self, now_ms: u64, phase: Phase, behind_since_ms: Option<u64>) -> &mut Self {
        self.0.note_lag(now_ms, GRACE_MS);
        let standing = self.0.standing();
        assert_eq!((standing.led, standing.phase, standing.behind_since_ms), (false, phase, behind_since_ms));
        self
    }
}

fn show(action: &Action<Content>) -> String {
    match action {
        Action::Apply { batch: (life, seq), generation, .. } => format!("{generation}:a{life}.{seq}"),
        Action::NewGeneration(generation) => format!("gen{generation}"),
        Action::Gap { first, last, .. } => format!("gap{first}-{last}"),
        Action::RequestReplay { from } => format!("ask{from}"),
        Action::Duplicate => "dup".into(),
    }
}

fn at(generation: u64, (life, seq): Content) -> Option<Resume> {
    let payload_digest = Some(arrival((life, seq)).digest);
    Some(Resume { generation: Generation(generation), applied: Some(BatchSeq(seq)), payload_digest })
}

#[test]
fn whoever_leads_next_gets_what_the_index_has_not() {
    let mut story = Story::new(false);
    story.hear(&[(1, 3), (1, 4), (1, 5), (1, 6), (1, 8)]);
    story.lead(at(2, (1, 5)), "2:a1.6 gap7-7 2:a1.8");
    // With a replay socket too, and without asking: the life is proven.
    Story::new(true).hear(&[(1, 4), (1, 5), (1, 6)]).lead(at(2, (1, 5)), "2:a1.6");
}

#[test]
fn a_stream_that_no_index_has_heard_of_is_taken_in_from_the_start() {
    Story::new(false).hear(&[(1, 0), (1, 1)]).lead(None, "0:a1.0 0:a1.1");
    Story::new(true).hear(&[(1, 3), (1, 4)]).lead(None, "ask0");
}

#[test]
fn what_the_index_has_is_dropped() {
    let mut story = Story::new(false);
    story.hear(&[(1, 3), (1, 4), (1, 5)]).trim(at(0, (1, 4)), false).trim(at(0, (1, 5)), true);
    story.hear(&[(1, 6)]).trim(at(0, (1, 5)), false).lead(at(0, (1, 5)), "0:a1.6");
}

#[test]
fn what_the_index_has_from_others_is_dropped_on_a_connection_that_stands() {
    let mut story = Story::new(false);
    story.hear(&[(1, 3)]).trim(at(0, (1, 3)), true);
    // Batch 6 was lost on the way here, and 7 is not applied yet.
    story.hear(&[(1, 4), (1, 5), (1, 7)]).trim(at(0, (1, 6)), false).lead(at(0, (1, 6)), "0:a1.7");
    let mut behind = Story::new(false);
    behind.hear(&[(1, 3)]).trim(at(0, (1, 3)), true).hear(&[(1, 4)]).trim(at(0, (1, 9)), true);
    behind.lead(at(0, (1, 9)), "").hear(&[(1, 5), (1, 9), (1, 10)]).read("dup dup 0:a1.10");
}

#[test]
fn what_the_index_may_still_need_stays() {
    let mut story = Story::new(false);
    // Another life's batch of the number, and a number that was not heard.
    story
        .hear(&[(2, 3), (2, 4), (2, 5)])
        .trim(at(0, (1, 4)), false)
        .trim(at(0, (1, 9)), false)
        .trim(None, false);
    story.lead(at(0, (1, 4)), "gen1 gap0-2 1:a2.3 1:a2.4 1:a2.5");
}

#[test]
fn a_new_generation_is_followed_to_where_it_is_heard() {
    let mut story = Story::new(false);
    story.hear(&[(1, 7), (1, 8)]).reconnect().hear(&[(2, 0), (2, 1), (2, 2)]);
    story.trim(at(1, (2, 1)), false).lead(at(1, (2, 1)), "1:a2.2");
}

#[test]
fn a_reconnect_is_told_where_it_happened() {
    let mut story = Story::new(true);
    story.hear(&[(1, 5), (1, 6)]).reconnect().hear(&[(1, 7)]);
    story.lead(at(0, (1, 5)), "0:a1.6 ask6");
    // Without proof, what came on an earlier connection is the replay's to tell.
    let mut unproven = Story::new(true);
    unproven.hear(&[(1, 6)]).reconnect().hear(&[(2, 7)]).lead(at(0, (1, 5)), "ask5");
}

#[test]
fn what_is_left_of_an_earlier_connection_proves_nothing_of_the_next() {
    let mut story = Story::new(true);
    story.hear(&[(1, 5)]);
    story.0.link_changed(true, 0); // noticed before batch 6 was read
    story.hear(&[(1, 6), (2, 7)]).0.drained();
    story.trim(at(0, (1, 6)), false).lead(at(0, (1, 6)), "ask6");
    // A number that follows is not trusted on a connection that was heard in another generation.
    let mut story = Story::new(false);
    story.hear(&[(1, 5)]).trim(at(0, (1, 5)), true).hear(&[(1, 8)]);
    story.lead(at(1, (2, 7)), "gen2 gap0-7 2:a1.8");
}

#[test]
fn what_the_sink_did_not_take_is_there_again() {
    let mut story = Story::new(false);
    story.lead(None, "").hear(&[(1, 0), (1, 1)]).read("0:a1.0 0:a1.1").0.taken();
    story.hear(&[(1, 2), (1, 3)]).read("0:a1.2 0:a1.3").0.stand_by();
    story.standing(GRACE_MS, Phase::Live, None).standing(GRACE_MS + 3, Phase::CatchingUp, Some(2));
    // One of the two was taken all the same.
    story.lead(at(0, (1, 2)), "0:a1.3").0.taken();
    story.0.stand_by();
    assert!(!story.0.wants_trim(), "{:?}", story.0);
}

#[test]
fn a_batch_that_came_twice_is_applied_once() {
    let mut story = Story::new(false);
    story.hear(&[(1, 5), (1, 5), (1, 6), (1, 6)]).trim(at(0, (1, 5)), false);
    story.lead(at(0, (1, 5)), "0:a1.6 dup");
}

#[test]
fn the_oldest_go_when_there_is_no_room() {
    let config = SequencerConfig { has_replay: false, max_buffered_batches: 3, ..SequencerConfig::default() };
    let mut story = Story(Follower::new(config));
    story.0.link_changed(true, 0);
    story.hear(&[(1, 5), (1, 6), (1, 7)]);
    assert!(story.0.is_half_full());
    assert_eq!(story.0.hear(arrival((1, 8)), 8), 1);
    assert_eq!(story.0.hear(arrival((1, 9)), 9), 1);
    // Batch 5 was seen in the index in time, so what is missing is a gap of the same life.
    let mut proven = Story(Follower::new(config));
    proven.0.link_changed(true, 0);
    proven.hear(&[(1, 5)]).trim(at(0, (1, 5)), true).hear(&[(1, 6), (1, 7), (1, 8)]);
    assert_eq!(proven.0.hear(arrival((1, 9)), 9), 1);
    proven.lead(at(0, (1, 5)), "gap6-6 0:a1.7 0:a1.8 0:a1.9");
    let bytes = SequencerConfig { max_buffered_bytes: 2, ..config };
    let mut story = Story(Follower::new(bytes));
    story.hear(&[(1, 5), (1, 6)]);
    assert_eq!(story.0.hear(arrival((1, 7)), 7), 1);
}

#[test]
fn a_standby_says_since_when_the_index_is_behind() {
    let mut story = Story::new(false);
    story.standing(1_000, Phase::Pending, None).hear(&[(1, 5), (1, 6)]);
    story.standing(50, Phase::Live, None).standing(1_000, Phase::CatchingUp, Some(5));
    story.trim(at(3, (1, 5)), false).standing(1_000, Phase::CatchingUp, Some(6));
    story.trim(at(3, (1, 6)), true).standing(1_000, Phase::Live, None);
    let standing = story.0.standing();
    assert_eq!((standing.generation, standing.next), (Generation(3), BatchSeq(7)));
}

#[test]
fn a_standby_asks_an_engine_that_it_never_heard() {
    let mut story = Story::new(true);
    story.look(None, true, 0, None).look(at(0, (1, 4)), false, 1, None).look(at(0, (1, 4)), true, 2, Some(4));
    story.look(at(0, (1, 4)), true, 3, None);
    // Another life, nothing at all, and more than the index has: asked again, later and later.
    story.testify(&[(2, 4)], 10, false).look(at(0, (1, 4)), true, 5_009, None);
    story.look(at(0, (1, 4)), true, 5_010, Some(4)).testify(&[], 5_020, false);
    story.look(at(0, (1, 4)), true, 15_019, None).look(at(0, (1, 4)), true, 15_020, Some(4));
    story.testify(&[(1, 4), (1, 5)], 15_030, false).look(at(0, (1, 4)), true, 30_030, Some(4));
    story.testify(&[(1, 4)], 30_040, true);
    // On another connection may be another life.
    story.reconnect().standing(30_050, Phase::Pending, None).look(at(0, (1, 4)), true, 30_050, Some(4));
    story.testify(&[(2, 4)], 30_060, false);
}

/// From when on what the log brings speaks for an engine, where it was connected at 0.
const S: u64 = SETTLED_MS;

#[test]
fn a_batch_that_the_log_brings_while_an_engine_is_connected_speaks_for_it() {
    let mut story = Story::new(false);
    // What a node applies that catches up says nothing, nor does where the index stands at first.
    story.look(at(0, (1, 2)), false, 0, None).look(at(0, (1, 4)), true, 1, None);
    story.look(at(0, (1, 4)), true, S + 1, None).standing(S + 2, Phase::Pending, None);
    // It was cut off in between: the time counts anew.
    story.look(at(0, (1, 6)), false, S + 3, None).look(at(0, (1, 6)), true, S + 4, None);
    story.look(at(0, (1, 7)), true, S + 5, None).look(at(0, (1, 7)), true, 2 * S + 4, None);
    story.standing(2 * S + 4, Phase::Pending, None).look(at(0, (1, 8)), true, 2 * S + 5, None);
    story.standing(2 * S + 5, Phase::Live, None).reconnect().standing(2 * S + 6, Phase::Pending, None);
    story.look(at(0, (1, 8)), true, 2 * S + 7, None).look(at(0, (1, 8)), true, 3 * S + 7, None);
    story.look(at(1, (2, 0)), true, 3 * S + 8, None).standing(3 * S + 9, Phase::Live, None);
    let mut first = Story::new(false);
    first.look(None, true, 0, None).look(None, true, S, None).look(at(0, (1, 0)), true, S + 1, None);
    first.standing(S + 2, Phase::Live, None);
}

/// A node may be seconds behind, and a turn seconds under way: what comes then a leader may have heard of the life
/// before.
#[test]
fn what_the_log_brings_soon_after_a_connection_does_not_speak_for_the_engine() {
    let mut story = Story::new(false);
    story.look(at(0, (1, 4)), true, 0, None).look(at(0, (1, 5)), true, 2_000, None);
    story.look(at(0, (1, 6)), true, S - 1, None).standing(S, Phase::Pending, None);
}

#[test]
fn what_was_heard_on_an_earlier_connection_does_not_speak_for_the_engine() {
    let mut story = Story::new(true);
    story.hear(&[(1, 5)]).trim(at(0, (1, 5)), true).standing(10, Phase::Live, None);
    story.reconnect().standing(11, Phase::Pending, None).look(at(0, (1, 5)), true, 12, Some(5));
    story.testify(&[(2, 5)], 13, false);
    // What is read before the earlier connection's last is sorted out may be that one's.
    story.0.link_changed(false, 0);
    story.0.link_changed(true, 0);
    story.hear(&[(1, 6)]).0.drained();
    story.trim(at(0, (1, 6)), false).standing(20, Phase::Pending, None);
    story.hear(&[(1, 7)]).standing(21, Phase::Live, None);
    // The first connection has none before it.
    let mut first = Story(Follower::new(SequencerConfig::default()));
    first.hear(&[(1, 0)]).0.link_changed(true, 1);
    first.standing(1, Phase::Live, None);
}

/// What a replay brought is in no backlog: a leader whose turn was not taken knows of it, and the index does not have it.
#[test]
fn a_leader_whose_turn_was_not_taken_is_behind_until_the_index_has_it() {
    let led = || {
        let mut story = Story::new(true);
        story.hear(&[(1, 4)]).lead(at(0, (1, 4)), "");
        let mut out = Vec::new();
        story.0.taken();
        story.0.step(Input::Tick, 1_000_000, &mut out);
        let lost_tail = [(1, 4), (1, 5)].map(|batch| Input::Replayed(arrival(batch)));
        lost_tail
            .into_iter()
            .chain([Input::ReplayEnd])
            .for_each(|input| story.0.step(input, 1_000_001, &mut out));
        assert_eq!(out.iter().map(show).collect::<Vec<_>>().join(" "), "ask4 0:a1.5");
        story.0.fall_back();
        story.standing(1_000_002, Phase::CatchingUp, None);
        story
    };
    let mut story = led();
    story.look(at(0, (1, 4)), true, 1_000_003, Some(4));
    assert!(story.0.testified(4, arrival((1, 4)).digest) && !story.0.testified(5, arrival((1, 5)).digest));
    story.0.testimony_ended(false, 1_000_004);
    story.standing(1_000_005, Phase::CatchingUp, None).look(at(0, (1, 5)), true, 1_000_006, None);
    story.standing(1_000_007, Phase::Live, None);
    // The engine itself says that there is no more; another life has begun; it is led again.
    let mut told = led();
    told.look(at(0, (1, 4)), true, 1_000_003, Some(4)).testify(&[(1, 4)], 1_000_004, true);
    let mut renewed = led();
    renewed.look(at(1, (2, 0)), true, 1_000_003, Some(0)).standing(1_000_004, Phase::Live, None);
    let mut again = led();
    again.lead(at(0, (1, 4)), "").0.stand_by();
    again.standing(1_000_005, Phase::Live, None);
    // Whoever leads now decided otherwise.
    let mut moved = led();
    moved.look(at(0, (1, 3)), false, 1_000_003, None).look(at(0, (1, 4)), false, 1_000_004, None);
    moved.standing(1_000_005, Phase::Live, None);
}

/// Without a replay socket numbers are trusted on a new connection. That is no knowledge of who speaks there.
#[test]
fn a_leader_that_was_not_sure_whose_life_it_follows_stands_for_nothing() {
    let mut story = Story::new(false);
    story.lead(None, "").hear(&[(1, 0)]).read("0:a1.0").0.taken();
    story.reconnect().read("");
    assert_eq!(story.0.standing().phase, Phase::Live, "by design");
    story.0.stand_by();
    story.standing(1, Phase::Pending, None);
}

#[test]
fn what_a_leader_heard_by_asking_it_still_stands_for_on_standby() {
    let mut story = Story::new(true);
    story.lead(at(0, (1, 4)), "ask4");
    story.0.stand_by();
    story.standing(1, Phase::Pending, None).lead(at(0, (1, 4)), "ask4");
    let mut out = Vec::new();
    story.0.step(Input::Replayed(arrival((1, 4))), 2, &mut out);
    story.0.step(Input::ReplayEnd, 3, &mut out);
    story.0.stand_by();
    story.standing(4, Phase::Live, None).reconnect().standing(5, Phase::Pending, None);
}
