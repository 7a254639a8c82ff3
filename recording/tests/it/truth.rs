//! The truth files: every form of query and answer comes out as the recorder meant it.
//!
//! Expected numbers and checksums were computed with the recorder's own Python reader.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use flate2::Compression;
use flate2::write::GzEncoder;
use kvindex_recording::{Checkpoint, Query, Recording, Truth, TruthError};

use crate::case;

fn checkpoints(name: &str) -> Vec<Checkpoint> {
    Truth::open(&case(name)).unwrap().collect::<Result<_, _>>().unwrap()
}

/// A checksum over all prompts and all expected answers.
fn checksum(checkpoints: &[Checkpoint]) -> u64 {
    let step = |sum: u64, value: u64| sum.wrapping_mul(31).wrapping_add(value);
    let mut sum = 0;
    for query in checkpoints.iter().flat_map(|c| &c.queries) {
        let tokens: u64 = query.tokens.iter().map(|&t| u64::from(t)).sum();
        sum = step(sum, tokens + query.tokens.len() as u64);
        for answer in &query.engines {
            sum = step(sum, answer.expected_tokens());
        }
    }
    sum
}

fn lengths(query: &Query) -> Vec<(u32, usize)> {
    query.block_hashes.0.iter().map(|(&size, hashes)| (size, hashes.len())).collect()
}

#[test]
fn basic_has_tokens_and_integer_hashes() {
    let all = checkpoints("basic");
    assert_eq!((all.len(), checksum(&all)), (53, 438_443_733_843_014_070));
    let first = &all[0];
    assert_eq!((first.checkpoint, first.label.as_str(), first.pos), (0, "chat user 0 turn 0", 2));
    assert_eq!(first.next_seq, [2, 0]);
    let query = &first.queries[0];
    assert_eq!((query.tokens.len(), &query.tokens[..3]), (62, &[17614, 74609, 111_077][..]));
    let hashes = query.block_hashes_for(16).unwrap();
    assert_eq!((hashes.len(), hashes[0]), (3, 7_033_182_768_689_789_658));
    assert_eq!(query.block_hashes_for(32), None);
    assert_eq!(query.engines[0].raw_hit_tokens, Some(48));
    assert_eq!(query.engines[0].present, ["111"]);
    assert_eq!(query.engines[1].expected_tokens(), 0);
}

#[test]
fn basic_has_lora_salt_and_images() {
    let all = checkpoints("basic");
    let lora = all[20].queries[12].lora.as_ref().unwrap();
    assert_eq!((lora.name.as_str(), lora.id), ("sql-adapter", Some(1)));
    assert_eq!(lora.path.as_deref(), Some("/adapters/sql"));
    assert_eq!(all[24].queries[13].salt.as_deref(), Some("tenant-1"));
    let queries = || all.iter().flat_map(|c| &c.queries);
    let image = queries().find(|q| !q.mm.is_empty()).unwrap();
    assert!(image.mm[0].identifier.starts_with("img-"));
    assert!(image.mm[0].length > 0);
    assert_eq!(queries().filter(|q| q.salt.is_some()).count(), 48);
}

#[test]
fn bytes_cbor_folds_hex_hashes_to_their_last_eight_bytes() {
    let all = checkpoints("bytes-cbor");
    assert_eq!((all.len(), checksum(&all)), (53, 6_052_917_642_498_974_120));
    // 550ada45…1a2a | 0c1c92161fa7705a
    let hashes = all[0].queries[0].block_hashes_for(16).unwrap();
    assert_eq!((hashes.len(), hashes[0]), (3, 0x0c1c_9216_1fa7_705a));
}

#[test]
fn conv_a_regenerates_its_prompts() {
    let first = Truth::open(&case("conv-a")).unwrap().next().unwrap().unwrap();
    assert_eq!((first.pos, first.queries.len()), (49, 13));
    assert_eq!(first.next_seq, [7, 6, 3, 4, 9, 11, 2, 7]);
    let query = &first.queries[0];
    assert_eq!((query.tokens.len(), query.kind.as_deref()), (229, Some("recent")));
    assert_eq!(query.tokens[..3], [63897, 120, 75]);
    assert_eq!(query.tokens.iter().sum::<u32>(), 804_702);
    assert_eq!(
        query.block_hashes_for(16).unwrap()[..2],
        [9_171_252_762_058_965_540, 6_338_910_549_397_711_176]
    );
    let hits: Vec<u64> = query.engines.iter().map(|a| a.expected_tokens()).collect();
    assert_eq!(hits, [16, 16, 16, 16, 16, 16, 224, 16]);
}

#[test]
fn conv_a_is_read_whole() {
    let mut answers = 0;
    let mut all = Vec::new();
    for checkpoint in Truth::open(&case("conv-a")).unwrap() {
        let checkpoint = checkpoint.unwrap();
        answers += checkpoint.queries.iter().map(|q| q.engines.len()).sum::<usize>();
        all.push(checkpoint);
    }
    assert_eq!((all.len(), answers), (142, 15_688));
    assert_eq!(checksum(&all), 287_508_700_930_252_659);
}

#[test]
fn mixed_a_has_hashes_for_each_block_size() {
    let all = checkpoints("mixed-a");
    assert_eq!((all.len(), checksum(&all)), (30, 8_383_309_018_127_194_678));
    let query = &all[0].queries[0];
    assert_eq!(query.tokens.len(), 682);
    assert_eq!(lengths(query), [(16, 42), (32, 21), (64, 10)]);
    assert_eq!(query.block_hashes_for(32).unwrap()[0], 13_519_432_318_025_315_317);
    assert_eq!(query.block_hashes_for(128), None);
}

