//! What the watches have told so far, and whether it is whole: nothing may be forgotten because a list is incomplete
//! or a watch is silent for a reason that is not the cluster's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::condition::Condition;
use super::seen::{Name, Pod, Seen, Service, Slice};

/// All kinds of things that are watched.
#[derive(Debug, Default)]
pub(crate) struct View {
    pub(crate) pods: Kind<Pod>,
    pub(crate) services: Kind<Service>,
    pub(crate) slices: Kind<Slice>,
}

/// Things of one kind.
#[derive(Debug)]
pub(crate) struct Kind<T> {
    known: BTreeMap<Name, Arc<T>>,
    /// A list that is on its way; what is known stays until it is whole.
    coming: Option<BTreeMap<Name, Arc<T>>>,
    standing: Standing,
}

/// How far what is known of a kind can be relied on.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Standing {
    /// It is not watched, because nothing asks for it.
    Unwatched,
    /// No complete list has come yet.
    Incomplete,
    /// It was complete, and every change since was told.
    Whole,
    /// The watch fails; it was whole before.
    Failing { since: Instant },
}

/// Why something is not whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) condition: Condition,
    pub(crate) message: String,
}

impl<T> Default for Kind<T> {
    fn default() -> Self {
        Self { known: BTreeMap::new(), coming: None, standing: Standing::Unwatched }
    }
}

impl<T> Kind<T> {
    /// It will be watched.
    pub(crate) fn watch(&mut self) {
        self.standing = Standing::Incomplete;
    }

    pub(crate) fn begin_list(&mut self) {
        self.coming = Some(BTreeMap::new());
    }

    pub(crate) fn listed(&mut self, name: Name, item: T) {
        self.coming.get_or_insert_default().insert(name, Arc::new(item));
    }

    /// The list is whole: what it does not have is gone.
    pub(crate) fn end_list(&mut self) {
        self.known = self.coming.take().unwrap_or_default();
        self.standing = Standing::Whole;
    }

    pub(crate) fn changed(&mut self, name: Name, item: T) {
        self.known.insert(name, Arc::new(item));
    }

    pub(crate) fn gone(&mut self, name: &Name) {
        self.known.remove(name);
    }

    /// The watch failed: what is known may be outdated from `now` on.
    pub(crate) fn failed(&mut self, now: Instant) {
        self.coming = None;
        if self.standing == Standing::Whole {
            self.standing = Standing::Failing { since: now };
        }
    }

    fn items(&self) -> Vec<Arc<T>> {
        self.known.values().cloned().collect()
    }

    fn has_been_whole(&self) -> bool {
        self.standing != Standing::Incomplete
    }

    fn is_current(&self) -> bool {
        matches!(self.standing, Standing::Whole | Standing::Unwatched)
    }

    fn failing_for(&self, now: Instant) -> Option<Duration> {
        match self.standing {
            Standing::Failing { since } => Some(now.saturating_duration_since(since)),
            _ => None,
        }
    }
}

impl View {
    /// Everything, once each kind was complete.
    pub(crate) fn seen(&self) -> Option<Seen> {
        let whole =
            self.pods.has_been_whole() && self.services.has_been_whole() && self.slices.has_been_whole();
        whole.then(|| Seen {
            pods: self.pods.items(),
            services: self.services.items(),
            slices: self.slices.items(),
        })
    }

    /// Whether what is said of pods is current, and what is said of who selects them.
    pub(crate) fn current(&self) -> Current {
        Current {
            pods: self.pods.is_current(),
            selection: self.services.is_current() && self.slices.is_current(),
        }
    }

    /// For how long the oldest failure lasts.
    pub(crate) fn failing_for(&self, now: Instant) -> Option<Duration> {
        let failing =
            [self.pods.failing_for(now), self.services.failing_for(now), self.slices.failing_for(now)];
        failing.into_iter().flatten().max()
    }
}

/// What of a view may be acted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Current {
    /// Pods that are not there are gone.
    pub(crate) pods: bool,
    /// Pods that no Service selects are selected by none.
    pub(crate) selection: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name { namespace: "ns".into(), name: text.into() }
    }

    fn service(text: &str) -> Service {
        Service { name: name(text) }
    }

    fn names(view: &View) -> Option<Vec<String>> {
        let seen = view.seen()?;
        Some(seen.services.iter().map(|service| service.name.name.clone()).collect())
    }

    #[test]
    fn nothing_is_seen_before_the_first_complete_list() {
        let mut view = View::default();
        view.services.watch();
        assert_eq!(names(&view), None);
        view.services.begin_list();
        view.services.listed(name("a"), service("a"));
        assert_eq!(names(&view), None, "the list is not whole");
        view.services.failed(Instant::now());
        assert_eq!((names(&view), view.failing_for(Instant::now())), (None, None));
        view.services.begin_list();
        view.services.end_list();
        assert_eq!(names(&view), Some(vec![]));
    }

    #[test]
    fn a_list_on_its_way_hides_nothing_and_a_failure_is_not_current() {
        let mut view = View::default();
        view.services.watch();
        view.services.begin_list();
        view.services.listed(name("a"), service("a"));
        view.services.end_list();
        assert!(view.current().selection && view.current().pods);
        view.services.begin_list();
        view.services.listed(name("b"), service("b"));
        assert_eq!(names(&view), Some(vec!["a".into()]));
        let now = Instant::now();
        view.services.failed(now);
        assert_eq!(view.current(), Current { pods: true, selection: false });
        view.services.failed(now + Duration::from_secs(1));
        let later = now + Duration::from_secs(5);
        assert_eq!(view.failing_for(later), Some(Duration::from_secs(5)), "counted from the first failure");
        assert_eq!(names(&view), Some(vec!["a".into()]), "half a list leaves no trace");
        view.services.begin_list();
        view.services.listed(name("b"), service("b"));
        view.services.end_list();
        assert_eq!((names(&view), view.failing_for(later)), (Some(vec!["b".into()]), None));
    }

    #[test]
    fn changes_are_taken_one_by_one() {
        let mut view = View::default();
        view.services.watch();
        view.services.begin_list();
        view.services.end_list();
        view.services.changed(name("a"), service("a"));
        view.services.changed(name("b"), service("b"));
        view.services.gone(&name("a"));
        view.services.gone(&name("a"));
        assert_eq!(names(&view), Some(vec!["b".into()]));
    }
}
