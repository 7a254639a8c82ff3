//! A stream on standby asks its engine for the index's last batch, where it has not heard the engine itself: an idle
//! engine would count as unheard for good. The answer is only held against the index; nothing is applied.

use xxhash_rust::xxh3::xxh3_64;

use super::stream::{Stream, Turn};
use crate::ingest::replay::Answer;

impl Stream {
    /// Sees whether the log speaks for the engine by now, and asks the engine if it is time.
    pub(super) fn look_for_witness(&mut self, turn: &mut Turn<'_>) {
        if !self.follower.wants_witness() {
            return;
        }
        let stream = &self.source.stream;
        let (applied, fresh) = ((turn.applied)(stream), (turn.fresh)(stream));
        if let Some(from) = self.follower.look_for_witness(applied, fresh, turn.now_ms)
            && !self.request_replay(from, turn)
        {
            self.follower.testimony_ended(false, turn.now_ms);
        }
    }

    /// Reads the answer, of which the first messages tell all: behind the batch that was asked for comes the end.
    pub(super) fn read_testimony(&mut self, turn: &mut Turn<'_>) {
        while let Some(replay) = self.replay.as_mut() {
            let told_all = match replay.next(turn.now_ms) {
                Ok(Answer::Nothing) => return,
                Ok(Answer::Batch { seq, payload }) => {
                    turn.counters.replayed.add(1);
                    if self.follower.testified(seq, xxh3_64(&payload)) {
                        continue;
                    }
                    false
                }
                Ok(Answer::End) => true,
                Ok(Answer::Garbage) => return self.replay_failed("an answer is no replay message", turn),
                Err(error) => {
                    self.socket_error("replay", error, turn);
                    return self.replay_failed("the socket failed", turn);
                }
            };
            self.replay = None;
            self.follower.testimony_ended(told_all, turn.now_ms);
        }
    }
}
