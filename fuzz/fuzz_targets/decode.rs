//! Any bytes through the event decoder and the hashing after it: nothing panics, and nothing comes out that is
//! larger than what went in. Run with `cargo +nightly fuzz run decode`.
#![no_main]

use kvindex_core::{BlockHasher, EngineProfile};
use kvindex_server::ingest::decode::{blocks_of, decode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|payload: &[u8]| {
    if let Ok(decoded) = decode(payload) {
        assert!(blocks_of(&decoded.batch) <= payload.len());
        let changes = decoded.batch.seal(&EngineProfile::default(), &mut BlockHasher::new());
        assert_eq!(changes.len(), decoded.batch.events.len());
    }
});
