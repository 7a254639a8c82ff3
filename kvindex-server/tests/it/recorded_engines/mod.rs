//! Recorded engines as truth: every checkpoint's every answer of every case, through the real decoder and the
//! real index, by tokens and by engine block hashes, on every tier. An answer that differs from the engine's own
//! must say so, and no case may be worse than the reference model's.

mod ask;
mod judge;
mod page;
mod replay;
mod run;
mod score;

use std::path::{Path, PathBuf};

use kvindex_core::HiddenIdentity;

use ask::View;
use judge::check;
use page::Row;
use replay::Setting;
use run::replay;

fn cases_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../recording/cases")
}

macro_rules! cases {
    ($($name:ident: $case:literal $tokens:tt $hashes:tt;)*) => {
        const TESTED: &[&str] = &[$($case),*];
        $(#[test] fn $name() { check($case, $tokens, $hashes); })*
    };
}

// Differences as (too high, too low), by tokens and by engine hashes.
cases! {
    basic: "basic" (2, 0) (0, 0);
    basic_v0_11_0: "basic-v0.11.0" (68, 0) (0, 0);
    basic_v0_20_2: "basic-v0.20.2" (0, 0) (0, 0);
    basic_pyhashseed0: "basic-pyhashseed0" (2, 0) (0, 0);
    block64: "block64" (1, 0) (0, 0);
    bytes_cbor: "bytes-cbor" (2, 0) (0, 0);
    xxhash_cbor: "xxhash-cbor" (4, 0) (0, 0);
    dp: "dp" (0, 0) (0, 0);
    dp_v0_20_2: "dp-v0.20.2" (0, 0) (0, 0);
    dup: "dup" (0, 0) (0, 0);
    dup_v0_11_0: "dup-v0.11.0" (0, 0) (0, 0);
    dup_v0_20_2: "dup-v0.20.2" (0, 0) (0, 0);
    restart: "restart" (0, 0) (0, 0);
    restart_v0_20_2: "restart-v0.20.2" (0, 0) (0, 0);
    conv_a: "conv-a" (0, 0) (0, 0);
    synth_a: "synth-a" (0, 0) (0, 0);
    mixed_a: "mixed-a" (0, 0) (0, 0);
    hot_a: "hot-a" (0, 0) (0, 0);
    full_report: "full-report" (0, 0) (0, 0);
    hybrid_swa: "hybrid-swa" (0, 0) (0, 0);
    hybrid_swa_v0_20_2: "hybrid-swa-v0.20.2" (0, 0) (0, 0);
    hybrid_dense: "hybrid-dense" (0, 0) (0, 0);
    hybrid_blocksize: "hybrid-blocksize" (0, 0) (0, 0);
    hybrid_mamba: "hybrid-mamba" (0, 0) (0, 0);
    hybrid_report: "hybrid-report" (0, 0) (0, 0);
    lookahead1: "lookahead1" (0, 0) (0, 0);
    lookahead3: "lookahead3" (0, 0) (0, 0);
    offload_cpu: "offload-cpu" (0, 0) (0, 0);
    offload_cpu_chunk4: "offload-cpu-chunk4" (0, 0) (0, 0);
    offload_cpu_legacy: "offload-cpu-legacy" (0, 0) (0, 0);
    sglang_v0_5_4: "sglang-v0.5.4" (65, 621) (0, 0);
    sglang_v0_5_14: "sglang-v0.5.14" (65, 0) (0, 0);
    sglang_v0_5_23: "sglang-v0.5.23" (39, 0) (0, 0);
    dynamo_sglang_v0_5_23: "dynamo-sglang-v0.5.23" (2, 0) (0, 0);
}

#[test]
fn every_recorded_case_has_a_test_and_a_row() {
    let files = std::fs::read_dir(cases_dir()).unwrap().map(|file| file.unwrap().file_name());
    let mut recorded: Vec<String> =
        files.filter_map(|file| Some(file.to_str()?.strip_suffix(".kvrec.gz")?.to_owned())).collect();
    recorded.sort();
    let mut tested = TESTED.to_vec();
    tested.sort_unstable();
    assert_eq!(tested, recorded);
    page::check_rows_are_of(&tested);
}

/// An operator who knows that no request carries what the events hide gets answers without that mark; what is
/// answered stays the same.
#[test]
fn unused_hidden_identity_silences_its_mark() {
    let case = "dynamo-sglang-v0.5.23";
    let setting = Setting { hidden_identity: HiddenIdentity::Unused, ..Setting::default() };
    let (marked, silenced) = (&replay(case, Setting::default())[0].1, &replay(case, setting)[0].1);
    assert!(marked.tokens.marked > 0, "{}", marked.tokens.text());
    assert_eq!(silenced.tokens.marked, 0, "{}", silenced.tokens.text());
    assert_eq!((silenced.tokens.high, silenced.tokens.low), (marked.tokens.high, marked.tokens.low));
}

/// Events on an offload tier come in whole chunks, so their size need not be registered: the answers are the
/// same. Those that a guess too large would have cut short say so.
#[test]
fn an_offload_chunk_is_learned_as_well_as_told() {
    let setting = Setting { learn_chunk: true, ..Setting::default() };
    let (told, learned) =
        (replay("offload-cpu-chunk4", Setting::default()), replay("offload-cpu-chunk4", setting));
    let numbers = |rows: &[(View, Row)]| -> Vec<(usize, usize, usize)> {
        rows.iter().map(|(_, row)| (row.tokens.high, row.tokens.low, row.tokens.wrong)).collect()
    };
    assert_eq!(numbers(&learned), numbers(&told));
    assert_eq!(told.len(), 3);
    let marked =
        |rows: &[(View, Row)]| rows.iter().any(|(_, row)| row.tokens.marks.contains("guessed_chunk"));
    assert!(marked(&learned) && !marked(&told));
}
