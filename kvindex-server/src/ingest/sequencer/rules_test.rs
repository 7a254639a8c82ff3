//! Each rule of the sequencer as a short story: what comes in, what must come out.
#![allow(clippy::unwrap_used)]

use kvindex_core::{BatchSeq, Generation};

use super::{Action, Arrival, Input, Phase, Resume, Sequencer, SequencerConfig};

/// A sequencer under test; batches are named by the digit of their life and their number.
pub(super) struct Story {
    pub(super) sequencer: Sequencer<(u64, u64)>,
    pub(super) now_ms: u64,
}

pub(super) fn arrival(life: u64, seq: u64) -> Arrival<(u64, u64)> {
    Arrival { seq, digest: life.wrapping_mul(1_000_000) ^ seq, bytes: 10, batch: (life, seq) }
}

pub(super) fn live(life: u64, seq: u64) -> Input<(u64, u64)> {
    Input::Live(arrival(life, seq))
}

pub(super) fn replayed(life: u64, seq: u64) -> Input<(u64, u64)> {
    Input::Replayed(arrival(life, seq))
}

/// `a1.5` applied batch 5 of life 1; `gen2`; `gap3-4`; `ask7`; `dup`.
fn show(action: &Action<(u64, u64)>) -> String {
    match action {
        Action::Apply { seq, batch: (life, number), .. } => {
            assert_eq!(seq.0, *number);
            format!("a{life}.{number}")
        }
        Action::NewGeneration(generation) => format!("gen{generation}"),
        Action::Gap { first, last, .. } => format!("gap{first}-{last}"),
        Action::RequestReplay { from } => format!("ask{from}"),
        Action::Duplicate => "dup".into(),
    }
}

impl Story {
    fn new(has_replay: bool) -> Self {
        let config = SequencerConfig { has_replay, ..SequencerConfig::default() };
        Self { sequencer: Sequencer::new(config, None), now_ms: 0 }
    }

    /// One that has applied batches 0 to `seq` of life 1.
    fn at(has_replay: bool, seq: u64) -> Self {
        let mut story = Self::new(has_replay);
        for seq in 0..=seq {
            story.check(live(1, seq), &format!("a1.{seq}"));
        }
        story
    }

    pub(super) fn check(&mut self, input: Input<(u64, u64)>, expected: &str) -> &mut Self {
        self.now_ms += 1;
        let mut out = Vec::new();
        let said = format!("{input:?}");
        self.sequencer.step(input, self.now_ms, &mut out);
        let shown: Vec<String> = out.iter().map(show).collect();
        assert_eq!(shown.join(" "), expected, "after {said}");
        self
    }

    pub(super) fn phase(&mut self, phase: Phase, behind: bool) -> &mut Self {
        assert_eq!(self.sequencer.phase(), phase);
        assert_eq!(self.sequencer.behind_since_ms().is_some(), behind, "behind");
        self
    }

    fn silence(&mut self, expected: &str) -> &mut Self {
        self.now_ms += 5_000;
        self.check(Input::Tick, expected)
    }
}

#[test]
fn a_stream_in_order() {
    let mut story = Story::at(false, 2);
    story.phase(Phase::Live, false).check(Input::Connected, "").check(live(1, 3), "a1.3");
    assert_eq!(story.sequencer.next_seq(), BatchSeq(4));
    assert_eq!(story.sequencer.generation(), Generation(0));
}

#[test]
fn first_contact_asks_from_0_and_holds_live_batches_back() {
    let mut story = Story::new(true);
    story.phase(Phase::Pending, false);
    story.check(Input::Connected, "ask0").check(live(1, 3), "").check(live(1, 4), "");
    story.phase(Phase::CatchingUp, true);
    story.check(replayed(1, 0), "a1.0").check(replayed(1, 1), "a1.1").check(replayed(1, 2), "a1.2");
    story.check(replayed(1, 3), "a1.3 dup").check(Input::ReplayEnd, "a1.4").phase(Phase::Live, false);
}

#[test]
fn first_contact_with_an_empty_engine_is_live() {
    Story::new(true).check(Input::Connected, "ask0").check(Input::ReplayEnd, "").phase(Phase::Live, false);
}

