//! Writes values as CPython's `pickle.dumps(value, protocol=5)` does: the hash input of vLLM's `sha256` and
//! `xxhash`. Pickle is no canonical format, so every habit of CPython's writer counts: frames, memo entries, and
//! back references for objects that it has seen (see [`Object`]).

use super::value::{Object, Value};

/// A frame is closed before the next value once it is this long, and longer byte strings stand outside of
/// frames: CPython's `FRAME_SIZE_TARGET`.
const FRAME_TARGET: usize = 64 * 1024;
/// Shorter frames are written without a header: CPython's `FRAME_SIZE_MIN`.
const FRAME_MIN: usize = 4;
const FRAME_HEADER: usize = 9;

/// Replaces `out` by the pickle of `value`.
pub(super) fn write(value: &Value<'_>, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(b"\x80\x05");
    let mut writer = Writer { out, frame: None, memo: Vec::new(), memoized: 0 };
    writer.save(value);
    writer.put(b".");
    writer.close_frame();
}

struct Writer<'w, 'v> {
    out: &'w mut Vec<u8>,
    /// Where the open frame's header starts.
    frame: Option<usize>,
    /// Texts that a later one may be the same object as.
    memo: Vec<(&'v str, Object, u32)>,
    memoized: u32,
}

impl<'v> Writer<'_, 'v> {
    fn put(&mut self, bytes: &[u8]) {
        if self.frame.is_none() {
            self.frame = Some(self.out.len());
            self.out.extend_from_slice(&[0x95, 0, 0, 0, 0, 0, 0, 0, 0]);
        }
        self.out.extend_from_slice(bytes);
    }

    fn close_frame(&mut self) {
        let Some(start) = self.frame.take() else {
            return;
        };
        let content = start + FRAME_HEADER;
        let len = self.out.len() - content;
        if len < FRAME_MIN {
            self.out.drain(start..content);
        } else {
            self.out[start + 1..content].copy_from_slice(&(len as u64).to_le_bytes());
        }
    }

    fn close_full_frame(&mut self) {
        if self.frame.is_some_and(|start| self.out.len() - start - FRAME_HEADER >= FRAME_TARGET) {
            self.close_frame();
        }
    }

    fn save(&mut self, value: &Value<'v>) {
        self.close_full_frame();
        match value {
            Value::None => self.put(b"N"),
            Value::Int(int) => self.int(*int),
            Value::Text(text, object) => self.text(text, *object),
            Value::Bytes(bytes) => self.bytes(bytes),
            Value::Tuple(items) => {
                self.tuple(items.len(), |writer| items.iter().for_each(|item| writer.save(item)));
            }
            Value::Tokens(tokens) => self.tuple(tokens.len(), |writer| {
                for token in *tokens {
                    writer.close_full_frame();
                    writer.int(i128::from(*token));
                }
            }),
        }
    }

    fn int(&mut self, int: i128) {
        if let Ok(byte) = u8::try_from(int) {
            self.put(&[b'K', byte]);
        } else if let Ok(word) = u16::try_from(int) {
            let [a, b] = word.to_le_bytes();
            self.put(&[b'M', a, b]);
        } else if let Ok(word) = i32::try_from(int) {
            let [a, b, c, d] = word.to_le_bytes();
            self.put(&[b'J', a, b, c, d]);
        } else {
            self.long(int);
        }
    }

    /// The fewest bytes of two's complement that keep the sign.
    fn long(&mut self, int: i128) {
        let bits = 129 - if int < 0 { (!int).leading_zeros() } else { int.leading_zeros() };
        let len = bits.div_ceil(8) as usize;
        self.put(&[0x8a, len as u8]); // at most 17: an i128
        let bytes = int.to_le_bytes();
        self.put(&bytes[..len.min(bytes.len())]);
    }

    fn text(&mut self, text: &'v str, object: Object) {
        if object != Object::Own {
            let seen = self.memo.iter().find(|(known, kind, _)| (*known, *kind) == (text, object));
            if let Some((_, _, index)) = seen {
                return self.back_reference(*index);
            }
            self.memo.push((text, object, self.memoized));
        }
        self.sized(0x8c, b'X', text.as_bytes());
        self.memoize();
    }

    fn back_reference(&mut self, index: u32) {
        match u8::try_from(index) {
            Ok(index) => self.put(&[b'h', index]),
            Err(_) => {
                let [a, b, c, d] = index.to_le_bytes();
                self.put(&[b'j', a, b, c, d]);
            }
        }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.sized(b'C', b'B', bytes);
        self.memoize();
    }

    fn sized(&mut self, short: u8, long: u8, bytes: &[u8]) {
        let mut header = vec![short];
        match u8::try_from(bytes.len()) {
            Ok(len) => header.push(len),
            Err(_) => {
                header[0] = long;
                header.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            }
        }
        if bytes.len() < FRAME_TARGET {
            self.put(&header);
            self.put(bytes);
        } else {
            self.close_frame();
            self.out.extend_from_slice(&header);
            self.out.extend_from_slice(bytes);
        }
    }

    fn tuple(&mut self, len: usize, items: impl FnOnce(&mut Self)) {
        match len {
            0 => return self.put(b")"), // a constant, never memoized
            1..=3 => {
                items(self);
                self.put(&[0x84 + len as u8]);
            }
            _ => {
                self.put(b"(");
                items(self);
                self.put(b"t");
            }
        }
        self.memoize();
    }

    fn memoize(&mut self) {
        self.put(b"\x94");
        self.memoized += 1;
    }
}

#[cfg(test)]
#[path = "pickle_test.rs"]
mod tests;
