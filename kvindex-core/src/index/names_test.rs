//! Names against a plain map, and what they leave behind.

#![allow(clippy::unwrap_used)]
use super::*;
use proptest::prelude::*;
use std::collections::HashMap;

proptest! {
    /// Against a plain map, with hashes that differ in their low or their high bits only.
    #[test]
    fn behaves_like_a_map(steps in prop::collection::vec((0u8..8, 0u64..120, any::<bool>(), 0u32..40), 1..400)) {
        let (mut names, mut model) = (Names::default(), HashMap::new());
        for (kind, n, high, at) in steps {
            let block = EngineBlockHash(if high { n << 57 } else { n });
            let place = Place { run: at / 8, offset: at };
            match kind {
                0..=3 => {
                    let new = names.insert(block);
                    prop_assert_eq!(new, !model.contains_key(&block));
                    model.entry(block).or_insert(None);
                }
                4 => if model.get(&block) == Some(&None) {
                    names.settle(block, place);
                    model.insert(block, Some(place));
                },
                5 => {
                    let twice = at % 5 == 0;
                    let fresh = (0..3).map(|i| EngineBlockHash(1000 + n * 2 + if twice { i / 2 } else { i }));
                    let fresh: Vec<_> = fresh.collect();
                    let from = names.insert_all(&fresh);
                    let new = !twice && fresh.iter().all(|b| !model.contains_key(b));
                    prop_assert_eq!(from.is_some(), new);
                    if let Some(from) = from {
                        names.settle_new(from, place, 2);
                        names.settle_new(from + 2, Place { run: 77, offset: at }, 1);
                        for (i, b) in fresh.iter().enumerate() {
                            let here = Place { run: place.run, offset: place.offset + i as u32 };
                            model.insert(*b, Some(if i == 2 { Place { run: 77, offset: at } } else { here }));
                        }
                    }
                }
                _ => prop_assert_eq!(names.remove(block), model.remove(&block)),
            }
            names.check().unwrap();
            prop_assert_eq!(names.len(), model.len());
            prop_assert_eq!(names.place(block), model.get(&block).copied());
        }
        let mut all: Vec<_> = names.iter().collect();
        all.sort_unstable();
        let mut expected: Vec<_> = model.into_iter().collect();
        expected.sort_unstable();
        prop_assert_eq!(all, expected);
    }
}

#[test]
fn nothing_is_left_of_nothing() {
    let mut names = Names::default();
    let blocks: Vec<EngineBlockHash> = (0..5000).map(|n| EngineBlockHash(n * 7919)).collect();
    blocks.iter().for_each(|block| assert!(names.insert(*block)));
    let full = names.heap_bytes();
    assert!(full / blocks.len() < 17, "{full} bytes");
    blocks[100..].iter().for_each(|block| assert!(names.remove(*block).is_some()));
    assert!(names.heap_bytes() < full / 10);
    blocks[..100].iter().for_each(|block| assert!(names.remove(*block).is_some()));
    assert_eq!(names.heap_bytes(), 0);
}