#[test]
fn first_contact_with_an_engine_that_buffers_too_little() {
    let mut story = Story::new(true);
    story.check(Input::Connected, "ask0").check(replayed(1, 7), "gap0-6 a1.7").check(Input::ReplayEnd, "");
    story.phase(Phase::Live, false);
}

#[test]
fn first_contact_with_a_dead_replay_socket() {
    let mut story = Story::new(true);
    story.check(Input::Connected, "ask0").check(Input::ReplayFailed, "").phase(Phase::Pending, false);
    story.check(live(1, 4), "ask0").check(Input::ReplayFailed, "gap0-3 a1.4").phase(Phase::Live, false);
}

#[test]
fn without_replay_what_is_missing_is_a_gap_at_once() {
    let mut story = Story::new(false);
    story.check(live(1, 3), "gap0-2 a1.3").check(live(1, 4), "a1.4").check(live(1, 7), "gap5-6 a1.7");
    story.phase(Phase::Live, false).silence("");
}

#[test]
fn a_duplicate_is_ignored() {
    Story::at(false, 5).check(live(1, 5), "dup").check(live(1, 0), "dup").check(live(1, 6), "a1.6");
}

#[test]
fn batch_0_is_remembered_for_ever_and_a_forgotten_number_is_another_life() {
    let mut story = Story::at(false, 3_000);
    story.check(live(1, 0), "dup").check(live(1, 2_999), "dup").check(live(1, 5), "gen1 gap0-4 a1.5");
}

#[test]
fn another_digest_under_an_applied_number_is_another_life() {
    Story::at(false, 5).check(live(2, 0), "gen1 a2.0").check(live(2, 1), "a2.1");
    Story::at(false, 5).check(live(2, 2), "gen1 gap0-1 a2.2");
    let mut story = Story::at(true, 5);
    story.check(live(2, 2), "gen1 ask0").check(live(2, 3), "").phase(Phase::CatchingUp, true);
    story.check(replayed(2, 0), "a2.0").check(replayed(2, 1), "a2.1").check(replayed(2, 2), "a2.2 dup");
    story.check(Input::ReplayEnd, "a2.3").phase(Phase::Live, false);
}

#[test]
fn a_gap_is_filled_from_the_last_applied_batch_on() {
    let mut story = Story::at(true, 5);
    story.check(live(1, 8), "ask5").phase(Phase::CatchingUp, true);
    story.check(replayed(1, 5), "").check(replayed(1, 6), "a1.6").check(replayed(1, 7), "a1.7");
    story.check(replayed(1, 8), "a1.8 dup").check(Input::ReplayEnd, "").phase(Phase::Live, false);
}

#[test]
fn a_gap_may_hide_a_life_whose_numbers_ran_past_ours() {
    let mut story = Story::at(true, 1);
    story.check(live(2, 3), "ask1").check(replayed(2, 1), "gen1 ask0").phase(Phase::CatchingUp, true);
    for seq in 0..4 {
        story.check(replayed(2, seq), &format!("a2.{seq}"));
    }
    story.check(Input::ReplayEnd, "").phase(Phase::Live, false);
}

#[test]
fn a_replay_that_starts_later_leaves_a_gap() {
    let mut story = Story::at(true, 5);
    story.check(live(1, 20), "ask5").check(replayed(1, 15), "gap6-14 a1.15").check(replayed(1, 16), "a1.16");
}

#[test]
fn a_replay_that_starts_right_after_ours_proves_nothing() {
    let mut story = Story::at(true, 5);
    story.check(live(1, 9), "ask5").check(replayed(1, 6), "gen1 ask0").check(replayed(1, 6), "gap0-5 a1.6");
}

#[test]
fn after_a_reconnect_a_replay_that_starts_later_is_taken_for_another_life() {
    let mut story = Story::at(true, 5);
    story.check(Input::Connected, "ask5").check(replayed(1, 15), "gen1 ask0");
    story.check(replayed(1, 15), "gap0-14 a1.15").check(Input::ReplayEnd, "").phase(Phase::Live, false);
}

