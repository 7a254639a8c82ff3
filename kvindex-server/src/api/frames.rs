//! Where gRPC messages begin and end in the bytes of a stream: a flag, four bytes of length, the message. Only
//! counted, never decoded: enough to know how much of an unfinished message is held.

/// Flag and length.
const HEAD: usize = 5;

/// How far a stream of messages is.
#[derive(Debug, Default)]
pub(super) struct Frames {
    head: [u8; HEAD],
    /// Bytes of the present message's head that came.
    head_len: usize,
    /// Bytes of it that are still to come, once its head is complete.
    left: usize,
    /// Bytes that came since the last message ended.
    unfinished: usize,
}

impl Frames {
    /// Whether a message has begun and not ended.
    pub(super) fn is_within(&self) -> bool {
        self.unfinished > 0
    }

    /// Takes the next bytes; answers how many of all that came belong to messages that are complete now.
    pub(super) fn read(&mut self, mut bytes: &[u8]) -> usize {
        let mut done = 0;
        while !bytes.is_empty() {
            let missing = HEAD - self.head_len;
            let taken = if missing > 0 { missing.min(bytes.len()) } else { self.left.min(bytes.len()) };
            let (now, rest) = bytes.split_at(taken);
            if missing > 0 {
                for (to, from) in self.head.iter_mut().skip(self.head_len).zip(now) {
                    *to = *from;
                }
                self.head_len += taken;
                let [_flag, length @ ..] = self.head;
                self.left = u32::from_be_bytes(length) as usize;
            } else {
                self.left -= taken;
            }
            self.unfinished += taken;
            if self.head_len == HEAD && self.left == 0 {
                done += self.unfinished;
                *self = Self::default();
            }
            bytes = rest;
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(len: usize) -> Vec<u8> {
        let length = u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes();
        [&[0][..], &length, &vec![7; len]].concat()
    }

    proptest! {
        /// However a stream is cut, what is complete is the whole messages, and what is left the rest.
        #[test]
        fn complete_messages_are_told_however_they_are_cut(
            lens in prop::collection::vec(0usize..20, 0..8),
            cuts in prop::collection::vec(1usize..9, 1..40),
            rest in 0usize..5,
        ) {
            let whole: usize = lens.iter().map(|len| len + HEAD).sum();
            let mut bytes: Vec<u8> = lens.iter().flat_map(|len| message(*len)).collect();
            bytes.extend(vec![0; rest]);
            let (mut frames, mut done, mut at) = (Frames::default(), 0, 0);
            for cut in cuts.iter().cycle() {
                if at == bytes.len() { break; }
                let end = (at + cut).min(bytes.len());
                done += frames.read(&bytes[at..end]);
                at = end;
            }
            prop_assert_eq!(done, whole);
            prop_assert_eq!(frames.is_within(), rest > 0);
            prop_assert_eq!(frames.unfinished, rest);
        }
    }
}
