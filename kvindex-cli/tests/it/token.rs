//! Tokens as an operator makes them and a caller uses them.

use serde_json::Value;

use crate::node::{Folder, Node, kvindex, run};

fn made(arguments: &[&str]) -> (String, String) {
    let (code, out, err) = run(&[&["token", "new", "--output", "json"], arguments].concat());
    assert_eq!((code, err.as_str()), (0, ""));
    let made: Value = serde_json::from_str(&out).unwrap();
    (made["token"].as_str().unwrap().into(), made["entry"].as_str().unwrap().into())
}

#[test]
fn a_fresh_token_lets_a_caller_in() {
    let folder = Folder::new("token");
    let (file, secret) = (folder.file("access.toml"), folder.file("secret"));
    let (token, entry) =
        made(&["--name", "ops", "--rights", "read,admin", "--tenants", "*", "--queries-per-s", "50"]);
    assert!(!entry.contains(&token) && entry.contains("queries_per_s = 50"), "{entry}");
    std::fs::write(&file, entry).unwrap();
    std::fs::write(&secret, format!("{token}\n")).unwrap();
    let node = Node::start(&["--access-file", &file]);
    let (code, _, err) = node.run(&["workers"]);
    assert!(code == 1 && err.contains("asks for a token") && err.contains("authorization"), "{code} {err}");
    node.ok(&["register", "w", "--model", "m", "--token-file", &secret]);
    assert!(node.ok(&["workers", "--token-file", &secret]).contains('w'));
    let by_variable =
        kvindex(&["workers", "--server", &node.server]).env("KVINDEX_TOKEN", &token).output().unwrap();
    assert!(by_variable.status.success(), "{by_variable:?}");
    let wrong =
        kvindex(&["workers", "--server", &node.server]).env("KVINDEX_TOKEN", "guess").output().unwrap();
    let err = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(
        wrong.status.code() == Some(1) && err.contains("not known here") && !err.contains("guess"),
        "{err}"
    );
    let nowhere = folder.file("no-such");
    let (code, _, err) = node.run(&["workers", "--token-file", &nowhere]);
    assert!(code == 2 && err.contains("--token-file"), "{code} {err}");
}

#[test]
fn a_person_sees_the_token_and_its_entry_and_mistakes_are_named() {
    let (code, out, _) = run(&["token", "new", "--name", "r", "--tenants", "a,b"]);
    assert!(code == 0 && out.contains("kvi_") && out.contains("tenants = [\"a\",\"b\"]"), "{out}");
    for (arguments, field) in [
        (["--tenants", "a", "--rights", "write"], "--rights: \"write\" is none of read, publish, admin"),
        (["--tenants", "a/b", "--rights", "read"], "--tenants"),
        (["--tenants", "a", "--expires", "soon"], "--expires"),
    ] {
        let (code, _, err) = run(&[&["token", "new", "--name", "x"][..], &arguments].concat());
        assert!(code == 2 && err.contains(field), "{code} {err}");
    }
}

#[test]
fn a_node_does_not_start_with_a_wrong_access_file() {
    let folder = Folder::new("token-wrong");
    let file = folder.file("access.toml");
    std::fs::write(&file, "[[tokens]]\nname = \"x\"\n").unwrap();
    let (code, _, err) = run(&["serve", "--listen", "127.0.0.1:0", "--access-file", &file]);
    assert!(code == 1 && err.contains("tokens[0].sha256"), "{code} {err}");
}
