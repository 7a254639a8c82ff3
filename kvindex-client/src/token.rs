//! The token that goes with every call, given once or read again and again from a file.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::{Request, Status};

/// How often the file is looked at. Whoever replaces a token leaves the old one valid for longer than this.
const REREAD: Duration = Duration::from_secs(5);

/// A token, which never prints itself.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Token(Option<String>);

impl Token {
    pub(crate) fn new(secret: impl Into<String>) -> Self {
        Self(Some(secret.into()))
    }

    /// What a file holds.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))?;
        if text.trim().is_empty() {
            return Err("is empty".into());
        }
        Ok(Self::new(text))
    }

    /// What puts it on calls; `None` when it cannot stand in a header.
    pub(crate) fn bearer(&self) -> Option<Bearer> {
        let value = self.value()?.map(Arc::new);
        Some(Bearer(Arc::new(ArcSwapOption::new(value))))
    }

    fn value(&self) -> Option<Option<MetadataValue<Ascii>>> {
        let Some(secret) = &self.0 else { return Some(None) };
        let mut value: MetadataValue<Ascii> = format!("Bearer {}", secret.trim()).parse().ok()?;
        value.set_sensitive(true);
        Some(Some(value))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "set" } else { "none" })
    }
}

/// Puts the token on every call, if there is one. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Bearer(Arc<ArcSwapOption<MetadataValue<Ascii>>>);

impl Bearer {
    /// Takes what `path` holds whenever that changes. A file that cannot be used now changes nothing: it may be half
    /// written, and the token before may still be valid.
    pub(crate) async fn follow(self, path: PathBuf) {
        loop {
            tokio::time::sleep(REREAD).await;
            let read = path.clone();
            // A file on a network may take its time.
            let Ok(token) = tokio::task::spawn_blocking(move || Token::read(&read)).await else { continue };
            match token.map(|token| token.value().flatten()) {
                Ok(Some(value)) => self.take(value),
                Ok(None) => {
                    tracing::warn!(path = %path.display(), "the token file holds what no token has");
                }
                Err(reason) => {
                    tracing::warn!(path = %path.display(), reason, "the token file cannot be used");
                }
            }
        }
    }

    fn take(&self, value: MetadataValue<Ascii>) {
        if self.0.load().as_deref() != Some(&value) {
            self.0.store(Some(Arc::new(value)));
            tracing::info!("another token is used from now on");
        }
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = self.0.load().as_deref() {
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
