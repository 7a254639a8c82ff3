//! What a router believes that does not listen to engines: a least-recently-used list of blocks for each worker, of
//! what it sent there itself, as in approximate prefix scorers. It knows of its own choices at once, and of
//! evictions never: it can only hope that the engine forgets at the pace at which its own list does.

use std::collections::{BTreeMap, HashMap};

/// The guess about one worker.
#[derive(Debug)]
pub(super) struct Guess {
    capacity: usize,
    /// Seconds after which a block that was not sent again is not believed in any more.
    ttl_s: f64,
    last: HashMap<u64, u64>,
    /// Blocks and when they were sent, oldest first.
    order: BTreeMap<u64, (u64, f64)>,
    clock: u64,
}

impl Guess {
    pub(super) fn new(capacity: usize, ttl_s: f64) -> Self {
        Self { capacity, ttl_s, last: HashMap::new(), order: BTreeMap::new(), clock: 0 }
    }

    /// How many of a prompt's first blocks are believed to be there.
    pub(super) fn prefix(&mut self, blocks: &[u64], now: f64) -> usize {
        while let Some(oldest) = self.order.first_entry()
            && now - oldest.get().1 > self.ttl_s
        {
            let (block, _) = oldest.remove();
            self.last.remove(&block);
        }
        blocks.iter().take_while(|block| self.last.contains_key(block)).count()
    }

    /// Notes a prompt that was sent. Its end becomes older than its beginning, as in the engine's own cache.
    pub(super) fn sent(&mut self, blocks: &[u64], now: f64) {
        for block in blocks.iter().rev() {
            self.clock += 1;
            if let Some(before) = self.last.insert(*block, self.clock) {
                self.order.remove(&before);
            }
            self.order.insert(self.clock, (*block, now));
        }
        while self.order.len() > self.capacity
            && let Some((_, (block, _))) = self.order.pop_first()
        {
            self.last.remove(&block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgets_the_least_recently_sent_and_the_old() {
        let mut guess = Guess::new(4, 10.0);
        guess.sent(&[1, 2, 3], 0.0);
        guess.sent(&[1, 8, 9], 6.0);
        assert_eq!(guess.prefix(&[1, 2, 3], 6.0), 2, "3 went for the fifth block");
        assert_eq!(guess.prefix(&[1, 2, 3], 11.0), 1, "2 was sent too long ago");
        assert_eq!(guess.prefix(&[1, 8, 9], 11.0), 3);
        assert_eq!(guess.prefix(&[1, 8, 9], 17.0), 0);
    }
}
