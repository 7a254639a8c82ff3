//! What may change while a node runs, and what waits for its next start.

use tokio::sync::watch;

use super::{Config, DiscoveryConfig, Setting, Shown};
use crate::workers::WorkerDefinition;

/// Keys that take effect at once. Every other one is part of something that is built once, when the node starts.
const LIVE: [&str; 3] = ["log_filter", "snapshot_interval_s", "drain_s"];
/// Discovery's keys, all of which take effect at once: it begins anew by them.
const LIVE_SECTION: &str = "discovery";

/// The configuration that a running node acts by. Rooms that follow it are told of each change.
#[derive(Debug, Clone)]
pub struct LiveConfig {
    current: watch::Sender<Config>,
}

/// What became of a configuration that was loaded again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Keys that took effect, with their new values.
    pub taken: Vec<Setting>,
    /// Keys whose new values wait for the next start.
    pub waiting: Vec<Setting>,
    /// Static workers that are listed now and were not, or differently.
    pub workers_new: usize,
    /// Static workers that are no longer listed.
    pub workers_gone: usize,
}

impl Changes {
    /// Whether nothing is different.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl LiveConfig {
    /// Begins with what the node started by.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { current: watch::Sender::new(config) }
    }

    /// The configuration as it is now.
    #[must_use]
    pub fn now(&self) -> Config {
        self.current.borrow().clone()
    }

    /// Follows it from now on.
    #[must_use]
    pub fn follow(&self) -> watch::Receiver<Config> {
        self.current.subscribe()
    }

    /// Whether a key takes effect while a node runs.
    #[must_use]
    pub fn is_live(key: &str) -> bool {
        LIVE.contains(&key) || key.starts_with(LIVE_SECTION)
    }

    /// Takes over what may change while the node runs, and tells the rest. `settings` are those of `new`.
    pub fn take(&self, new: &Config, settings: &[Setting]) -> Changes {
        let mut changes = Changes::default();
        self.current.send_if_modified(|current| {
            changes = current.compare(new, settings);
            current.take_live(new);
            !changes.is_empty()
        });
        changes
    }
}

impl Config {
    fn compare(&self, new: &Self, settings: &[Setting]) -> Changes {
        let before: Shown = self.shown();
        let differs = |setting: &&Setting| {
            before.iter().any(|(key, value)| *key == setting.key && *value != setting.value)
        };
        let (taken, waiting) =
            settings.iter().filter(differs).cloned().partition(|setting| LiveConfig::is_live(setting.key));
        let missing = |these: &[WorkerDefinition], those: &[WorkerDefinition]| {
            these.iter().filter(|worker| !those.contains(worker)).count()
        };
        let is_listed =
            |worker: &&WorkerDefinition| new.workers.iter().any(|other| other.spec.id == worker.spec.id);
        Changes {
            taken,
            waiting,
            workers_new: missing(&new.workers, &self.workers),
            workers_gone: self.workers.iter().filter(|worker| !is_listed(worker)).count(),
        }
    }

    /// Whoever adds a line here adds its key to [`LIVE`]; a test compares.
    fn take_live(&mut self, new: &Self) {
        self.log.filter.clone_from(&new.log.filter);
        self.drain = new.drain;
        if let (Some(snapshot), Some(new)) = (&mut self.snapshot, &new.snapshot) {
            snapshot.interval = new.interval;
        }
        self.workers.clone_from(&new.workers);
        let family = self.discovery.family; // the sockets' matter too
        self.discovery = DiscoveryConfig { family, ..new.discovery.clone() };
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::result_large_err)]

    use super::*;
    use crate::config::RawConfig;
    use figment::Jail;
    use std::path::Path;

    /// Loads a file of these lines, with a snapshot so that its interval can be set.
    fn load(lines: &str) -> crate::config::Loaded {
        let mut loaded = None;
        Jail::expect_with(|jail| {
            jail.create_file("kvindex.toml", &format!("snapshot_path = \"s\"\n{lines}"))?;
            loaded = Some(Config::load(Some(Path::new("kvindex.toml")), &RawConfig::default()).unwrap());
            Ok(())
        });
        loaded.unwrap()
    }

    #[test]
    fn every_live_key_takes_effect_and_every_other_one_waits() {
        let live = LiveConfig::new(load("").config);
        let new = load("log_filter = \"debug\"\nsnapshot_interval_s = 7\ndrain_s = 3\nmax_batch = 9\n");
        let changes = live.take(&new.config, &new.settings);
        let keys = |settings: &[Setting]| settings.iter().map(|s| s.key).collect::<Vec<_>>();
        assert_eq!(keys(&changes.taken), LIVE);
        assert_eq!(keys(&changes.waiting), ["max_batch"]);
        let now = live.now().shown();
        for (key, value) in new.config.shown() {
            let is_new = now.contains(&(key, value));
            assert!(is_new || key == "max_batch", "{key} is said to be live and was not taken");
        }
        // What waits is told each time, so that nobody takes the second silence for agreement.
        assert_eq!(keys(&live.take(&new.config, &new.settings).waiting), ["max_batch"]);
    }

    #[test]
    fn every_key_of_discovery_takes_effect() {
        let live = LiveConfig::new(load("").config);
        let new =
            load("discovery = \"kubernetes\"\ndiscovery_pod_selector = \"a=b\"\ndiscovery_resync = 5\n");
        let changes = live.take(&new.config, &new.settings);
        assert_eq!((changes.taken.len(), changes.waiting.len()), (3, 0));
        assert_eq!(live.now().discovery, new.config.discovery);
    }

    #[test]
    fn workers_of_the_file_are_counted_as_new_or_gone() {
        let worker = |id: &str, port: u16| {
            format!("[[workers]]\nworker_id = \"{id}\"\nmodel = \"m\"\nendpoint = \"tcp://h:{port}\"\n")
        };
        let live = LiveConfig::new(load(&(worker("a", 1) + &worker("b", 2) + &worker("c", 3))).config);
        let new = load(&(worker("a", 1) + &worker("b", 9) + &worker("d", 4)));
        let changes = live.take(&new.config, &new.settings);
        assert_eq!((changes.workers_new, changes.workers_gone), (2, 1));
        assert_eq!(live.now().workers.len(), 3);
        assert!(live.take(&new.config, &new.settings).is_empty());
    }
}
