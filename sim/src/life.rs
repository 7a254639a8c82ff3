//! One life of a node's process: what it may do ends when it is killed, and waits while it is paused.

use parking_lot::Mutex;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{Instant, sleep_until};

/// Where everything that a node does with the world outside waits while the node is paused. Its timers run on, so a
/// paused node wakes to elections that it could not hold; it just gets nothing in or out.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    closed_until: Mutex<Option<Instant>>,
}

impl Gate {
    /// Lets nothing through before `until`.
    pub(crate) fn close(&self, until: Option<Instant>) {
        *self.closed_until.lock() = until;
    }

    /// Waits for the gate to be open.
    pub(crate) async fn pass(&self) {
        loop {
            let until = *self.closed_until.lock();
            match until.filter(|until| *until > Instant::now()) {
                Some(until) => sleep_until(until).await,
                None => return,
            }
        }
    }
}

/// One process.
#[derive(Debug)]
pub(crate) struct Life {
    /// Whose.
    pub node: u64,
    /// Which life of that node, from 1.
    pub number: u64,
    /// The node's.
    pub gate: Arc<Gate>,
    over: AtomicBool,
    tasks: Mutex<Vec<AbortHandle>>,
}

impl Life {
    /// A process that begins now.
    #[must_use]
    pub(crate) fn begin(node: u64, number: u64, gate: Arc<Gate>) -> Arc<Self> {
        Arc::new(Self { node, number, gate, over: AtomicBool::new(false), tasks: Mutex::default() })
    }

    /// Whether it was killed.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Kills it: its tasks end where they are, and its disk and network do no more for it.
    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
        self.tasks.lock().drain(..).for_each(|task| task.abort());
    }

    /// Takes tasks over that were started without it.
    pub(crate) fn adopt(&self, started: Vec<JoinHandle<()>>) {
        let mut tasks = self.tasks.lock();
        for task in started {
            if self.is_over() {
                task.abort();
            }
            tasks.push(task.abort_handle());
        }
    }

    /// Runs something in this process.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        let task = tokio::spawn(work);
        let mut tasks = self.tasks.lock();
        if self.is_over() {
            task.abort();
        }
        if tasks.len() >= 64 {
            tasks.retain(|task| !task.is_finished());
        }
        tasks.push(task.abort_handle());
        task
    }
}
