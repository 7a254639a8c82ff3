//! Identities: small newtypes that validate and print, so that no bare integer or string crosses a
//! function with its meaning left in a comment.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

use crate::limits::MAX_NAME_BYTES;

/// A name that is empty, too long or holds control characters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The name has no characters.
    #[error("{field} is empty")]
    Empty {
        /// Which name.
        field: &'static str,
    },
    /// The name is longer than [`MAX_NAME_BYTES`].
    #[error("{field} has {len} bytes, the limit is {MAX_NAME_BYTES}")]
    TooLong {
        /// Which name.
        field: &'static str,
        /// Its length in bytes.
        len: usize,
    },
    /// The name holds a control character, which would break logs and metric labels.
    #[error("{field} holds a control character")]
    ControlCharacter {
        /// Which name.
        field: &'static str,
    },
}

/// Checks a name that a caller chose; `field` names it in the error.
///
/// # Errors
/// When `name` is empty, longer than [`MAX_NAME_BYTES`] or holds a control character.
pub fn check_name(field: &'static str, name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty { field });
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(NameError::TooLong { field, len: name.len() });
    }
    if name.chars().any(char::is_control) {
        return Err(NameError::ControlCharacter { field });
    }
    Ok(())
}

/// One inference engine instance, as the fleet names it (pod UID and container start, or a name of the
/// operator's choice). Addresses are not identities: they are re-used. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WorkerId(Arc<str>);

impl WorkerId {
    /// Validates and wraps a worker's name.
    ///
    /// # Errors
    /// See [`check_name`].
    pub fn new(name: impl Into<String>) -> Result<Self, NameError> {
        let name = name.into();
        check_name("worker id", &name)?;
        Ok(Self(name.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for WorkerId {
    type Error = NameError;
    fn try_from(name: String) -> Result<Self, NameError> {
        Self::new(name)
    }
}

impl From<WorkerId> for String {
    fn from(id: WorkerId) -> Self {
        id.0.as_ref().to_owned()
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// Data-parallel rank inside a worker: each rank has a cache, a publisher and a sequence of its own.
    DpRank(u32)
}
number! {
    /// KV-cache group of a hybrid model (`group_idx` on the wire; absent means 0).
    Group(u16)
}
number! {
    /// One registration of a worker. It lasts until the worker is unregistered; one that comes back under the same
    /// id has another. 0 where nobody numbers registrations: what carries it belongs to any.
    Registration(u64)
}
number! {
    /// One life of an engine's cache. A restart starts the next generation; blocks of an older one are gone.
    Generation(u64)
}
number! {
    /// Sequence number of an event batch within one generation of one stream; engines start at 0.
    BatchSeq(u64)
}

/// One event stream: a worker's data-parallel rank.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StreamId {
    /// The worker.
    pub worker: WorkerId,
    /// Its data-parallel rank.
    pub dp_rank: DpRank,
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/dp{}", self.worker, self.dp_rank)
    }
}

/// Where a copy of a block lies. Engines name media in their own words; see [`Tier::from_medium`].
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Tier {
    /// Accelerator memory.
    #[default]
    Device,
    /// Host memory.
    Host,
    /// Local disk.
    Disk,
    /// A pool shared with other workers.
    External,
    /// A medium this version does not know, by its name in lower case.
    Other(String),
}

impl Tier {
    /// Maps an engine's medium name, in any case, to a tier. No medium means device memory (old
    /// events carry none). Spellings: vLLM `GPU`, `CPU`, `STORAGE`, `FS`, `OBJ`; SGLang `CPU_PINNED`,
    /// `DISK`, `EXTERNAL`; Mooncake's connector `cpu`. An unknown name is kept, cut to
    /// [`MAX_NAME_BYTES`].
    #[must_use]
    pub fn from_medium(medium: Option<&str>) -> Self {
        let Some(medium) = medium else {
            return Self::Device;
        };
        let name = medium.to_ascii_lowercase();
        match name.as_str() {
            "" | "gpu" | "npu" | "hbm" | "device" => Self::Device,
            "cpu" | "cpu_pinned" | "dram" | "host" => Self::Host,
            "disk" | "storage" | "fs" | "ssd" => Self::Disk,
            "external" | "obj" => Self::External,
            _ => Self::Other(name.chars().take(MAX_NAME_BYTES / 4).collect()),
        }
    }

    /// The tier's name: `device`, `host`, `disk`, `external` or the unknown medium's own.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Device => "device",
            Self::Host => "host",
            Self::Disk => "disk",
            Self::External => "external",
            Self::Other(name) => name,
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_are_checked() {
        assert_eq!(WorkerId::new("").unwrap_err().to_string(), "worker id is empty");
        let long = WorkerId::new("x".repeat(MAX_NAME_BYTES + 1)).unwrap_err();
        assert!(long.to_string().contains(&MAX_NAME_BYTES.to_string()), "{long}");
        assert!(WorkerId::new("a\nb").is_err());
        assert_eq!(WorkerId::new("vllm-0").unwrap().to_string(), "vllm-0");
    }

    #[test]
    fn media_map_to_tiers_in_any_case() {
        for (medium, tier) in [
            (None, Tier::Device),
            (Some("GPU"), Tier::Device),
            (Some("cpu"), Tier::Host),
            (Some("CPU_PINNED"), Tier::Host),
            (Some("DISK"), Tier::Disk),
            (Some("EXTERNAL"), Tier::External),
            (Some("Tape"), Tier::Other("tape".into())),
        ] {
            assert_eq!(Tier::from_medium(medium), tier, "{medium:?}");
        }
    }
}
