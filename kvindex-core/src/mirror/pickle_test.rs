//! Pickles against what CPython 3.11 wrote for the same values: the corners that the engines' vectors do not
//! reach.
#![allow(clippy::unwrap_used)]

use sha2::{Digest as _, Sha256};

use super::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn pickled(value: &Value<'_>) -> Vec<u8> {
    let mut out = vec![1, 2, 3];
    write(value, &mut out);
    out
}

fn digest(value: &Value<'_>) -> String {
    hex(&Sha256::digest(pickled(value)))
}

#[test]
fn integers_of_every_width() {
    let cases: [(i128, &str); 14] = [
        (0, "80054b002e"),
        (255, "80054bff2e"),
        (256, "80059504000000000000004d00012e"),
        (65_535, "80059504000000000000004dffff2e"),
        (65_536, "80059506000000000000004a000001002e"),
        ((1 << 31) - 1, "80059506000000000000004affffff7f2e"),
        (1 << 31, "80059508000000000000008a0500000080002e"),
        ((1 << 32) - 1, "80059508000000000000008a05ffffffff002e"),
        ((1 << 39) - 1, "80059508000000000000008a05ffffffff7f2e"),
        (1 << 39, "80059509000000000000008a060000000080002e"),
        (i128::from(i64::MAX), "8005950b000000000000008a08ffffffffffffff7f2e"),
        (-1, "80059506000000000000004affffffff2e"),
        (-(1 << 31) - 1, "80059508000000000000008a05ffffff7fff2e"),
        (i128::from(i64::MIN), "8005950b000000000000008a0800000000000000802e"),
    ];
    for (int, expected) in cases {
        assert_eq!(hex(&pickled(&Value::Int(int))), expected, "{int}");
    }
}

#[test]
fn empty_tuples_and_long_texts() {
    assert_eq!(hex(&pickled(&Value::Tuple(Vec::new()))), "8005292e");
    let long = "a".repeat(300);
    assert_eq!(hex(&pickled(&Value::own(&long))[..16]), "8005953301000000000000582c010000");
}

/// CPython writes `(bytes(32), (1, 2), (b"x" * n,))`: from 64 KiB on the bytes stand between two frames.
#[test]
fn long_bytes_stand_outside_of_frames() {
    let cases = [
        (255, "826f4fe9f57f3629cd142a3aff54c07ab8c027865db22b260a61f459764ef3bd"),
        (256, "b2a97286a406913dd1b6cc5419bb6d24b61acf17edd9889c92c9e04e692c3657"),
        (65_535, "12d9e1593696a5f881334a2478537f331e75b52ea42d545c3189687c1ca77a6f"),
        (65_536, "8bd088ca19fc166f96c467eb888516e44e9b428b5f17abfb0d09834da8ad96cf"),
        (70_000, "d406175f2779f0415bef5a7486049f9b236cb37569f7194e635cdd39fcba11b2"),
    ];
    for (len, expected) in cases {
        let long = vec![b'x'; len];
        let value = Value::Tuple(vec![
            Value::Bytes(&[0; 32]),
            Value::Tokens(&[1, 2]),
            Value::Tuple(vec![Value::Bytes(&long)]),
        ]);
        assert_eq!(digest(&value), expected, "{len} bytes");
    }
}

/// CPython writes `(bytes(32), (70000,) * n, None)`: a new frame every 64 KiB.
#[test]
fn long_blocks_take_several_frames() {
    let cases = [
        (13_099, "ad4ff573309f1de67425bb0b21fc4bfb09d90cf9b4e80bd7105f104e9b653372"),
        (13_100, "fc1336b03d88ae40913d6855ca8705ce0d2f66aad43e1eaa73434ac58b7de1b4"),
        (13_101, "cc8c984484525fe03ae378830a7de7dde63afb601305ca2b3364bdc7f00fc421"),
        (13_107, "5f80064e02285847fdc5723c3d5aeeb70574190d68fa1247c999c1fa40bee85c"),
        (30_000, "6dee13e55ad6aa2ceedf7959d93666718ff346bce6cb3661bfe7b828c3b09c68"),
    ];
    for (len, expected) in cases {
        let tokens = vec![70_000; len];
        let value = Value::Tuple(vec![Value::Bytes(&[0; 32]), Value::Tokens(&tokens), Value::None]);
        assert_eq!(digest(&value), expected, "{len} tokens");
    }
}

/// CPython writes 300 texts, then the 281st and the sixth object again: memo entries beyond one byte.
#[test]
fn back_references_of_both_widths() {
    let texts: Vec<String> = (0..300).map(|i| format!("{i:03}x")).collect();
    let all = texts.iter().chain([&texts[280], &texts[5]]);
    let value = Value::Tuple(all.map(|text| Value::Text(text, Object::Shared)).collect());
    assert_eq!(digest(&value), "f055f24e2b88e6f0775272c983e1ab8559f059459061ec90c4ac6acf9d73d588");
}
