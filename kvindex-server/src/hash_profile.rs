//! How an operator says that an engine hashes its blocks. kvindex needs none of it to answer; it is there to be
//! checked against what the engine announces, for callers who compute engine hashes themselves.

use serde::{Deserialize, Serialize};

use kvindex_core::mirror::{HashProfile, MirrorError};
use kvindex_core::{EngineKind, WorkerSpec};

use crate::workers::FieldError;

/// A hash profile as written. Field meanings are those of `HashProfile` in `ingest.proto`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)] // documented once, in the protocol file
pub struct RawHashProfile {
    pub algorithm: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash_seed: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub none_hash: Option<String>,
}

impl RawHashProfile {
    /// Empty texts left out; a profile without any text is none.
    pub(crate) fn present(self) -> Option<Self> {
        let some = |text: Option<String>| text.filter(|text| !text.is_empty());
        let profile = Self { hash_seed: some(self.hash_seed), none_hash: some(self.none_hash), ..self };
        (profile != Self::default()).then_some(profile)
    }

    /// The profile of this worker's engine.
    ///
    /// # Errors
    /// What does not fit together, and which field says it.
    pub(crate) fn of(&self, worker: &WorkerSpec) -> Result<HashProfile, FieldError> {
        let (seed, none_hash) = (self.hash_seed.as_deref(), self.none_hash.as_deref());
        let profile = HashProfile::parse(&self.algorithm, seed, none_hash, worker.profile().version)
            .map_err(|error| in_definition(&error))?;
        let (engine, name) = match profile {
            HashProfile::Vllm(_) => (EngineKind::Vllm, "vllm"),
            HashProfile::Sglang(_) => (EngineKind::Sglang, "sglang"),
        };
        if engine != worker.engine {
            let message = format!("is {:?}, which is {name}'s, but engine is another", self.algorithm);
            return Err(FieldError::new("hash_profile.algorithm", message));
        }
        Ok(profile)
    }
}

fn in_definition(error: &MirrorError) -> FieldError {
    match error.field {
        "engine_version" => FieldError::new("engine_version", error.message.as_str()),
        field => FieldError::new(format!("hash_profile.{field}"), error.message.as_str()),
    }
}
