//! Random changes of inputs that are in order: most of what comes out is nearly right, which is where mistakes are.

/// Repeatable chance (SplitMix64).
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// What lengths and numbers go wrong at, as bytes and as text.
const EDGES: [&[u8]; 16] = [
    b"\x00",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\xdd\xff\xff\xff\xff",
    b"\xdf\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"-1",
    b"18446744073709551616",
    b"1e400",
    b"null",
    b"[[[[[[[[",
    b"\"\\u0000\"",
    b"\xed\xa0\x80",
];

/// Makes an input out of one or two seeds.
pub(crate) fn changed(dice: &mut Dice, seeds: &[Vec<u8>], input: &mut Vec<u8>) {
    input.clear();
    input.extend_from_slice(&seeds[dice.below(seeds.len())]);
    // Few changes leave much in order; a quarter gets many.
    let changes = if dice.below(4) == 0 { 1 + dice.below(16) } else { 1 + dice.below(2) };
    for _ in 0..changes {
        change(dice, seeds, input);
    }
}

fn change(dice: &mut Dice, seeds: &[Vec<u8>], input: &mut Vec<u8>) {
    let at = dice.below(input.len() + 1);
    let end = (at + 1 + dice.below(12)).min(input.len());
    match dice.below(8) {
        0 if at < input.len() => input[at] ^= 1 << dice.below(8),
        1 if at < input.len() => input[at] = dice.next() as u8,
        2 => drop(input.drain(at..end.max(at))),
        3 => {
            let edge = EDGES[dice.below(EDGES.len())];
            input.splice(at..at, edge.iter().copied());
        }
        4 => {
            let edge = EDGES[dice.below(EDGES.len())];
            input.splice(at..end.max(at), edge.iter().copied());
        }
        5 => {
            let again: Vec<u8> = input[at..end.max(at)].to_vec();
            input.splice(at..at, again);
        }
        6 => {
            // A piece of another one, or of the same.
            let other = &seeds[dice.below(seeds.len())];
            let from = dice.below(other.len() + 1);
            let to = (from + dice.below(64)).min(other.len());
            input.splice(at..end.max(at), other[from..to].iter().copied());
        }
        _ if at > 0 && dice.below(4) == 0 => input.truncate(at),
        _ => {
            let bytes = dice.next().to_le_bytes();
            input.splice(at..at, bytes.into_iter().take(1 + dice.below(8)));
        }
    }
}
