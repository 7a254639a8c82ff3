//! The container: what was written comes back, and every way a file can be wrong has its error.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use kvindex_recording::{EngineKind, Record, Recording, RecordingError, Version};

use crate::{case, recording};

const HEADER: &str = r#"{"case":"made","engine":"vllm","version":"0.33.0rc1","unheard_of":[1],
    "engines":[{"index":0,"name":"a","block_size":16,"none_hash":"00ff","also_unheard_of":{}}]}"#;

/// A directory of this test process, gone with the value.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("kvindex-recording-{}-{name}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    /// Writes `bytes` as the messages of a case.
    fn case(&self, bytes: &[u8]) -> PathBuf {
        fs::write(self.0.join("made.kvrec.gz"), bytes).unwrap();
        self.0.join("made")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn head(json: &str) -> Vec<u8> {
    let mut out = b"KVREC1\n".to_vec();
    out.extend((json.len() as u32).to_be_bytes());
    out.extend(json.as_bytes());
    out
}

fn put(out: &mut Vec<u8>, record: &Record) {
    out.extend(record.engine.to_be_bytes());
    out.extend(record.seq.to_be_bytes());
    out.extend(record.t_us.to_be_bytes());
    out.extend((record.topic.len() as u16).to_be_bytes());
    out.extend((record.payload.len() as u32).to_be_bytes());
    out.extend(&record.topic);
    out.extend(&record.payload);
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn records() -> Vec<Record> {
    vec![
        Record { engine: 0, seq: 0, t_us: 1, topic: b"kv".to_vec(), payload: vec![1, 2, 3] },
        Record { engine: 0, seq: u64::MAX, t_us: 1 << 40, topic: vec![], payload: vec![] },
    ]
}

fn whole() -> Vec<u8> {
    let mut out = head(HEADER);
    records().iter().for_each(|record| put(&mut out, record));
    out
}

fn error_of(name: &str, bytes: &[u8]) -> String {
    let scratch = Scratch::new(name);
    let error = Recording::open(&scratch.case(bytes)).unwrap_err();
    error.to_string()
}

#[test]
fn what_was_written_comes_back() {
    let scratch = Scratch::new("round-trip");
    let read = Recording::open(&scratch.case(&gzip(&whole()))).unwrap();
    assert_eq!(read.records, records());
    assert_eq!(read.header.case, "made");
    assert_eq!(read.header.engine, EngineKind::Vllm);
    assert_eq!(read.header.version, Version::parse("0.33").unwrap());
    let engine = &read.header.engines[0];
    assert_eq!(engine.none_hash.as_deref(), Some(&[0, 255][..]));
    assert_eq!((engine.hash_block_size(), engine.topic.as_str()), (16, ""));
    assert!(engine.groups.is_empty());
}

#[test]
fn a_real_recording_is_read_whole() {
    let basic = recording("basic");
    assert_eq!(basic.records.len(), 112);
    assert_eq!(basic.records.iter().map(|r| r.payload.len()).sum::<usize>(), 58_811);
    let first = &basic.records[0];
    assert_eq!((first.engine, first.seq, first.t_us), (0, 0, 0));
    assert_eq!((first.topic.as_slice(), first.payload.len()), (&b"kv-events"[..], 398));
    assert_eq!(basic.header.version.to_string(), "0.33.0");
    assert_eq!(basic.header.engines[0].num_blocks, Some(64));
    assert_eq!(basic.header.engines[0].groups[0].kind, "FullAttentionSpec");

    let sglang = recording("sglang-v0.5.23");
    let pages: Vec<u32> = sglang.header.engines.iter().map(|e| e.block_size).collect();
    assert_eq!(pages, [16, 1, 64]);
    assert_eq!(sglang.header.engine, EngineKind::Sglang);
    assert!(sglang.header.version < Version::parse("0.5.24").unwrap());
    let dynamo = Recording::open_header(&case("dynamo-sglang-v0.5.23")).unwrap();
    assert!(dynamo.engines[0].dynamo_format);
    assert_eq!(dynamo.engines[0].lora_names.len(), 1);
}

#[test]
fn every_bundled_case_opens() {
    let files = fs::read_dir(case("")).unwrap();
    let mut opened = 0;
    for file in files {
        let name = file.unwrap().file_name().into_string().unwrap();
        if let Some(name) = name.strip_suffix(".kvrec.gz") {
            let read = Recording::open(&case(name)).unwrap();
            assert_eq!(read.header.case, name);
            assert!(!read.records.is_empty());
            opened += 1;
        }
    }
    assert!(opened > 15, "{opened} cases");
}

#[test]
fn a_missing_file_is_named() {
    let error = Recording::open(Path::new("/nowhere/basic-v0.11.0")).unwrap_err();
    assert!(matches!(error, RecordingError::Open { .. }));
    assert!(error.to_string().contains("/nowhere/basic-v0.11.0.kvrec.gz"), "{error}");
}

#[test]
fn another_kind_of_file_is_refused() {
    for (name, bytes) in [("text", b"not gzip at all".to_vec()), ("other-gzip", gzip(b"KVREC2\n and so on"))]
    {
        assert!(error_of(name, &bytes).contains("does not start with KVREC1"));
    }
}

#[test]
fn a_cut_anywhere_is_truncation_or_a_shorter_recording() {
    let bytes = whole();
    let mut second = Vec::new();
    put(&mut second, &records()[1]);
    // Only between records may a file end.
    let complete = [head(HEADER).len(), bytes.len() - second.len(), bytes.len()];
    for end in 0..bytes.len() {
        let scratch = Scratch::new("cut");
        let read = Recording::open(&scratch.case(&gzip(&bytes[..end])));
        match read {
            Ok(_) => assert!(complete.contains(&end), "cut at {end}"),
            Err(RecordingError::Truncated { .. }) => assert!(!complete.contains(&end)),
            Err(other) => panic!("cut at {end}: {other}"),
        }
    }
}

#[test]
fn a_cut_gzip_stream_is_truncation() {
    let real = fs::read(case("basic").with_extension("kvrec.gz")).unwrap();
    let message = error_of("cut-gzip", &real[..real.len() / 2]);
    assert!(message.contains("truncated"), "{message}");
    // Without the gzip trailer all records are there, but nothing vouches for them.
    let message = error_of("cut-trailer", &real[..real.len() - 4]);
    assert!(message.contains("truncated"), "{message}");
}

#[test]
fn a_flipped_bit_is_found() {
    let mut real = fs::read(case("basic").with_extension("kvrec.gz")).unwrap();
    let middle = real.len() / 2;
    real[middle] ^= 0x10;
    let scratch = Scratch::new("flip");
    assert!(Recording::open(&scratch.case(&real)).is_err());
}

#[test]
fn wild_lengths_are_refused_before_they_are_allocated() {
    let mut header = b"KVREC1\n".to_vec();
    header.extend(u32::MAX.to_be_bytes());
    let message = error_of("wild-header", &gzip(&header));
    assert!(message.contains("header length is 4294967295, the limit is"), "{message}");

    let mut record = head(HEADER);
    put(&mut record, &records()[1]);
    let payload_length = record.len() - 4;
    record[payload_length..].copy_from_slice(&u32::MAX.to_be_bytes());
    let message = error_of("wild-payload", &gzip(&record));
    assert!(message.contains("payload length of record 0 is 4294967295"), "{message}");
}

#[test]
fn contradictions_are_named() {
    let mut stranger = head(HEADER);
    put(&mut stranger, &Record { engine: 7, ..records()[0].clone() });
    let message = error_of("stranger", &gzip(&stranger));
    assert!(message.contains("record 0 is of engine 7"), "{message}");

    for (name, from, to, want) in [
        ("engine", "\"vllm\"", "\"trt\"", "unknown variant `trt`"),
        ("version", "0.33.0rc1", "latest", "does not start with MAJOR.MINOR"),
        ("block", "\"block_size\":16", "\"block_size\":0", "block size 0"),
        ("index", "\"index\":0", "\"index\":3", "place 0 has index 3"),
        ("hex", "00ff", "00+f", "not hexadecimal"),
    ] {
        let message = error_of(name, &gzip(&head(&HEADER.replace(from, to))));
        assert!(message.contains(want), "{message}");
    }
}

#[test]
fn versions_order_by_number() {
    let version = |text| Version::parse(text).unwrap();
    assert!(version("0.5.4") < version("0.5.14"));
    assert!(version("0.11.0") < version("0.20.2.post1"));
    assert_eq!(Version::parse("main"), None);
    assert_eq!(Version::parse("1"), None);
}
