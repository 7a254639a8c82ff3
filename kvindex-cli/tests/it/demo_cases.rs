//! `kvindex demo` on recordings: what it says, and that a wrong answer of an engine is found out.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use serde_json::Value;

use crate::node::{Folder, run};

pub(crate) fn case(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../recording/cases").join(name)
}

fn demo(case: &Path) -> (i32, String) {
    let (code, out, err) = run(&["demo", "--recording", case.to_str().unwrap()]);
    assert_eq!(err, "", "{out}");
    (code, out)
}

fn last_line(out: &str) -> &str {
    out.lines().last().unwrap()
}

#[test]
fn the_bundled_recording_comes_out_equal() {
    let (code, out, err) = run(&["demo"]);
    assert_eq!((code, last_line(&out), err.as_str()), (0, "7408 of 7408 equal", ""));
    assert!(out.contains("engine's own answer") && out.contains("live"), "{out}");
}

/// Cases of which the wire leaves something open, with what the demo must say of them: the last line, and each
/// doubt that marks answers which differ. All other cases come out equal.
const OPEN: [(&str, &str, &[&str]); 13] = [
    ("basic", "3878 of 3880 equal, 2 undecidable on the wire", &["hidden_identity, 2 answers"]),
    ("basic-pyhashseed0", "3878 of 3880 equal, 2 undecidable on the wire", &["hidden_identity, 2 answers"]),
    ("basic-v0.11.0", "3412 of 3480 equal, 68 undecidable on the wire", &["hidden_identity, 68 answers"]),
    ("block64", "3639 of 3640 equal, 1 undecidable on the wire", &["hidden_identity, 1 answers"]),
    ("bytes-cbor", "3878 of 3880 equal, 2 undecidable on the wire", &["hidden_identity, 2 answers"]),
    ("dynamo-sglang-v0.5.23", "646 of 648 equal, 2 undecidable on the wire", &["hidden_identity, 2 answers"]),
    ("offload-cpu", "454 of 468 equal, 14 undecidable on the wire", &["silent_clear, 14 answers"]),
    ("offload-cpu-chunk4", "454 of 468 equal, 14 undecidable on the wire", &["silent_clear, 14 answers"]),
    ("offload-cpu-legacy", "454 of 468 equal, 14 undecidable on the wire", &["silent_clear, 14 answers"]),
    ("sglang-v0.5.14", "1987 of 2052 equal, 65 undecidable on the wire", &["hidden_identity, 65 answers"]),
    ("sglang-v0.5.23", "2337 of 2376 equal, 39 undecidable on the wire", &["hidden_identity, 39 answers"]),
    (
        "sglang-v0.5.4",
        "1366 of 2052 equal, 686 undecidable on the wire",
        &["content_hashes, 686 answers", "hidden_identity, 65 answers"],
    ),
    ("xxhash-cbor", "3876 of 3880 equal, 4 undecidable on the wire", &["hidden_identity, 4 answers"]),
];

#[test]
fn every_recording_comes_out_equal_as_far_as_the_wire_allows() {
    let files = std::fs::read_dir(case("")).unwrap().map(|file| file.unwrap().file_name());
    let names = files.filter_map(|file| Some(file.to_str()?.strip_suffix(".kvrec.gz")?.to_owned()));
    let mut open = 0;
    for name in names {
        let (code, out) = demo(&case(&name));
        assert_eq!(code, 0, "{name}: {out}");
        let Some((_, verdict, doubts)) = OPEN.iter().find(|(of, ..)| *of == name) else {
            assert!(last_line(&out).ends_with(" equal"), "{name}: {out}");
            continue;
        };
        open += 1;
        assert_eq!(last_line(&out), *verdict, "{name}: {out}");
        for doubt in *doubts {
            assert!(out.lines().any(|line| line.trim_start().starts_with(doubt)), "{name}: {out}");
        }
    }
    assert_eq!(open, OPEN.len());
}

