//! Clients that ask every node all the time, and note when one does not answer.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kvindex_client::v1;
use kvindex_client::v1::query_service_client::QueryServiceClient;
use kvindex_faults::cluster::Channel;
use tokio::task::JoinHandle;
use tonic::Code;

/// A routing query that takes so long has failed.
const DEADLINE: Duration = Duration::from_secs(1);

/// What clients of one node, or of all, have seen.
#[derive(Debug, Default)]
struct Silence {
    last: Option<Instant>,
    longest: Duration,
}

impl Silence {
    fn answered(&mut self, now: Instant) {
        if let Some(last) = self.last.replace(now) {
            self.longest = self.longest.max(now.saturating_duration_since(last));
        }
    }
}

#[derive(Debug, Default)]
struct Board {
    /// Nodes that are expected to answer.
    up: Vec<AtomicBool>,
    /// Of each node.
    silences: Vec<Mutex<Silence>>,
    any: Mutex<Silence>,
    answered: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    reasons: Mutex<Vec<String>>,
    stop: AtomicBool,
}

/// Clients at work.
#[derive(Debug)]
pub(crate) struct Clients {
    board: Arc<Board>,
    tasks: Vec<JoinHandle<()>>,
}

/// What they have seen.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    pub(crate) answered: u64,
    /// Queries that a node said at once it has no time for, as a busy machine makes it do.
    pub(crate) refused: u64,
    /// Queries that a living node did not answer.
    pub(crate) failed: u64,
    /// The first reasons.
    pub(crate) reasons: Vec<String>,
    /// Longest time without an answer from anyone.
    pub(crate) any: Duration,
    /// Longest time without an answer from a living node.
    pub(crate) worst: Duration,
}

impl Seen {
    /// Both together.
    pub(crate) fn add(&mut self, other: Self) {
        self.answered += other.answered;
        self.refused += other.refused;
        self.failed += other.failed;
        self.reasons.extend(other.reasons);
        self.any = self.any.max(other.any);
        self.worst = self.worst.max(other.worst);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Clients {
    /// One for each node, asking `request` every so often.
    pub(crate) fn start(channels: Vec<Channel>, request: &v1::MatchRequest, every: Duration) -> Self {
        let board = Arc::new(Board {
            up: channels.iter().map(|_| AtomicBool::new(true)).collect(),
            silences: channels.iter().map(|_| Mutex::default()).collect(),
            ..Board::default()
        });
        let ask = |(number, channel)| {
            tokio::spawn(ask(
                Arc::clone(&board),
                number,
                QueryServiceClient::new(channel),
                request.clone(),
                every,
            ))
        };
        let tasks = channels.into_iter().enumerate().map(ask).collect();
        Self { board, tasks }
    }

    /// From now on a node is not expected to answer, or is again.
    pub(crate) fn expect(&self, number: usize, up: bool) {
        if let Some(flag) = self.board.up.get(number) {
            flag.store(up, Ordering::SeqCst);
        }
    }

    /// Ends the asking.
    pub(crate) async fn stop(self) -> Seen {
        self.board.stop.store(true, Ordering::SeqCst);
        for task in self.tasks {
            // A client that panicked has asked nothing since, which the count shows.
            let _ = task.await;
        }
        let board = &self.board;
        Seen {
            answered: board.answered.load(Ordering::SeqCst),
            refused: board.refused.load(Ordering::SeqCst),
            failed: board.failed.load(Ordering::SeqCst),
            reasons: locked(&board.reasons).clone(),
            any: locked(&board.any).longest,
            worst: board.silences.iter().map(|silence| locked(silence).longest).max().unwrap_or_default(),
        }
    }
}

async fn ask(
    board: Arc<Board>,
    number: usize,
    mut client: QueryServiceClient<Channel>,
    request: v1::MatchRequest,
    every: Duration,
) {
    let (Some(up), Some(silence)) = (board.up.get(number), board.silences.get(number)) else { return };
    while !board.stop.load(Ordering::SeqCst) {
        if !up.load(Ordering::SeqCst) {
            locked(silence).last = None;
            tokio::time::sleep(every).await;
            continue;
        }
        let answer = tokio::time::timeout(DEADLINE, client.r#match(request.clone())).await;
        let failed = match answer {
            Ok(Ok(_)) => None,
            Ok(Err(status)) if status.code() == Code::ResourceExhausted => {
                board.refused.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(every).await;
                continue;
            }
            Ok(Err(status)) => Some(status.to_string()),
            Err(_) => Some("no answer in time".to_owned()),
        };
        match failed {
            None => {
                let now = Instant::now();
                board.answered.fetch_add(1, Ordering::Relaxed);
                locked(silence).answered(now);
                locked(&board.any).answered(now);
            }
            Some(reason) if up.load(Ordering::SeqCst) => {
                board.failed.fetch_add(1, Ordering::Relaxed);
                let mut reasons = locked(&board.reasons);
                if reasons.len() < 3 {
                    reasons.push(format!("node {}: {reason}", number + 1));
                }
            }
            Some(_) => {}
        }
        tokio::time::sleep(every).await;
    }
}
