//! Wrong use ends with 2 and names the flag and what it takes; a server that is away ends with 3.

use crate::node::{Folder, Node, nowhere, run, run_with_input};

#[test]
fn every_refusal_names_the_flag_and_the_limit() {
    let cases: [(&[&str], &[&str]); 18] = [
        (&["match"], &["--model", "--tokens"]),
        (&["match", "--model", "m"], &["--tokens", "--engine-hashes"]),
        (&["match", "--model", "m", "--tokens", "1", "--tokens-file", "-"], &["--tokens", "--tokens-file"]),
        (&["match", "--model", "m", "--tokens", ""], &["--tokens", "no token ids"]),
        (&["match", "--model", "m", "--tokens", "1,x"], &["--tokens", "\"x\"", "4294967295"]),
        (&["match", "--model", "m", "--tokens", "1,-2"], &["--tokens", "\"-2\"", "4294967295"]),
        (&["match", "--model", "m", "--tokens", "9223372036854775808"], &["--tokens", "4294967295"]),
        (&["match", "--model", "m", "--tokens", "1", "--block-size", "0"], &["--block-size", "1..=4096"]),
        (&["match", "--model", "m", "--tokens", "1", "--block-size", "5000"], &["--block-size", "1..=4096"]),
        (&["match", "--model", "m", "--tokens", "1", "--top", "0"], &["--top", "1.."]),
        (&["match", "--model", "m", "--tokens", "1", "--timeout", "0"], &["--timeout", "1..=600000"]),
        (&["match", "--model", "m", "--tokens", "1", "--item", "a:1"], &["--item", "ID:OFFSET:LENGTH"]),
        (&["match", "--model", "m", "--tokens", "1", "--label", "a"], &["--label", "KEY=VALUE"]),
        (&["match", "--model", "m", "--sequence-hashes", "1"], &["--block-size"]),
        (
            &["explain", "--model", "m", "--engine-hashes", "0xg", "--block-size", "16"],
            &["--engine-hashes", "\"0xg\"", "18446744073709551615"],
        ),
        (
            &["explain", "--model", "m", "--engine-hashes", "1", "--block-size", "16", "--salt", "s"],
            &["--salt", "--engine-hashes"],
        ),
        (&["register", "w", "--model", "m", "--data-parallel-size", "2"], &["--endpoint"]),
        (&["register", "w", "--model", "m", "--hash-seed", "0"], &["--hash-algorithm"]),
    ];
    for (arguments, expected) in cases {
        let (code, out, err) = run(arguments);
        assert_eq!((code, out.as_str()), (2, ""), "{arguments:?}: {err}");
        for part in expected {
            assert!(err.contains(part), "{arguments:?} does not say {part}: {err}");
        }
    }
}

#[test]
fn a_bad_token_file_is_named() {
    let folder = Folder::new("bad-token-file");
    let prompt = |path: &str| run(&["match", "--model", "m", "--tokens-file", path]);
    let (code, _, err) = prompt(&folder.file("absent"));
    assert_eq!(code, 1);
    assert!(err.contains("--tokens-file") && err.contains("absent"), "{err}");
    let path = folder.file("bytes");
    std::fs::write(&path, [0xff, 0xfe]).unwrap();
    let (code, _, err) = prompt(&path);
    assert_eq!(code, 2, "{err}");
    let path = folder.file("object");
    std::fs::write(&path, r#"{"tokens": [1]}"#).unwrap();
    let (code, _, err) = prompt(&path);
    assert!(code == 2 && err.contains("is no token id"), "{err}");
    let too_many = "1 ".repeat((4 << 20) + 1);
    let (code, _, err) = run_with_input(&["match", "--model", "m", "--tokens-file", "-"], &too_many);
    assert!(code == 2 && err.contains("4194305 token ids, the limit is 4194304"), "{err}");
}

#[test]
fn an_unreachable_server_ends_with_3_and_says_the_next_step() {
    let server = nowhere();
    let commands: [&[&str]; 6] = [
        &["match", "--model", "m", "--tokens", "1"],
        &["explain", "--model", "m", "--tokens", "1"],
        &["workers"],
        &["register", "w", "--model", "m"],
        &["unregister", "w"],
        &["watch"],
    ];
    for command in commands {
        let (code, out, err) = run(&[command, &["--server", &server]].concat());
        assert_eq!((code, out.as_str()), (3, ""), "{command:?}: {err}");
        assert!(err.contains(&format!("is `kvindex serve` running at {server}?")), "{err}");
        assert!(err.contains("refused"), "{err}");
    }
}

#[test]
fn a_malformed_server_address_is_wrong_use() {
    for server in ["localhost:9590", "https://index:9590", ""] {
        let (code, _, err) = run(&["workers", "--server", server]);
        assert_eq!(code, 2, "{err}");
        assert!(err.contains("--server") && err.contains("http://127.0.0.1:9590"), "{err}");
    }
}

#[test]
fn what_the_server_refuses_ends_with_1_and_names_the_field() {
    let node = Node::start(&[]);
    let cases: [(&[&str], &str); 5] = [
        (&["register", "w", "--model", "m", "--engine", "trt"], "engine"),
        (&["register", "w", "--model", "m", "--hash-algorithm", "md5"], "hash_profile.algorithm"),
        (&["register", "w", "--model", "m", "--endpoint", "10.0.0.1"], "endpoint"),
        (&["match", "--model", "", "--tokens", "1"], "model"),
        (&["explain", "--model", "", "--tokens", "1"], "model"),
    ];
    for (command, field) in cases {
        let (code, out, err) = node.run(command);
        assert_eq!((code, out.as_str()), (1, ""), "{command:?}: {err}");
        assert!(err.contains("refused") && err.contains(field), "{command:?}: {err}");
    }
}
