//! Any bytes as a gRPC message of each call: nothing panics, from protobuf to the question, worker or events. Run with `cargo +nightly fuzz run grpc`.
#![no_main]

use kvindex_server::inputs;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let _ = inputs::grpc_message(input);
});