#[test]
fn a_hole_that_the_engine_never_sent_is_a_gap() {
    let mut story = Story::at(true, 5);
    story.check(live(1, 7), "ask5").check(replayed(1, 5), "").check(replayed(1, 7), "gap6-6 a1.7 dup");
    story.check(Input::ReplayEnd, "").phase(Phase::Live, false);
}

#[test]
fn a_replay_cut_in_the_middle_is_asked_for_again_while_that_helps() {
    let mut story = Story::at(true, 2);
    story.check(live(1, 9), "ask2").check(replayed(1, 2), "").check(replayed(1, 3), "a1.3");
    story.check(replayed(1, 6), "ask3").check(replayed(1, 3), "").check(replayed(1, 6), "gap4-5 a1.6");
    story
        .check(Input::ReplayFailed, "ask6")
        .check(Input::ReplayFailed, "gap7-8 a1.9")
        .phase(Phase::Live, false);
}

#[test]
fn a_replay_that_never_answers_or_brings_nothing_leaves_a_gap() {
    Story::at(true, 2).check(live(1, 5), "ask2").check(Input::ReplayFailed, "gap3-4 a1.5");
    let mut story = Story::at(true, 2);
    story.check(live(1, 5), "ask2").check(replayed(1, 2), "").check(Input::ReplayEnd, "gap3-4 a1.5");
    story.phase(Phase::Live, false);
}

#[test]
fn a_reconnect_that_cannot_be_proven_asks_once_more() {
    let mut story = Story::at(true, 1);
    story.check(Input::Connected, "ask1").check(Input::ReplayFailed, "").phase(Phase::CatchingUp, false);
    story.check(live(2, 2), "ask1").check(replayed(2, 1), "gen1 ask0");
    let mut story = Story::at(true, 1);
    story.check(Input::Connected, "ask1").check(Input::ReplayFailed, "").check(live(1, 2), "ask1");
    story.check(Input::ReplayFailed, "a1.2").check(live(1, 3), "a1.3").phase(Phase::Live, false);
}

#[test]
fn an_end_marker_alone_means_the_engine_started_again() {
    let mut story = Story::at(true, 5);
    story.check(Input::Connected, "ask5").check(Input::ReplayEnd, "gen1 ask0");
    story.check(Input::ReplayEnd, "").phase(Phase::Live, false).check(live(2, 0), "a2.0");
}

#[test]
fn silence_is_asked_about_and_a_lost_tail_found() {
    let mut story = Story::new(true);
    story.check(Input::Connected, "ask0").check(Input::ReplayEnd, "").check(live(1, 0), "a1.0");
    story.check(Input::Tick, "").silence("ask0").phase(Phase::Live, false);
    story.check(replayed(1, 0), "").check(replayed(1, 1), "a1.1").check(Input::ReplayEnd, "");
    story.phase(Phase::Live, false).check(Input::Tick, "");
    story.check(Input::Disconnected, "").silence("");
}

#[test]
fn a_dead_replay_socket_is_asked_less_and_less_often() {
    let mut story = Story::new(true);
    story.check(Input::Connected, "ask0").check(Input::ReplayEnd, "").check(live(1, 0), "a1.0");
    story.silence("ask0").check(Input::ReplayFailed, "").silence("").silence("ask0");
    story.check(Input::ReplayFailed, "").check(live(1, 1), "a1.1").silence("ask1");
}

#[test]
fn a_reconnect_during_a_replay_asks_anew() {
    let mut story = Story::at(true, 1);
    story.check(live(1, 3), "ask1").check(replayed(1, 1), "").check(Input::Connected, "ask1");
    story.check(replayed(1, 1), "").check(replayed(1, 2), "a1.2").check(replayed(1, 3), "a1.3 dup");
    story.check(Input::ReplayEnd, "").phase(Phase::Live, false);
    // Who answers the first request is not certain any more.
    let mut story = Story::new(true);
    story.check(Input::Connected, "ask0").check(live(1, 0), "").check(Input::Connected, "ask0");
    story.check(replayed(2, 0), "a2.0").check(Input::ReplayEnd, "dup").check(live(2, 1), "a2.1");
}

