//! A running node takes a changed configuration file: at SIGHUP, and when the file's content changes. A file that
//! cannot be used is refused with its error, and the node goes on by what it had.

use kvindex_server::config::{Changes, Config, LiveConfig, RawConfig};
use kvindex_server::metrics::Metrics;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::signal::unix::Signal;

use super::logs::{self, Logs};

/// Between two looks at the file; a change is taken when two agree. Kubernetes itself brings a changed ConfigMap about once a minute.
const LOOK: Duration = Duration::from_secs(2);

/// Where the configuration comes from, and who acts by it.
pub(super) struct Reload<'a> {
    pub(super) file: Option<PathBuf>,
    pub(super) flags: &'a RawConfig,
    pub(super) live: LiveConfig,
    pub(super) logs: &'a Logs,
    pub(super) metrics: Metrics,
}

impl Reload<'_> {
    /// Never ends.
    pub(super) async fn run(self, mut hang_up: Signal) {
        let mut seen = content(self.file.as_deref());
        let mut before = seen.clone();
        loop {
            let asked = tokio::select! {
                Some(()) = hang_up.recv() => true,
                () = tokio::time::sleep(LOOK) => false,
            };
            let now = content(self.file.as_deref());
            // A file that is gone, or another at each look, is being written: half of a list of workers is a valid file
            // too, and the other half would be forgotten.
            let changed = now.is_some() && now != seen && now == before;
            if asked || changed {
                seen = now.clone().or(seen);
                self.take();
            }
            before = now;
        }
    }

    fn take(&self) {
        let loaded = Config::load(self.file.as_deref(), self.flags).map_err(anyhow::Error::new);
        let taken = loaded.and_then(|loaded| {
            // Parsed first: what follows cannot fail any more.
            logs::parse(&loaded.config.log.filter)?;
            let changes = self.live.take(&loaded.config, &loaded.settings);
            self.logs.filter_by(&loaded.config.log.filter)?;
            Ok(changes)
        });
        match taken {
            Ok(changes) => {
                self.metrics.config_loaded(true);
                self.metrics.config_waiting(changes.waiting.len());
                tell(&changes);
            }
            Err(error) => {
                self.metrics.config_loaded(false);
                tracing::error!(
                    error = format!("{error:#}"),
                    "the configuration is refused; the former one is kept"
                );
            }
        }
    }
}

fn tell(changes: &Changes) {
    if changes.is_empty() {
        tracing::info!("the configuration was read again and says the same");
    }
    for setting in &changes.taken {
        tracing::info!(key = setting.key, value = setting.value, "takes effect");
    }
    for setting in &changes.waiting {
        tracing::warn!(key = setting.key, value = setting.value, "takes effect at the next start");
    }
    if changes.workers_new + changes.workers_gone > 0 {
        tracing::info!(
            new = changes.workers_new,
            gone = changes.workers_gone,
            "the file lists other workers"
        );
    }
}

fn content(file: Option<&Path>) -> Option<Vec<u8>> {
    std::fs::read(file?).ok()
}
