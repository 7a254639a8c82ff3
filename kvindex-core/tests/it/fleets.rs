//! Scores of fleets that fill more than one word of owners, and more words than are looked at in one go: small
//! histories never get there.

use crate::rig::{Rig, compare_scores};

/// Chains that part at the start, in the middle and near the end.
const CHAINS: [&str; 4] = ["abcdefghijklmnop", "abcdefghABCDEFGH", "abcdefghijklmnOP", "qrstuvwxyz"];

/// Numbers below `n` from a fixed sequence.
fn draw(state: &mut u64, n: usize) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) as usize % n
}

/// Asks for whole chains, beginnings of them, and one that goes on where nobody was.
fn compare_all(rig: &Rig) {
    for chain in CHAINS {
        for end in [1, 8, 9, chain.len()] {
            compare_scores(&rig.index, &chain.as_bytes()[..end.min(chain.len())]);
        }
        compare_scores(&rig.index, format!("{chain}!?").as_bytes());
    }
}

#[test]
fn depths_of_all_kinds() {
    let mut state = 11;
    for size in [3, 64, 65, 200, 700] {
        let names: Vec<String> = (0..size).map(|i| format!("w{i:04}")).collect();
        let mut rig = Rig::new(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let mut held = Vec::new();
        for name in &names {
            let chain = CHAINS[draw(&mut state, 4)];
            // Most hold all of it, so that whole words end together; the rest end anywhere.
            let end = if draw(&mut state, 3) > 0 { chain.len() } else { 1 + draw(&mut state, chain.len()) };
            rig.store(name, &chain[..end], 0);
            held.push((name, chain, end));
        }
        compare_all(&rig);
        for (name, chain, end) in held.iter().step_by(3) {
            for last in (end / 2..*end).rev() {
                rig.remove(name, &chain[..=last]);
            }
        }
        compare_all(&rig);
        rig.index.check_invariants().unwrap();
    }
}

#[test]
fn few_of_many_go_on() {
    let names: Vec<String> = (0..700).map(|i| format!("w{i:04}")).collect();
    let mut rig = Rig::new(&names.iter().map(String::as_str).collect::<Vec<_>>());
    for (i, name) in names.iter().enumerate() {
        let chain = CHAINS[usize::from(i == 699)];
        // Everybody holds the beginning, then a word's worth, then two words', then the first and the last.
        let end = match i {
            0 | 699 => 16,
            128..192 => 10,
            450..460 => 12,
            _ => 8,
        };
        rig.store(name, &chain[..end], 0);
    }
    compare_all(&rig);
}