#[test]
fn hybrid_models_have_presence_for_each_group_at_the_hash_unit() {
    let header = Recording::open_header(&case("hybrid-blocksize")).unwrap();
    let engine = &header.engines[0];
    assert_eq!((engine.hash_block_size(), engine.scheduler_block_size()), (16, 32));
    let group = |kind, size, window| (Some(kind), size, window);
    let groups: Vec<_> =
        engine.groups.iter().map(|g| (g.event_kind(), g.block_size, g.sliding_window)).collect();
    assert_eq!(groups, [group("full_attention", 32, None), group("sliding_window", 16, Some(40))]);
    assert!(!header.hides_group_kinds());
    assert!(Recording::open_header(&case("hybrid-swa-v0.20.2")).unwrap().hides_group_kinds());
    assert!(!Recording::open_header(&case("basic-v0.20.2")).unwrap().hides_group_kinds());
    let mamba = checkpoints("hybrid-mamba");
    let query = &mamba[3].queries[0];
    assert_eq!(query.engines[0].present, ["1111111", "0000001"]);
    assert_eq!(query.block_hashes_for(16).map(<[u64]>::len), Some(7));
    assert_eq!(query.engines[0].expected_tokens(), 112);
}

#[test]
fn offload_cases_have_the_cpu_tier_and_its_chunk() {
    for (name, chunk) in [("offload-cpu", 1), ("offload-cpu-chunk4", 4), ("offload-cpu-legacy", 1)] {
        let header = Recording::open_header(&case(name)).unwrap();
        assert_eq!(header.offload_chunk(), Some(chunk), "{name}");
    }
    assert_eq!(Recording::open_header(&case("basic")).unwrap().offload_chunk(), None);
    let all = checkpoints("offload-cpu-chunk4");
    let answer = &all[3].queries[0].engines[0];
    assert_eq!((answer.present_cpu.as_deref(), answer.host_prefix()), (Some("1111000"), Some(4)));
    assert_eq!(checkpoints("basic")[0].queries[0].engines[0].host_prefix(), None);
}

#[test]
fn sglang_has_neither_hashes_nor_raw_hits() {
    let all = checkpoints("sglang-v0.5.23");
    assert_eq!((all.len(), checksum(&all)), (49, 1_274_373_299_889_072_632));
    assert_eq!((all[0].label.as_str(), all[0].queries.len()), ("start", 0));
    let query = &all[1].queries[0];
    assert_eq!(lengths(query), []);
    assert_eq!(query.engines[0].raw_hit_tokens, None);
    assert_eq!(query.engines[0].expected_tokens(), 96);
    assert_eq!(all[18].queries[10].extra_key.as_deref(), Some("lora-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"));
}

/// The messages of `basic` beside a truth file of this content.
struct Made(PathBuf);

impl Made {
    fn new(name: &str, truth: &[u8]) -> Self {
        let dir = std::env::temp_dir().join(format!("kvindex-truth-{}-{name}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        fs::copy(case("basic").with_extension("kvrec.gz"), dir.join("made.kvrec.gz")).unwrap();
        fs::write(dir.join("made.truth.jsonl.gz"), truth).unwrap();
        Self(dir)
    }

    fn error(&self) -> String {
        let mut truth = Truth::open(&self.0.join("made")).unwrap();
        let error = truth.find_map(Result::err).unwrap();
        assert!(truth.next().is_none(), "the stream ends after an error");
        error.to_string()
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn bad_lines_are_named() {
    let answers = r#"[{"hit_tokens":0},{"hit_tokens":0}]"#;
    let line = |query: &str| format!(r#"{{"checkpoint":0,"pos":1,"next_seq":[1,0],"queries":[{query}]}}"#);
    for (name, query, want) in [
        ("no-prompt", format!(r#"{{"engines":{answers}}}"#), "neither tokens nor prompt"),
        ("no-seed", format!(r#"{{"prompt":{{"h":[1],"n":3}},"engines":{answers}}}"#), "no seed and chunk"),
        (
            "negative",
            format!(r#"{{"tokens":[-1],"engines":{answers}}}"#),
            "invalid value: integer `-1`, expected u32",
        ),
        (
            "hex",
            format!(r#"{{"tokens":[1],"block_hashes":["zz"],"engines":{answers}}}"#),
            "query 0: block_hashes: \"zz\" is not 8 or more bytes",
        ),
        (
            "one-answer",
            r#"{"tokens":[1],"engines":[{"hit_tokens":0}]}"#.into(),
            "query 0 has 1 answers, the recording has 2 engines",
        ),
    ] {
        let message = Made::new(name, &gzip(&line(&query))).error();
        assert!(message.contains("line 1") && message.contains(want), "{message}");
    }
}

#[test]
fn a_missing_or_truncated_truth_is_an_error() {
    let real = fs::read(case("basic").with_extension("truth.jsonl.gz")).unwrap();
    let made = Made::new("cut", &real[..real.len() / 2]);
    assert!(made.error().contains("truncated"));
    fs::remove_file(made.0.join("made.truth.jsonl.gz")).unwrap();
    let error = Truth::open(&made.0.join("made")).unwrap_err();
    assert!(matches!(error, TruthError::Open { .. }));
    assert!(matches!(Truth::open(&case("no-such-case")).unwrap_err(), TruthError::Recording(_)));
}
