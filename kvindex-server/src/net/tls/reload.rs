//! Certificates that change while the node runs: the files are looked at every two seconds. A good new pair serves
//! every connection from then on, a bad one is refused and the old one kept.

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

use super::files::{Contents, Files, TlsError};
use crate::net::metrics::NetMetrics;

/// Between two looks at the files.
const LOOK: Duration = Duration::from_secs(2);

/// Makes what connections use of the files' contents; answers also when the certificate ends.
type Build<T> = Box<dyn Fn(&Contents) -> Result<(T, i64), TlsError> + Send + Sync>;

/// What is made of certificate files, as they are now.
pub(super) struct Kept<T> {
    door: &'static str,
    files: Files,
    build: Build<T>,
    current: ArcSwap<T>,
    seen: Mutex<Seen>,
    metrics: NetMetrics,
}

/// What was found last.
#[derive(Debug, Default)]
struct Seen {
    digest: u64,
    /// Told already, and not to be told again every two seconds.
    refused: Option<TlsError>,
}

/// What a look at the files found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Look {
    /// What was there before.
    Same,
    /// Something new, which serves from now on.
    Taken,
    /// Something that cannot be used.
    Refused(TlsError),
}

impl<T: Send + Sync + 'static> Kept<T> {
    /// Reads the files for the first time.
    pub(super) fn load(
        door: &'static str,
        files: &Files,
        metrics: &NetMetrics,
        build: impl Fn(&Contents) -> Result<(T, i64), TlsError> + Send + Sync + 'static,
    ) -> Result<Arc<Self>, TlsError> {
        let contents = files.read()?;
        let (made, ends) = build(&contents)?;
        metrics.certificate_ends(door, ends);
        Ok(Arc::new(Self {
            door,
            files: files.clone(),
            build: Box::new(build),
            current: ArcSwap::from_pointee(made),
            seen: Mutex::new(Seen { digest: contents.digest(), refused: None }),
            metrics: metrics.clone(),
        }))
    }

    /// What serves now.
    pub(super) fn current(&self) -> Arc<T> {
        self.current.load_full()
    }

    /// Looks at the files. Reads files, so not from a task that others wait for.
    pub(super) fn look(&self) -> Look {
        let mut seen = self.seen.lock();
        let found = self.files.read().and_then(|contents| {
            let digest = contents.digest();
            if digest == seen.digest && seen.refused.is_none() {
                return Ok(None);
            }
            let same = digest == seen.digest;
            let (made, ends) = (self.build)(&contents)?;
            seen.digest = digest;
            Ok(Some((made, ends, same)))
        });
        match found {
            Ok(None) => Look::Same,
            Ok(Some((made, ends, same))) => {
                seen.refused = None;
                self.current.store(Arc::new(made));
                self.metrics.certificate_ends(self.door, ends);
                if same { Look::Same } else { self.taken() }
            }
            Err(error) if seen.refused.as_ref() == Some(&error) => Look::Same,
            Err(error) => {
                seen.refused = Some(error.clone());
                self.metrics.reloaded(self.door, false);
                tracing::error!(door = self.door, %error, "the new certificate is refused, the old one kept");
                Look::Refused(error)
            }
        }
    }

    fn taken(&self) -> Look {
        self.metrics.reloaded(self.door, true);
        tracing::info!(door = self.door, "a new certificate serves from now on");
        Look::Taken
    }

    /// Looks again and again until the node stops.
    pub(super) fn watch(self: &Arc<Self>, mut stopping: watch::Receiver<bool>) {
        let kept = Arc::clone(self);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = tokio::time::sleep(LOOK) => {}
                    // True, or its sender is gone.
                    _ = stopping.wait_for(|stop| *stop) => return,
                }
                let kept = Arc::clone(&kept);
                // A panic in there was told, and the next look follows.
                let _ = tokio::task::spawn_blocking(move || kept.look()).await;
            }
        });
    }
}

impl<T> std::fmt::Debug for Kept<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept").field("door", &self.door).field("files", &self.files).finish_non_exhaustive()
    }
}
