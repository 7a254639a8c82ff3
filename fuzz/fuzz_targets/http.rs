//! Any bytes as an HTTP body of each call: nothing panics, from JSON to the question, worker or events. Run with `cargo +nightly fuzz run http`.
#![no_main]

use kvindex_server::inputs;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let _ = inputs::http_body(input);
});
