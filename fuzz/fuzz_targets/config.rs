//! Any text as a configuration or an access file: nothing panics, and what is taken prints as what is taken again. Run with `cargo +nightly fuzz run config`.
#![no_main]

use kvindex_server::inputs;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let _ = inputs::configuration(input);
});
