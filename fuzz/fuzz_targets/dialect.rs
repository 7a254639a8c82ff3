//! Any bytes as the body of another indexer's call, in JSON or MessagePack: nothing panics, and what is kept is bounded. Run with `cargo +nightly fuzz run dialect`.
#![no_main]

use kvindex_server::inputs;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let _ = inputs::dialect_body(input);
});
