//! Any bytes as the body of another indexer's call, in JSON or MessagePack: what is read is no more than was sent and reads the same when it is written again, and a refusal is the caller's mistake. Run with `cargo +nightly fuzz run dialect`.
#![no_main]

use kvindex_server::inputs;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let _ = inputs::dialect_body(input);
});