#[test]
fn batches_go_on_during_a_replay_that_has_proven_the_life() {
    let mut story = Story::at(true, 1);
    story.check(Input::Connected, "ask1").check(live(1, 2), "").check(replayed(1, 1), "");
    story.check(replayed(1, 2), "a1.2 dup").check(live(1, 3), "a1.3").check(replayed(1, 3), "dup");
    story.check(Input::ReplayEnd, "").phase(Phase::Live, false);
}

#[test]
fn what_does_not_fit_while_held_back_is_fetched_later() {
    let config = SequencerConfig { max_buffered_batches: 2, ..SequencerConfig::default() };
    let mut story = Story { sequencer: Sequencer::new(config, None), now_ms: 0 };
    story.check(Input::Connected, "ask0");
    (2..9).for_each(|seq| {
        story.check(live(1, seq), "");
    });
    story
        .check(replayed(1, 0), "a1.0")
        .check(replayed(1, 1), "a1.1")
        .check(Input::ReplayEnd, "a1.2 a1.3 ask3");
    story.phase(Phase::CatchingUp, true).check(replayed(1, 3), "");
    (4..9).for_each(|seq| {
        story.check(replayed(1, seq), &format!("a1.{seq}"));
    });
    story.check(Input::ReplayEnd, "").phase(Phase::Live, false);
}

#[test]
fn bytes_held_back_are_bounded_too() {
    let config = SequencerConfig { max_buffered_bytes: 25, ..SequencerConfig::default() };
    let mut story = Story { sequencer: Sequencer::new(config, None), now_ms: 0 };
    story.check(Input::Connected, "ask0").check(live(1, 1), "").check(live(1, 2), "").check(live(1, 3), "");
    story.check(replayed(1, 0), "a1.0").check(Input::ReplayEnd, "a1.1 a1.2 ask2");
}

#[test]
fn a_restored_stream_is_rebuilt_under_a_new_generation() {
    let resumed = |has_replay| {
        let config = SequencerConfig { has_replay, ..SequencerConfig::default() };
        let resume =
            Some(Resume { generation: Generation(4), applied: Some(BatchSeq(9)), payload_digest: None });
        Story { sequencer: Sequencer::new(config, resume), now_ms: 0 }
    };
    let mut story = resumed(true);
    story.check(Input::Connected, "ask0").phase(Phase::Pending, false);
    story.check(replayed(1, 0), "gen5 a1.0").check(replayed(1, 1), "a1.1").check(Input::ReplayEnd, "");
    resumed(true).check(Input::Connected, "ask0").check(replayed(1, 3), "gen5 gap0-2 a1.3");
    resumed(true).check(Input::Connected, "ask0").check(Input::ReplayEnd, "gen5");
    resumed(false).check(Input::Connected, "").check(live(1, 10), "gen5 gap0-9 a1.10");
}

#[test]
fn the_end_markers_number_is_no_batch() {
    let mut story = Story::at(false, 1);
    story
        .check(live(1, u64::MAX), "")
        .check(live(1, u64::MAX - 1), &format!("gap2-{} a1.{}", u64::MAX - 2, u64::MAX - 1));
    story.check(live(1, 2), "gen1 gap0-1 a1.2");
}

#[test]
fn answers_that_were_not_asked_for_are_ignored() {
    let mut story = Story::at(true, 5);
    story.check(replayed(2, 0), "").check(Input::ReplayEnd, "").check(Input::ReplayFailed, "");
    story.check(live(1, 9), "ask5").check(replayed(2, 3), "").check(replayed(1, 5), "");
}

#[test]
fn a_reconnect_before_anything_was_applied_is_remembered() {
    let mut story = Story::new(true);
    story.check(Input::Connected, "ask0").check(Input::ReplayEnd, "").check(live(1, 1), "ask0");
    // Batch 1 came on an earlier connection, and the engine knows of none.
    story.check(Input::Connected, "ask0").check(replayed(2, 0), "a2.0").check(Input::ReplayEnd, "dup ask0");
    story.check(replayed(2, 0), "").check(Input::ReplayEnd, "");
    story.phase(Phase::Live, false).check(live(2, 1), "a2.1");
}
