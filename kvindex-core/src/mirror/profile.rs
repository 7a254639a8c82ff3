//! A hash profile from the words an operator knows: the engine's flag, its seed, its release.

use super::sglang::FIRST_RELEASE as SGLANG_FIRST;
use super::vllm::{FIXED_SEED, Release};
use super::{
    Digest, HashProfile, KeyForm, MirrorError, RepeatedItems, SglangFormat, SglangProfile, VllmAlgorithm,
    VllmProfile,
};

/// First vLLM release whose hashes are digests; before it they were Python integers.
const VLLM_FIRST: Release = (0, 10, 2);
/// First release with the xxhash algorithms.
const VLLM_XXHASH: Release = (0, 14, 0);
/// First release with a fixed seed for the sha256 algorithms.
const VLLM_FIXED_SEED: Release = (0, 29, 0);

impl HashProfile {
    /// Words that [`HashProfile::parse`] takes as algorithm.
    pub const ALGORITHMS: [&str; 6] =
        ["sha256", "sha256_cbor", "xxhash", "xxhash_cbor", "sglang", "sglang_dynamo"];

    /// Reads a profile: `algorithm` is one of [`HashProfile::ALGORITHMS`]; `hash_seed` the engine's
    /// `PYTHONHASHSEED`; `none_hash` vLLM's hash before the first block, in hex, where the seed is not known;
    /// `release` the engine's (none means the newest).
    ///
    /// ```
    /// use kvindex_core::mirror::HashProfile;
    /// assert!(HashProfile::parse("sha256", None, None, Some((0, 33, 0))).is_ok());
    /// let error = HashProfile::parse("sha256", None, None, Some((0, 20, 2))).unwrap_err();
    /// assert_eq!(error.field, "hash_seed");
    /// ```
    ///
    /// # Errors
    /// An unknown algorithm; one that the release does not have; a malformed seed or hash, or both; neither
    /// where the engine's seed is random.
    pub fn parse(
        algorithm: &str,
        hash_seed: Option<&str>,
        none_hash: Option<&str>,
        release: Option<Release>,
    ) -> Result<Self, MirrorError> {
        let vllm = VllmAlgorithm::ALL.into_iter().find(|known| known.name() == algorithm);
        let format = match (vllm, algorithm) {
            (Some(algorithm), _) => return vllm_profile(algorithm, hash_seed, none_hash, release),
            (None, "sglang") => SglangFormat::Default,
            (None, "sglang_dynamo") => SglangFormat::Dynamo,
            (None, other) => {
                let message = format!("is {other:?}, must be one of {}", Self::ALGORITHMS.join(", "));
                return Err(MirrorError { field: "algorithm", message });
            }
        };
        let unused = [("hash_seed", hash_seed), ("none_hash", none_hash)];
        if let Some((field, _)) = unused.into_iter().find(|(_, value)| value.is_some()) {
            return Err(MirrorError { field, message: "is vLLM's; SGLang's hashes have no seed".into() });
        }
        at_least("SGLang's chained hashes", release, SGLANG_FIRST)?;
        Ok(Self::Sglang(SglangProfile { format, eagle: false }))
    }
}

fn vllm_profile(
    algorithm: VllmAlgorithm,
    hash_seed: Option<&str>,
    none_hash: Option<&str>,
    release: Option<Release>,
) -> Result<HashProfile, MirrorError> {
    at_least("vLLM's digests", release, VLLM_FIRST)?;
    if algorithm.is_xxhash() {
        at_least(algorithm.name(), release, VLLM_XXHASH)?;
    }
    let none_hash = match (hash_seed, none_hash) {
        (Some(_), Some(_)) => {
            let message = "give hash_seed or none_hash, not both".into();
            return Err(MirrorError { field: "none_hash", message });
        }
        (Some(seed), None) => algorithm.none_hash(check_seed(seed)?),
        (None, Some(hex)) => check_none_hash(algorithm, hex)?,
        (None, None) => algorithm.none_hash(default_seed(algorithm, release)?),
    };
    Ok(HashProfile::Vllm(VllmProfile {
        algorithm,
        none_hash,
        keys: release.map_or(KeyForm::Tagged, KeyForm::of_release),
        lookahead: 0,
        repeated_items: RepeatedItems::default(),
    }))
}

fn at_least(what: &str, release: Option<Release>, first: Release) -> Result<(), MirrorError> {
    let Some(release) = release.filter(|release| *release < first) else {
        return Ok(());
    };
    let print = |(major, minor, patch): Release| format!("{major}.{minor}.{patch}");
    let message = format!("is {}, but {what} begin with {}", print(release), print(first));
    Err(MirrorError { field: "engine_version", message })
}

/// What Python takes as `PYTHONHASHSEED`. vLLM hashes it as text, so `7` and `07` differ.
fn check_seed(seed: &str) -> Result<&str, MirrorError> {
    let digits = !seed.is_empty() && seed.bytes().all(|byte| byte.is_ascii_digit());
    if seed == "random" || (digits && seed.parse::<u32>().is_ok()) {
        return Ok(seed);
    }
    let message = format!("is {seed:?}, must be a number from 0 to {} or \"random\"", u32::MAX);
    Err(MirrorError { field: "hash_seed", message })
}

fn check_none_hash(algorithm: VllmAlgorithm, hex: &str) -> Result<Digest, MirrorError> {
    let digest = Digest::from_hex("none_hash", hex)?;
    let (has, needs) = (digest.as_bytes().len(), if algorithm.is_xxhash() { 16 } else { 32 });
    // Before 0.29 the hash of an engine without a seed was 32 random bytes, whatever the algorithm.
    if has == needs || has == 32 {
        return Ok(digest);
    }
    let message = format!("has {has} bytes, {} needs {needs}", algorithm.name());
    Err(MirrorError { field: "none_hash", message })
}

fn default_seed(algorithm: VllmAlgorithm, release: Option<Release>) -> Result<&'static str, MirrorError> {
    let random = match algorithm.is_xxhash() {
        true => Some(format!("{} has", algorithm.name())),
        false => release.filter(|release| *release < VLLM_FIXED_SEED).map(|_| "vLLM before 0.29 has".into()),
    };
    let Some(who) = random else {
        return Ok(FIXED_SEED);
    };
    let message = format!(
        "is missing: without PYTHONHASHSEED {who} a random seed in each process, so its hashes cannot be known; \
         start the engine with PYTHONHASHSEED and give it here, or give none_hash"
    );
    Err(MirrorError { field: "hash_seed", message })
}
