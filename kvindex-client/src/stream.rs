//! Many questions on one connection. Fails open like every routing call: each question gets exactly one answer,
//! within its deadline, whatever happens to the connection. A stream stays with one node while that answers.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::FutureExt;
use kvindex_proto::v1;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::answer::Answer;
use crate::calls::query;
use crate::error::{self, CallError, Verdict};
use crate::pool::{Endpoint, Rank};
use crate::routing::{Client, age_of};
use crate::speculative::Speculated;

/// Questions on their way to the node. More would only wait here until their deadline.
const QUEUE: usize = 64;

/// How many nodes are tried for a question that finds no stream.
const TRIES: usize = 2;

/// A stream of questions and answers. It connects with the first question, and again after it was broken, to another
/// node if the one before is left out.
///
/// Send any number of questions, then take as many answers. Answers are only read by [`MatchStream::next`]: who
/// sends many thousand without reading will see the late ones time out. That does not count against the node.
///
/// ```no_run
/// use kvindex_client::{Client, PromptTokens};
///
/// # async fn ask(client: Client) {
/// let mut stream = client.match_stream();
/// let id = stream.send((&PromptTokens::new("llama", &[1, 2, 3])).into()).await;
/// let answered = stream.next().await;
/// assert_eq!(answered.map(|answered| answered.id), Some(id));
/// # }
/// ```
#[derive(Debug)]
pub struct MatchStream {
    client: Client,
    open: Option<Open>,
    pending: VecDeque<Pending>,
    next_id: u64,
}

/// The answer to one question of a stream.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamAnswer {
    /// What [`MatchStream::send`] answered.
    pub id: u64,
    /// The answer.
    pub answer: Answer,
}

#[derive(Debug)]
struct Open {
    endpoint: Arc<Endpoint>,
    questions: mpsc::Sender<v1::MatchStreamRequest>,
    answers: Streaming<v1::MatchStreamResponse>,
}

#[derive(Debug)]
struct Pending {
    id: u64,
    sent: Instant,
    deadline: Instant,
    speculated: Option<Speculated>,
    /// Why it will get no answer, when that is known already.
    failed: Option<CallError>,
}

