//! Log entries: every command comes back as it was, whatever it holds; whatever the bytes, reading them says so or
//! ends well; the bytes of each version stay what they are.

mod arbitrary;

use kvindex_core::replication::{CodecError, EntryEncoder, ShardCommand, decode, encode};
use kvindex_core::{Change, Index, Tier};
use proptest::prelude::*;

use crate::formats::golden;
use crate::history::{Dice, Plan, WORKERS, history, registration};

fn round_trip(commands: &[ShardCommand]) -> Result<(), TestCaseError> {
    let entry = encode(commands).unwrap();
    prop_assert_eq!(&decode(&entry).unwrap(), commands);
    prop_assert_eq!(encode(&decode(&entry).unwrap()).unwrap(), entry);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(400), ..ProptestConfig::default() })]

    #[test]
    fn every_command_comes_back(commands in prop::collection::vec(arbitrary::command(), 0..12)) {
        round_trip(&commands)?;
    }

    #[test]
    fn damaged_entries_are_read_or_refused(
        commands in prop::collection::vec(arbitrary::command(), 1..6),
        flips in prop::collection::vec((any::<prop::sample::Index>(), 1u8..), 1..4),
    ) {
        let mut entry = encode(&commands).unwrap().to_vec();
        for (at, bits) in flips {
            let at = at.index(entry.len());
            entry[at] ^= bits;
        }
        // A flip may make another entry: that one at least must be writable again.
        if let Ok(other) = decode(&entry) {
            prop_assert_eq!(decode(&encode(&other).unwrap()).unwrap(), other);
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..200), known in 1..=2u8) {
        if let Some(version) = bytes.first_mut() {
            *version = known;
        }
        if let Ok(commands) = decode(&bytes) {
            prop_assert_eq!(decode(&encode(&commands).unwrap()).unwrap(), commands);
        }
    }
}

#[test]
fn entry_version_2() {
    let commands = arbitrary::every_form();
    golden("entry-v2.bin", &encode(&commands).unwrap());
    let kept = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/entry-v2.bin")).unwrap();
    assert_eq!(decode(&kept).unwrap(), commands);
}

/// It says nothing of registrations, so what it holds belongs to any.
#[test]
fn entry_version_1_is_read() {
    let mut commands = arbitrary::every_form();
    commands.iter_mut().for_each(arbitrary::without_registration);
    commands.dedup();
    assert_eq!(decode(include_bytes!("../../golden/entry-v1.bin")).unwrap(), commands);
}

#[test]
fn an_entry_cut_anywhere_is_refused() {
    let entry = encode(&arbitrary::every_form()).unwrap();
    for end in 0..entry.len() {
        let error = decode(&entry[..end]).unwrap_err();
        assert!(matches!(error, CodecError::Truncated(_) | CodecError::TooLarge { .. }), "{end}: {error}");
    }
    let longer = [&entry[..], &[0; 8]].concat();
    assert_eq!(decode(&longer), Err(CodecError::LeftOver(8)));
}

#[test]
fn a_changed_byte_anywhere_never_panics() {
    let entry = encode(&arbitrary::every_form()).unwrap();
    let mut refused = 0;
    for at in 0..entry.len() {
        for bits in [0x01, 0x10, 0x80, 0xff] {
            let mut changed = entry.to_vec();
            changed[at] ^= bits;
            refused += usize::from(decode(&changed).is_err());
        }
    }
    assert!(refused > 100, "{refused} refused");
}

#[test]
fn other_versions_say_what_to_do() {
    let newer = decode(&[7, 0]).unwrap_err();
    assert_eq!(newer.to_string(), "entry of version 7, this program reads up to 2: upgrade this node first");
    assert_eq!(decode(&[0, 0]).unwrap_err(), CodecError::NotAnEntry(0));
    assert_eq!(decode(&[]).unwrap_err(), CodecError::Truncated("its version"));
}

