//! Who may do what, and how much of it: tokens and tenants from the access file, which is looked at again and again
//! while the node runs, and the bound on queries that run at one time.
//!
//! Without a file every caller may do everything. With one, a caller is its token: a name, rights, tenants, limits.

mod caller;
mod engines;
mod file;
mod gate;
mod metrics;
mod quota;
mod token;

use arc_swap::ArcSwap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

pub(crate) use caller::{Caller, Denied, OpenStream, Right, Unknown};
pub use file::{AccessError, check_access};
pub(crate) use gate::{Gate, Overloaded, Running, units};
pub(crate) use metrics::AccessMetrics;
pub(crate) use quota::Limited;
pub use token::{NewToken, NoRandom};

use crate::config::AccessConfig;
use file::Table;
use token::Digest;

/// How often the file is looked at. Its bytes are compared, so that a coarse clock of the file system or a file
/// swapped for another one of the same time hides nothing.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The tokens and tenants in effect.
#[derive(Debug)]
pub(crate) struct Access {
    /// `None` where everything is allowed.
    table: Option<ArcSwap<Table>>,
    path: PathBuf,
    metrics_open: bool,
    metrics: AccessMetrics,
    /// Counts the tables there were, for calls that outlive one.
    version: watch::Sender<u64>,
}

impl Access {
    /// Reads the access file, if there is to be one.
    ///
    /// # Errors
    /// When it cannot be read or says something wrong.
    pub(crate) fn open(config: &AccessConfig, metrics: AccessMetrics) -> Result<Self, AccessError> {
        let table = match &config.file {
            None => None,
            Some(path) => {
                let table = Table::parse(&read(path)?, None)?;
                metrics.set_tokens(&table.names());
                Some(ArcSwap::from_pointee(table))
            }
        };
        Ok(Self {
            table,
            path: config.file.clone().unwrap_or_default(),
            metrics_open: config.metrics_open,
            metrics,
            version: watch::Sender::new(0),
        })
    }

    /// Whether every caller may do everything.
    pub(crate) fn is_open(&self) -> bool {
        self.table.is_none()
    }

    /// Whether `/metrics` asks for no token.
    pub(crate) fn has_open_metrics(&self) -> bool {
        self.metrics_open || self.is_open()
    }

    /// Its counters.
    pub(crate) fn metrics(&self) -> &AccessMetrics {
        &self.metrics
    }

    /// Who calls, by the value of the `authorization` header.
    ///
    /// # Errors
    /// When nobody known does.
    pub(crate) fn caller(&self, authorization: Option<&[u8]>) -> Result<Caller, Unknown> {
        let Some(table) = &self.table else { return Ok(Caller::anyone()) };
        let header = authorization.ok_or(Unknown::NoToken)?;
        let token = token::of_header(header).ok_or(Unknown::NoBearer)?;
        let token = table.load().find(&Digest::of(token)).ok_or(Unknown::NoSuchToken)?;
        if token.has_expired() {
            return Err(Unknown::Expired);
        }
        Ok(Caller::of(token))
    }

    /// The same caller as the file in effect has it; for calls that outlive a change of the file.
    ///
    /// # Errors
    /// When its token is gone or has expired.
    pub(crate) fn again(&self, caller: &Caller) -> Result<Caller, Unknown> {
        let (Some(table), Some(token)) = (&self.table, caller.token()) else { return Ok(caller.clone()) };
        let token = table.load().find(&token.digest).ok_or(Unknown::NoSuchToken)?;
        if token.has_expired() { Err(Unknown::Expired) } else { Ok(Caller::of(token)) }
    }

    /// Resolves when what a caller may do may have changed: the file did, or its token expires.
    pub(crate) async fn changed(&self, caller: &Caller, seen: &mut watch::Receiver<u64>) {
        let expiry = async {
            match caller.token().and_then(|token| token.expires_in()) {
                // A sleep that is over does not say so at once, and one that is begun anew each time never would.
                Some(Duration::ZERO) => {}
                Some(left) => tokio::time::sleep(left).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = seen.changed() => if changed.is_err() { std::future::pending().await },
            () = expiry => {}
        }
    }

    /// What [`Self::changed`] listens to.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Takes a changed file, or refuses it and keeps the table there is.
    fn reload(&self, text: Result<String, AccessError>) {
        let Some(table) = &self.table else { return };
        let taken = text.and_then(|text| Table::parse(&text, Some(&table.load())));
        self.metrics.reloaded(taken.is_ok());
        match taken {
            Ok(new) => {
                tracing::info!(path = %self.path.display(), tokens = new.len(), "took the changed access file");
                let new = Arc::new(new);
                table.store(Arc::clone(&new));
                self.metrics.set_tokens(&new.names());
                self.version.send_modify(|version| *version += 1);
            }
            Err(error) => {
                tracing::error!(path = %self.path.display(), %error, "refused the changed access file; the one before stays in effect");
            }
        }
    }

    /// Looks at the file again and again, until the node stops.
    pub(crate) async fn follow_file(self: Arc<Self>, mut stopping: watch::Receiver<bool>) {
        if self.is_open() {
            return;
        }
        // Nothing, so that a change since the start is not missed; taking the same file again does no harm.
        let mut seen: Option<Result<String, String>> = None;
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                _ = stopping.wait_for(|stop| *stop) => return,
            }
            let path = self.path.clone();
            let Ok(text) = tokio::task::spawn_blocking(move || read(&path)).await else { return };
            // One that cannot be read is told once, and again when the reason is another one.
            let now = text.as_ref().map(Clone::clone).map_err(ToString::to_string);
            if seen.as_ref() != Some(&now) {
                let is_first = seen.is_none();
                seen = Some(now);
                if !is_first || self.differs(text.as_deref().ok()) {
                    self.reload(text);
                }
            }
        }
    }

    /// Whether a file says something else than what is in effect.
    fn differs(&self, text: Option<&str>) -> bool {
        let (Some(table), Some(text)) = (&self.table, text) else { return true };
        table.load().source() != &Digest::of(text.as_bytes())
    }
}

/// The file, if it is of a size that one can have.
fn read(path: &Path) -> Result<String, AccessError> {
    let unreadable = |source| AccessError::Unreadable { path: path.into(), source };
    let bytes = std::fs::metadata(path).map_err(unreadable)?.len();
    if bytes > file::MAX_FILE_BYTES {
        return Err(AccessError::TooLarge { path: path.into(), bytes });
    }
    std::fs::read_to_string(path).map_err(unreadable)
}

#[cfg(test)]
mod access_test;
