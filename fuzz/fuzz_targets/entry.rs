//! Any bytes as a log entry: nothing panics, what is read can be written and reads the same, and it is in proportion
//! to the bytes. Run with `cargo +nightly fuzz run entry`.
#![no_main]

use kvindex_server::inputs;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let _ = inputs::log_entry(input);
});
