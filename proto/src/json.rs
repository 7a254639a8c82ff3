//! How two kinds of field look in JSON: byte strings as base64, the trust state as a lower-case word.

pub(crate) mod base64_bytes {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use bytes::Bytes;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};
    use std::borrow::Cow;

    pub(crate) fn serialize<S: Serializer>(bytes: &Bytes, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
        let text: Cow<'de, str> = Deserialize::deserialize(from)?;
        let bytes = STANDARD.decode(text.as_bytes());
        bytes.map(Bytes::from).map_err(|error| D::Error::custom(format!("not base64: {error}")))
    }
}

pub(crate) mod trust_state {
    use crate::v1::TrustState;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
    pub(crate) fn serialize<S: Serializer>(state: &i32, to: S) -> Result<S::Ok, S::Error> {
        TrustState::try_from(*state).unwrap_or_default().serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<i32, D::Error> {
        TrustState::deserialize(from).map(i32::from)
    }
}