/// A few bytes must not ask for much memory: 64 hashes, repeated a thousand times.
#[test]
fn repeated_hashes_are_bounded() {
    let removed = |hashes: Vec<u64>| arbitrary::removed(hashes);
    let commands = vec![removed((0..64).collect()); 1000];
    let entry = encode(&commands).unwrap();
    assert!(entry.len() > 8 * 64 * 1000 / 17, "{} bytes", entry.len());
    assert_eq!(decode(&entry).unwrap(), commands);
    // One removal of one hash, then repeats of it without end: a change is its number, its length, its distance.
    let mut head = vec![0, 1, b'a', 0, 0, 0, 0xca, 1, 1, 0];
    for _ in 0..100 {
        head.extend([1 | 2 << 3, 3, 1]);
    }
    let length = [head.len() as u8 | 0x80, (head.len() >> 7) as u8];
    let entry = [&[2], &length[..], &head, &[5; 8]].concat();
    assert_eq!(decode(&entry), Err(CodecError::TooManyCopies { copied: 17, spelled: 1 }));
}

/// A tier's name is copied for each change, so an endless one is refused before anything is written.
#[test]
fn endless_tier_names_are_refused() {
    let cleared = |length: usize| Change::Cleared { tier: Some(Tier::Other("x".repeat(length))) };
    let mut encoder = EntryEncoder::new();
    let error = encoder.push(&arbitrary::events(vec![Change::Unreadable, cleared(257)])).unwrap_err();
    assert_eq!(error.to_string(), "entry holds 257 as the length of a tier's name, at most 256 can be");
    assert!(encoder.is_empty());
    let commands = [arbitrary::events(vec![cleared(256)])];
    assert_eq!(decode(&encode(&commands).unwrap()).unwrap(), commands);
}

#[test]
fn a_gatherer_sees_how_large_an_entry_is() {
    let mut encoder = EntryEncoder::new();
    assert!(encoder.is_empty());
    let commands = arbitrary::every_form();
    for command in &commands {
        encoder.push(command).unwrap();
    }
    let size = encoder.size();
    let entry = encoder.finish();
    assert!((size + 2..=size + 11).contains(&entry.len()), "{size} said, {} bytes", entry.len());
    assert_eq!(entry, encode(&commands).unwrap());
}

/// Histories of all kinds, hostile ones too: what is applied after the log is what was proposed.
#[test]
fn random_histories_through_the_log_make_the_same_index() {
    let some = Plan { sparse: true, tiers: true, groups: true, sizes: true, ..Plan::default() };
    let odd = Plan { adapters: true, content: true, described_anew: true, repeated: true, ..some };
    for plan in [some, odd, Plan { hostile: true, ..odd }] {
        for seed in 1..60 {
            let (mut index, mut commands) = (Index::default(), Vec::new());
            commands.extend(WORKERS.map(registration));
            for command in &commands {
                index.apply(command);
            }
            for step in history(plan, seed).0 {
                let Some(command) = step.command(&index) else { continue };
                index.apply(&command);
                commands.push(command);
            }
            let mut dice = Dice::new(seed);
            let mut replica = Index::default();
            let mut rest: Vec<ShardCommand> = commands.into_iter().map(ShardCommand::from).collect();
            while !rest.is_empty() {
                let later = rest.split_off(rest.len().min(1 + dice.below(9)));
                for command in decode(&encode(&rest).unwrap()).unwrap() {
                    apply(&mut replica, &command);
                }
                rest = later;
            }
            assert_eq!(replica.digest(), index.digest(), "seed {seed} of {plan:?}");
            assert_eq!(replica.snapshot(), index.snapshot(), "seed {seed} of {plan:?}");
        }
    }
}

fn apply(index: &mut Index, command: &ShardCommand) {
    match command {
        ShardCommand::Index(command) => {
            index.apply(command);
        }
        ShardCommand::Host(_) => panic!("no host's command was written"),
    }
}

#[test]
fn what_is_expected_costs_nearly_nothing() {
    let entry = encode(&[arbitrary::events(vec![Change::Stored(arbitrary::run(1000))])]).unwrap();
    assert!(entry.len() < 16 * 1000 + 48, "{} bytes", entry.len());
}
