//! What an access file may say.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::config::Config;
use futures_util::FutureExt;

const DIGEST: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

fn token(fields: &str) -> String {
    let base = [
        ("name", "\"t\""),
        ("sha256", &format!("{DIGEST:?}")),
        ("rights", "[\"read\"]"),
        ("tenants", "[\"*\"]"),
    ];
    let given = |key: &str| fields.lines().any(|line| line.starts_with(&format!("{key} =")));
    let rest = base.iter().filter(|(key, _)| !given(key)).map(|(key, value)| format!("{key} = {value}\n"));
    format!("[[tokens]]\n{}{fields}\n", rest.collect::<String>())
}

#[test]
fn a_file_in_order_is_taken() {
    for text in [
        String::new(),
        token(""),
        token("queries_per_s = 5\nburst = 50\nexpires = \"2030-01-31T00:00:00Z\""),
        token("tenants = [\"a\", \"b\"]\nrights = [\"read\", \"publish\", \"admin\"]"),
        "[[tenants]]\nname = \"a\"\nmax_workers = 3\nmax_streams = 4\nqueries_per_s = 5\n".into(),
        "[[tenants]]\nname = \"a\"\nengines = [\"10.1.0.0/16\", \"*.a.svc\", \"*\"]\n".into(),
    ] {
        check_access(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
    }
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    let twice = |name: &str, digest: &str| {
        format!("{}{}", token(""), token(&format!("name = {name:?}\nsha256 = {digest:?}")))
    };
    let other = DIGEST.replace('b', "c");
    let cases = [
        (token("sha256 = \"abc\""), "tokens[0].sha256: must be the 64 hex digits"),
        (token("rights = []"), "tokens[0].rights: is required"),
        (token("rights = [\"write\"]"), "tokens[0].rights: \"write\" is none of read, publish, admin"),
        (token("tenants = []"), "tokens[0].tenants: is required"),
        (token("tenants = [\"a\", \"*\"]"), "tokens[0].tenants: \"*\" stands alone"),
        (token("tenants = [\"a/b\"]"), "holds a slash"),
        (token("name = \"\""), "tokens[0].name: name is empty"),
        (token("burst = 3"), "tokens[0].burst: needs queries_per_s"),
        (token("queries_per_s = 0"), "tokens[0].queries_per_s: is 0, must be from 1"),
        (token("expires = \"tomorrow\""), "tokens[0].expires: \"tomorrow\" must be a moment"),
        (token("colour = 1"), "colour"),
        (twice("t", &other), "tokens[1].name: is that of token \"t\" too"),
        (twice("u", DIGEST), "tokens[1].sha256: is that of token \"t\" too"),
        (
            "[[tenants]]\nname = \"a\"\n[[tenants]]\nname = \"a\"\n".into(),
            "tenants[1].name: \"a\" stands there twice",
        ),
        (
            "[[tenants]]\nname = \"a\"\nengines = [\"10.1.2.3/16\"]\n".into(),
            "tenants[0].engines: \"10.1.2.3/16\" has bits set behind the first 16",
        ),
        (
            "[[tenants]]\nname = \"a\"\nmax_workers = 0\n".into(),
            "tenants[0].max_workers: is 0, must be from 1",
        ),
        ("tokens = 3".into(), "tokens"),
        ("nonsense".into(), "access_file"),
    ];
    for (text, expected) in cases {
        let error = check_access(&text).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected} not in {error}");
    }
}

#[test]
fn a_secret_in_the_place_of_its_digest_is_not_told_on() {
    let new = NewToken::draw().unwrap();
    let error = check_access(&token(&format!("sha256 = {:?}", new.secret()))).unwrap_err().to_string();
    assert!(!error.contains(new.secret()), "{error}");
}

#[test]
fn limits_that_stay_keep_what_is_used_up() {
    let digest = Digest::parse(DIGEST).unwrap();
    let limited = token("queries_per_s = 1\nburst = 2\ntenants = [\"a\"]");
    let tenants = "[[tenants]]\nname = \"a\"\nmax_streams = 1\n";
    let text = format!("{limited}{tenants}");
    let before = Table::parse(&text, None).unwrap();
    let caller = Caller::of(before.find(&digest).unwrap());
    caller.charge(2).unwrap();
    let open = caller.open_stream().unwrap();
    let after = Table::parse(&text, Some(&before)).unwrap();
    let again = Caller::of(after.find(&digest).unwrap());
    assert!(again.charge(1).is_err());
    assert_eq!(again.open_stream().unwrap_err(), ("a".to_owned(), 1));
    drop(open);
    assert!(again.open_stream().is_ok());
    let other_rate = text.replace("burst = 2", "burst = 3");
    let changed = Table::parse(&other_rate, Some(&after)).unwrap();
    assert!(Caller::of(changed.find(&digest).unwrap()).charge(3).is_ok(), "another rate begins anew");
}

#[test]
fn names_of_workers_are_a_part_of_the_names_for_each_tenant() {
    let table = Table::parse(&token("tenants = [\"a\", \"a.b\"]"), None).unwrap();
    let caller = Caller::of(table.find(&Digest::parse(DIGEST).unwrap()).unwrap());
    assert!(caller.may_name("a/w", "a").is_ok() && caller.may_name("a.b/w/0", "a.b").is_ok());
    for (worker, tenant) in
        [("w", "a"), ("a", "a"), ("a/", "a"), ("a.b/w", "a"), ("ab/w", "a"), ("A/w", "a"), ("/w", "a")]
    {
        assert!(caller.may_name(worker, tenant).is_err(), "{worker} of {tenant}");
    }
    assert!(Caller::anyone().may_name("w", "a").is_ok());
}

/// Found by a review: a tenant that got limits, or lost them, began to count its open streams anew.
#[test]
fn open_streams_are_counted_on_when_a_tenant_gets_or_loses_its_limits() {
    let limited = format!("[[tenants]]\nname = \"a\"\nmax_streams = 1\n{}", token("tenants = [\"a\"]"));
    let unlimited = token("tenants = [\"a\"]");
    let caller = |table: &Table| Caller::of(table.find(&Digest::parse(DIGEST).unwrap()).unwrap());
    let first = Table::parse(&unlimited, None).unwrap();
    let open = caller(&first).open_stream().unwrap();
    let second = Table::parse(&limited, Some(&first)).unwrap();
    assert!(caller(&second).open_stream().is_err(), "the one that is open counts");
    let third = Table::parse(&unlimited, Some(&second)).unwrap();
    let fourth = Table::parse(&limited, Some(&third)).unwrap();
    assert!(caller(&fourth).open_stream().is_err(), "still");
    drop(open);
    caller(&fourth).open_stream().unwrap();
}

/// Found by a review: a stream whose next question is always there never polls a new sleep a second time.
#[tokio::test]
async fn a_token_that_has_expired_is_told_of_at_the_first_look() {
    let table = Table::parse(&token("expires = \"2020-01-31T00:00:00Z\""), None).unwrap();
    let caller = Caller::of(table.find(&Digest::parse(DIGEST).unwrap()).unwrap());
    let access = Access::open(&Config::defaults().access, AccessMetrics::default()).unwrap();
    let mut seen = access.changes();
    assert_eq!(access.changed(&caller, &mut seen).now_or_never(), Some(()));
}