/// The case `name` with one engine's answer of the first checkpoint that has one changed by a block.
fn tampered(name: &str, folder: &Folder) -> PathBuf {
    let from = case(name);
    let file = |case: &Path, suffix: &str| format!("{}{suffix}", case.display());
    let to = PathBuf::from(folder.file(name));
    std::fs::copy(file(&from, ".kvrec.gz"), file(&to, ".kvrec.gz")).unwrap();
    let mut text = String::new();
    let truth = std::fs::File::open(file(&from, ".truth.jsonl.gz")).unwrap();
    MultiGzDecoder::new(truth).read_to_string(&mut text).unwrap();
    let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let queries = lines.iter_mut().flat_map(|line| line["queries"].as_array_mut().unwrap());
    let mut answers = queries.flat_map(|query| query["engines"].as_array_mut().unwrap());
    let answer = answers.find(|answer| answer["raw_hit_tokens"].as_u64() > Some(16)).unwrap();
    let hit = answer["raw_hit_tokens"].as_u64().unwrap();
    answer["raw_hit_tokens"] = (hit - 16).into();
    let mut gzip =
        GzEncoder::new(std::fs::File::create(file(&to, ".truth.jsonl.gz")).unwrap(), Compression::fast());
    for line in &lines {
        writeln!(gzip, "{line}").unwrap();
    }
    gzip.finish().unwrap();
    to
}

#[test]
fn one_answer_that_differs_fails() {
    let folder = Folder::new("tampered");
    let (code, out) = demo(&tampered("dp", &folder));
    const DP: &str = "466 of 468 equal, 2 wrong, 2 more than the reference model's";
    // By tokens and by hashes the same answer is asked for.
    assert_eq!((code, last_line(&out)), (1, DP), "{out}");
    assert!(out.contains("the engine holds") && out.contains("the node says"), "{out}");
    // By hashes the reference model has no difference, by tokens only the two that the wire leaves open.
    let (code, out) = demo(&tampered("basic", &folder));
    let summary = "3876 of 3880 equal, 2 wrong, 2 undecidable on the wire, 2 more than the reference model's";
    assert_eq!((code, last_line(&out)), (1, summary), "{out}");
}

#[test]
fn programs_get_json() {
    let path = case("dp.kvrec.gz");
    let (code, out, err) = run(&["demo", "--recording", path.to_str().unwrap(), "--output", "json"]);
    assert_eq!((code, err.as_str()), (0, ""));
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(answer["summary"], "468 of 468 equal");
    let count = serde_json::json!({"answers": 234, "too_high": 0, "too_low": 0, "marked": 0, "wrong": 0});
    assert_eq!(answer["by_tokens"], count);
    assert_eq!(
        (&answer["equal"], &answer["wrong"], &answer["checkpoints"]),
        (&468.into(), &0.into(), &12.into())
    );
    assert_eq!(answer["samples"][0]["workers"].as_array().unwrap().len(), 3);
    assert_eq!(answer["doubted"], serde_json::json!([]));
}

#[test]
fn programs_learn_what_the_wire_cannot_decide() {
    let path = case("offload-cpu");
    let (code, out, _) = run(&["demo", "--recording", path.to_str().unwrap(), "--output", "json"]);
    assert_eq!(code, 0, "{out}");
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(answer["host_by_hashes"]["answers"], 156);
    assert_eq!(
        (&answer["host_by_hashes"]["too_high"], &answer["host_by_hashes"]["wrong"]),
        (&14.into(), &0.into())
    );
    assert_eq!((&answer["by_hashes"]["too_high"], &answer["undecidable"]), (&0.into(), &14.into()));
    let doubted = &answer["doubted"][0];
    assert_eq!((&doubted["doubt"], &doubted["answers"]), (&"silent_clear".into(), &14.into()));
    assert_eq!(doubted["first"][0]["doubts"], serde_json::json!(["silent_clear"]));
    assert_eq!(doubted["first"].as_array().unwrap().len(), 3);
}

#[test]
fn hybrid_models_are_asked_by_their_hash_unit() {
    let path = case("hybrid-blocksize");
    let (code, out, _) = run(&["demo", "--recording", path.to_str().unwrap(), "--output", "json"]);
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &answer["summary"]), (0, &"688 of 688 equal".into()));
    assert_eq!(
        (&answer["by_tokens"]["answers"], &answer["by_hashes"]["answers"]),
        (&344.into(), &344.into())
    );
    // Blocks are those of the hash unit of 16, not of the group with 32.
    let held = &answer["samples"][0]["workers"][0];
    let number = |key: &str| held[key].as_u64().unwrap();
    assert_eq!(number("matched_tokens"), number("matched_blocks") * 16, "{held}");
    assert!(number("matched_tokens") > 0, "{held}");
}

#[test]
fn what_cannot_be_played_is_said() {
    let (code, out, err) = run(&["demo", "--recording", "no/such/case"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("no/such/case.kvrec.gz"), "{err}");
    // A port that is taken.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, _, err) = run(&["demo", "--listen", &address]);
    assert!(code == 1 && err.contains(&address), "{err}");
}
