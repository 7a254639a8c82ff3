//! Flags of `register` for how an engine is said to hash blocks, which the node checks against its events.

use clap::Args;
use kvindex_client::v1;

#[derive(Debug, Args)]
pub(crate) struct HashArgs {
    /// How the engine hashes blocks, to be checked against its events: sha256, sha256_cbor, xxhash, xxhash_cbor,
    /// sglang or sglang_dynamo [default: not checked]
    #[arg(long, value_name = "ALGORITHM")]
    hash_algorithm: Option<String>,
    /// The engine's PYTHONHASHSEED [default: the fixed seed of vLLM 0.29 and later]
    #[arg(long, value_name = "SEED", requires = "hash_algorithm", conflicts_with = "none_hash")]
    hash_seed: Option<String>,
    /// vLLM's hash before the first block in hex, where the seed is not known
    #[arg(long, value_name = "HEX", requires = "hash_algorithm")]
    none_hash: Option<String>,
}

impl HashArgs {
    /// The profile, if any flag names one.
    pub(crate) fn profile(self) -> Option<v1::HashProfile> {
        let Self { hash_algorithm, hash_seed, none_hash } = self;
        hash_algorithm.map(|algorithm| v1::HashProfile { algorithm, hash_seed, none_hash })
    }
}
