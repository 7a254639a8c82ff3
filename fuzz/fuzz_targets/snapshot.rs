//! Any bytes as an index's snapshot whose checksum fits: nothing panics, and what is restored is whole. Run with `cargo +nightly fuzz run snapshot`.
#![no_main]

use kvindex_server::inputs;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let _ = inputs::snapshot(input);
});
