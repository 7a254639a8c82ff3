//! What calls of some dialects do not say, and what stands in for it: the model, from a header or the configuration.

use axum::http::HeaderMap;
use kvindex_core::limits::MAX_NAME_BYTES;

use crate::api::ApiError;
use crate::config::DialectsConfig;

/// Header, or gRPC metadata, that names the model of a call whose dialect has no field for it.
pub(super) const MODEL: &str = "x-kvindex-model";

/// The model of a call that may name one in a header. A name that cannot be read is refused: the answer would be about
/// another model than its caller means.
pub(super) fn model(headers: &HeaderMap, config: &DialectsConfig) -> Result<String, ApiError> {
    let Some(header) = headers.get(MODEL) else { return Ok(config.model.clone()) };
    let name = header.to_str().map_err(|_| ApiError::invalid(MODEL, "must be of printable ASCII"))?;
    if name.len() > MAX_NAME_BYTES {
        let message = format!("has {} bytes, the limit is {MAX_NAME_BYTES}", name.len());
        return Err(ApiError::invalid(MODEL, message));
    }
    Ok(if name.is_empty() { &config.model } else { name }.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn a_model_that_cannot_be_read_is_refused_and_never_another_one() {
        let config = DialectsConfig { model: "usual".into(), ..DialectsConfig::default() };
        let named = |value: &[u8]| {
            let value = HeaderValue::from_bytes(value).unwrap();
            model(&HeaderMap::from_iter([(MODEL.parse().unwrap(), value)]), &config)
        };
        assert_eq!(model(&HeaderMap::new(), &config).unwrap(), "usual");
        assert_eq!((named(b"").unwrap(), named(b"org/m").unwrap()), ("usual".into(), "org/m".into()));
        let refused = named("modèle".as_bytes()).unwrap_err().to_message();
        assert_eq!(
            (refused.field.as_str(), refused.message.as_str()),
            (MODEL, "x-kvindex-model: must be of printable ASCII")
        );
        let long = named(&[b'm'; MAX_NAME_BYTES + 1]).unwrap_err().to_message();
        assert_eq!(
            (long.code.as_str(), long.message.as_str()),
            ("invalid_argument", "x-kvindex-model: has 257 bytes, the limit is 256")
        );
    }
}
