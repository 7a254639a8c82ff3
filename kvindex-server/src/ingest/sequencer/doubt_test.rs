//! Streams that are taken up again, as short stories: which cases count as the same life, and which do not.
#![allow(clippy::unwrap_used)]

use kvindex_core::{BatchSeq, Generation};

use super::rules_test::{Story, arrival, live, replayed};
use super::{Footing, Input, Phase, Resume, Sequencer, SequencerConfig};
use crate::ingest::limits::MAX_DOUBT_MS;

/// The index has batches up to 5 of life 1, in generation 4.
fn resume() -> Resume {
    let last = arrival(1, 5);
    Resume { generation: Generation(4), applied: Some(BatchSeq(5)), payload_digest: Some(last.digest) }
}

fn resumed(has_replay: bool) -> Story {
    let config = SequencerConfig { has_replay, ..SequencerConfig::default() };
    let mut story = Story { sequencer: Sequencer::new(config, Some(resume())), now_ms: 0 };
    story.phase(Phase::Pending, false);
    story
}

/// One whose subscription heard batch `seq` of life 1 before.
fn proven(has_replay: bool, seq: u64) -> Story {
    let config = SequencerConfig { has_replay, ..SequencerConfig::default() };
    let footing = Footing { generation: Generation(4), seq, digest: arrival(1, seq).digest };
    let sequencer = Sequencer::new(config, Some(resume())).proven_by(footing, &resume());
    Story { sequencer, now_ms: 0 }
}

#[test]
fn a_replay_that_begins_with_the_last_applied_batch_proves_the_life() {
    let mut story = resumed(true);
    story.check(Input::Connected, "ask5").phase(Phase::Pending, false).check(replayed(1, 5), "");
    story.phase(Phase::CatchingUp, false).check(replayed(1, 6), "a1.6").check(Input::ReplayEnd, "");
    story.phase(Phase::Live, false).check(live(1, 7), "a1.7");
    assert_eq!(story.sequencer.generation(), Generation(4));
    // An engine that was silent since.
    resumed(true).check(Input::Connected, "ask5").check(replayed(1, 5), "").check(Input::ReplayEnd, "");
}

#[test]
fn any_other_replay_is_another_lifes() {
    resumed(true).check(Input::Connected, "ask5").check(replayed(2, 5), "gen5 ask0");
    // It no longer has that batch, or never had it.
    resumed(true).check(Input::Connected, "ask5").check(replayed(1, 6), "gen5 ask0");
    resumed(true).check(Input::Connected, "ask5").check(replayed(1, 9), "gen5 ask0");
    resumed(true).check(Input::Connected, "ask5").check(Input::ReplayEnd, "gen5 ask0");
}

#[test]
fn a_life_whose_numbers_ran_past_ours_is_told_by_the_replay() {
    let mut story = resumed(true);
    story.check(live(2, 6), "ask5").check(live(2, 7), "").phase(Phase::Pending, true);
    story.check(replayed(2, 5), "gen5 ask0").check(replayed(2, 0), "a2.0");
}

#[test]
fn a_replay_socket_that_fails_twice_leaves_the_numbers() {
    let failed_once = || {
        let mut story = resumed(true);
        story.check(Input::Connected, "ask5").check(Input::ReplayFailed, "").phase(Phase::Pending, false);
        story
    };
    failed_once().check(live(1, 6), "ask5").check(Input::ReplayFailed, "a1.6").check(live(1, 7), "a1.7");
    failed_once().check(live(1, 5), "ask5").check(Input::ReplayFailed, "dup").check(live(1, 6), "a1.6");
    failed_once().check(live(1, 8), "ask5").check(Input::ReplayFailed, "gen5 ask0");
    failed_once().check(live(2, 3), "ask5").check(replayed(1, 5), "").check(Input::ReplayEnd, "dup");
}

#[test]
fn an_idle_engine_in_doubt_is_asked_again_within_an_idle_period_when_an_answer_was_lost() {
    let mut story = resumed(true);
    story.check(Input::Connected, "ask5").check(Input::ReplayFailed, "").check(Input::Tick, "");
    story.now_ms = 5_000;
    story.check(Input::Tick, "ask5").check(Input::ReplayFailed, "").phase(Phase::Pending, false);
    // From then on less and less often.
    story.now_ms = 10_002;
    story.check(Input::Tick, "");
    story.now_ms = 15_000;
    story.check(Input::Tick, "ask5").check(replayed(1, 5), "").check(Input::ReplayEnd, "");
    story.phase(Phase::Live, false);
}

#[test]
fn without_replay_the_last_applied_batch_proves_the_life() {
    let mut story = resumed(false);
    story.check(Input::Connected, "").phase(Phase::Pending, false).check(live(1, 5), "dup");
    story.phase(Phase::Live, false).check(live(1, 6), "a1.6").check(live(1, 9), "gap7-8 a1.9");
    let mut behind = resumed(false);
    behind.check(live(1, 3), "").check(live(1, 4), "").phase(Phase::Pending, true);
    behind.check(live(1, 5), "dup dup dup").check(live(1, 6), "a1.6").phase(Phase::Live, false);
    assert_eq!(behind.sequencer.generation(), Generation(4));
}

#[test]
fn without_replay_the_number_that_follows_is_taken_for_the_same_life() {
    let mut story = resumed(false);
    story.check(Input::Connected, "").check(live(1, 6), "a1.6").phase(Phase::Live, false);
    assert_eq!(story.sequencer.generation(), Generation(4));
}

