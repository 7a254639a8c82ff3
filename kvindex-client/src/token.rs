//! The token that goes with every call.

use std::fmt;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::{Request, Status};

/// A token, which never prints itself.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Token(Option<String>);

impl Token {
    pub(crate) fn new(secret: impl Into<String>) -> Self {
        Self(Some(secret.into()))
    }

    /// What puts it on calls; `None` when it cannot stand in a header.
    pub(crate) fn bearer(&self) -> Option<Bearer> {
        let Some(secret) = &self.0 else { return Some(Bearer(None)) };
        let mut value: MetadataValue<Ascii> = format!("Bearer {}", secret.trim()).parse().ok()?;
        value.set_sensitive(true);
        Some(Bearer(Some(value)))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "set" } else { "none" })
    }
}

/// Puts the token on every call, if there is one.
#[derive(Debug, Clone)]
pub(crate) struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_token_goes_along_and_does_not_print_itself() {
        let token = Token::new("kvi_secret\n");
        let mut bearer = token.bearer().unwrap();
        let request = bearer.call(Request::new(())).unwrap();
        assert_eq!(request.metadata().get("authorization").unwrap(), "Bearer kvi_secret");
        assert!(!format!("{token:?} {bearer:?}").contains("secret"), "{token:?} {bearer:?}");
        assert!(Token::new("two\nlines").bearer().is_none());
        let none = Token::default().bearer().unwrap().call(Request::new(())).unwrap();
        assert!(none.metadata().is_empty());
    }
}