impl MatchStream {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, open: None, pending: VecDeque::new(), next_id: 0 }
    }

    /// Sends a question; answers its id. Takes no longer than the routing timeout, and a question that could
    /// not be sent is answered as unknown.
    pub async fn send(&mut self, mut request: v1::MatchRequest) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let speculated = self.client.pool().speculations.prepare(&mut request);
        let sent = Instant::now();
        let deadline = sent + self.client.config.routing_timeout;
        let failed = self.try_send(id, request, deadline).await.err();
        self.pending.push_back(Pending { id, sent, deadline, speculated, failed });
        id
    }

    /// The answer to the oldest question without one, at the latest at its deadline; `None` when every question
    /// is answered.
    pub async fn next(&mut self) -> Option<StreamAnswer> {
        let front = self.pending.front()?;
        let (id, sent, deadline, failed) = (front.id, front.sent, front.deadline, front.failed.clone());
        let mut answer = match failed {
            Some(error) => Answer::unknown(error),
            None => self.receive(id, sent, deadline).await,
        };
        let speculated = self.pending.pop_front().and_then(|pending| pending.speculated);
        if let Answer::Known(response) = &mut answer {
            self.leave_if_behind(response);
            self.client.pool().speculations.complete(speculated, response);
        }
        Some(StreamAnswer { id, answer })
    }

    /// Questions without an answer.
    #[must_use]
    pub fn unanswered(&self) -> usize {
        self.pending.len()
    }

    async fn try_send(
        &mut self,
        id: u64,
        request: v1::MatchRequest,
        deadline: Instant,
    ) -> Result<(), CallError> {
        let after = self.client.config.routing_timeout;
        if self.open.is_none() {
            self.open = Some(self.connect(deadline).await?);
        }
        let Some(open) = &self.open else { return Err(broken()) };
        let question = v1::MatchStreamRequest { id, request: Some(request) };
        match timeout_at(deadline, open.questions.send(question)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => {
                self.fail_pending(&broken());
                Err(broken())
            }
            Err(_) => Err(CallError::TimedOut { after }),
        }
    }

    async fn connect(&self, deadline: Instant) -> Result<Open, CallError> {
        let pool = self.client.pool();
        let mut tried: Vec<Arc<Endpoint>> = Vec::new();
        pool.retries.earn();
        loop {
            // All questions that wait go along: too many to try with whether a node is back, while there are others.
            let good = pool.pick(Rank::Good, &tried);
            let endpoint = good.or_else(|| pool.first().filter(|_| tried.is_empty()));
            let endpoint = endpoint.ok_or_else(|| pool.nobody())?;
            let (questions, receiver) = mpsc::channel(QUEUE);
            let attempt = endpoint.begin(true);
            let mut query = query(endpoint.tokened(), self.client.config.max_answer_bytes);
            let call = query.match_stream(ReceiverStream::new(receiver));
            let left = deadline.saturating_duration_since(Instant::now());
            match error::within(left, call).await {
                Ok(answers) => {
                    attempt.end(&Verdict::opened());
                    return Ok(Open { endpoint, questions, answers });
                }
                Err((error, verdict)) => {
                    attempt.end(&verdict);
                    tried.push(endpoint);
                    let may_retry =
                        verdict.is_the_endpoints() && tried.len() < TRIES && Instant::now() < deadline;
                    if !may_retry || pool.pick(Rank::Good, &tried).is_none() || !pool.retries.spend() {
                        return Err(match error {
                            CallError::TimedOut { .. } => self.timed_out(),
                            other => other,
                        });
                    }
                }
            }
        }
    }

    async fn receive(&mut self, id: u64, sent: Instant, deadline: Instant) -> Answer {
        // Who comes when time is over has not waited, and cannot say that the node was slow.
        let in_time = Instant::now() < deadline;
        loop {
            let Some(open) = &mut self.open else { return Answer::unknown(broken()) };
            // What lies here already came some time ago, and nobody knows when.
            let (said, waited) = match open.answers.message().now_or_never() {
                Some(said) => (Ok(said), false),
                None => (timeout_at(deadline, open.answers.message()).await, in_time),
            };
            match said {
                Ok(Ok(Some(answer))) if answer.id == id => {
                    let verdict = if waited { Verdict::answered() } else { Verdict::read_late() };
                    open.endpoint.note(&verdict, sent.elapsed(), waited);
                    return Answer::from_parts(answer.response, answer.error);
                }
                // Answers come in order, so this is one whose question was given up.
                Ok(Ok(Some(answer))) if answer.id < id => {}
                Ok(Ok(_)) => return self.fail_pending(&broken()),
                Ok(Err(status)) => {
                    let error = CallError::from_status(&status);
                    let verdict = Verdict::of(&status, &error, self.client.config.routing_timeout);
                    open.endpoint.note(&verdict, sent.elapsed(), waited);
                    return self.fail_pending(&error);
                }
                Err(_) => {
                    if waited {
                        open.endpoint.note(&Verdict::timed_out(), sent.elapsed(), true);
                    }
                    let error = self.timed_out();
                    let elsewhere = self.open.as_ref().map(|open| &open.endpoint);
                    if elsewhere.is_some_and(|endpoint| self.client.pool().is_better_elsewhere(endpoint)) {
                        return self.fail_pending(&error);
                    }
                    return Answer::unknown(error);
                }
            }
        }
    }

    /// The next question goes to another node if this one's answers are older than asked for.
    fn leave_if_behind(&mut self, response: &v1::MatchResponse) {
        let (Some(most), Some(open)) = (self.client.config.max_age, &self.open) else { return };
        if age_of(response).is_none_or(|age| age > most) {
            open.endpoint.note(&Verdict::stale(), most, false);
            if self.pending.is_empty() {
                self.open = None;
            }
        }
    }

    fn timed_out(&self) -> CallError {
        CallError::TimedOut { after: self.client.config.routing_timeout }
    }

    /// Closes the stream: nothing that was sent on it will be answered.
    fn fail_pending(&mut self, error: &CallError) -> Answer {
        self.open = None;
        for pending in &mut self.pending {
            pending.failed.get_or_insert_with(|| error.clone());
        }
        Answer::unknown(error.clone())
    }
}

fn broken() -> CallError {
    CallError::Unreachable { reason: "the match stream was closed".into() }
}