#[test]
fn without_replay_numbers_that_contradict_are_another_lifes() {
    resumed(false).check(live(2, 5), "gen5 gap0-4 a2.5");
    resumed(false).check(live(2, 7), "gen5 gap0-6 a2.7");
    let mut story = resumed(false);
    story.check(live(2, 3), "").check(live(2, 4), "").check(live(2, 5), "gen5 gap0-2 a2.3 a2.4 a2.5");
    // The connection is older than batch 5, or another life's: what follows 5 proves nothing.
    resumed(false).check(live(2, 4), "").check(live(2, 6), "gen5 gap0-3 a2.4 gap5-5 a2.6");
}

#[test]
fn without_replay_numbers_that_stay_below_are_another_lifes_after_a_while() {
    let mut story = resumed(false);
    story.check(live(2, 0), "").check(Input::Tick, "").check(live(2, 1), "");
    story.now_ms += MAX_DOUBT_MS;
    story.check(Input::Tick, "gen5 a2.0 a2.1").phase(Phase::Live, false).check(live(2, 2), "a2.2");
}

#[test]
fn numbers_of_an_earlier_connection_are_not_mixed_with_those_of_a_later_one() {
    let mut story = resumed(false);
    story.check(live(1, 4), "").check(Input::Connected, "").check(live(2, 6), "gen5 gap0-5 a2.6");
    let mut story = resumed(false);
    story
        .check(live(1, 3), "")
        .check(Input::Connected, "")
        .check(live(1, 5), "dup")
        .check(live(1, 6), "a1.6");
    // Where numbers go on, the connection is all that changed.
    let mut story = resumed(false);
    story.check(live(2, 0), "").check(live(2, 1), "").check(Input::Connected, "").check(live(2, 2), "");
    story.now_ms += MAX_DOUBT_MS;
    story.check(Input::Tick, "gen5 a2.0 a2.1 a2.2");
}

#[test]
fn an_earlier_batch_on_the_same_connection_proves_the_life() {
    let mut story = proven(false, 5);
    story.phase(Phase::Live, false).check(live(1, 8), "gap6-7 a1.8");
    assert_eq!(story.sequencer.generation(), Generation(4));
    proven(true, 5).check(live(1, 8), "ask5").check(replayed(1, 5), "").check(replayed(1, 6), "a1.6");
    proven(false, 5).check(live(2, 0), "gen5 a2.0");
}

#[test]
fn what_the_index_had_first_may_still_be_on_its_way() {
    let mut story = proven(false, 2);
    story.check(live(1, 3), "dup").check(live(1, 3), "dup").check(live(1, 4), "dup").check(live(1, 5), "dup");
    story.check(live(1, 6), "a1.6").phase(Phase::Live, false);
    // Numbers that fall are another life's, and so is another batch 5.
    proven(false, 2).check(live(1, 3), "dup").check(live(2, 0), "gen5 a2.0");
    proven(false, 2).check(live(2, 5), "gen5 gap0-4 a2.5");
    // A new connection may be another life's.
    proven(false, 2).check(Input::Connected, "").check(live(2, 3), "gen5 gap0-2 a2.3");
    // A replay that proves the life tells the same.
    let mut asked = resumed(true);
    asked.check(Input::Connected, "ask5").check(live(1, 4), "").check(replayed(1, 5), "");
    asked.check(replayed(1, 6), "a1.6").check(Input::ReplayEnd, "dup").check(live(1, 5), "dup");
    asked.check(live(1, 6), "dup").check(live(1, 7), "a1.7");
}

#[test]
fn what_was_heard_before_is_older_than_the_replay_that_is_asked_for() {
    let config = SequencerConfig::default();
    let gathering = || Story { sequencer: Sequencer::new(config, Some(resume())).gathering(), now_ms: 0 };
    let mut story = gathering();
    story.check(live(1, 3), "").check(live(1, 7), "").check(Input::Connected, "ask5");
    story.check(replayed(1, 5), "").check(replayed(1, 6), "a1.6").check(replayed(1, 7), "a1.7");
    story.check(Input::ReplayEnd, "dup dup").phase(Phase::Live, false);
    // The connection's coming about was missed.
    gathering().check(live(1, 6), "").check(Input::Tick, "ask5");
}

#[test]
fn a_generation_in_which_nothing_was_applied_goes_on() {
    let resume = Resume { generation: Generation(4), applied: None, payload_digest: None };
    let begun = |has_replay| {
        let config = SequencerConfig { has_replay, ..SequencerConfig::default() };
        Story { sequencer: Sequencer::new(config, Some(resume)), now_ms: 0 }
    };
    let mut story = begun(true);
    story.check(Input::Connected, "ask0").check(replayed(1, 0), "a1.0").check(Input::ReplayEnd, "");
    assert_eq!(story.sequencer.generation(), Generation(4));
    begun(false).check(live(1, 0), "a1.0").check(live(1, 1), "a1.1").phase(Phase::Live, false);
}

#[test]
fn the_footing_is_what_was_heard_for_certain() {
    let seq = |story: &Story| story.sequencer.footing().map(|footing| footing.seq);
    let mut story = proven(false, 2);
    assert_eq!(seq(&story), Some(2));
    story.check(live(1, 3), "dup");
    assert_eq!(seq(&story), Some(3));
    story.check(live(1, 5), "dup");
    assert_eq!(seq(&story), Some(5));
    story.check(Input::Connected, "");
    assert_eq!(seq(&story), None);
    story.check(live(1, 6), "a1.6");
    assert_eq!(seq(&story), Some(6));
    let mut asked = resumed(true);
    asked.check(Input::Connected, "ask5");
    assert_eq!(seq(&asked), None);
    asked.check(replayed(1, 5), "").check(Input::ReplayEnd, "");
    assert_eq!(seq(&asked), None, "nothing was heard on the subscription itself");
    asked.check(live(1, 6), "a1.6");
    assert_eq!(seq(&asked), Some(6));
}
