//! Many questions on one connection. Fails open like every routing call: each question gets exactly one answer,
//! within its deadline, whatever happens to the connection.

use std::collections::VecDeque;

use kvindex_proto::v1;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::answer::Answer;
use crate::error::{self, CallError};
use crate::routing::Client;

/// Questions on their way to the node. More would only wait here until their deadline.
const QUEUE: usize = 64;

/// A stream of questions and answers. It connects with the first question, and again after it was broken.
///
/// Send any number of questions, then take as many answers. Answers are only read by [`MatchStream::next`]: who
/// sends many thousand without reading will see the late ones time out.
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
    questions: mpsc::Sender<v1::MatchStreamRequest>,
    answers: Streaming<v1::MatchStreamResponse>,
}

#[derive(Debug)]
struct Pending {
    id: u64,
    deadline: Instant,
    /// Why it will get no answer, when that is known already.
    failed: Option<CallError>,
}

impl MatchStream {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, open: None, pending: VecDeque::new(), next_id: 0 }
    }

    /// Sends a question; answers its id. Takes no longer than the routing timeout, and a question that could
    /// not be sent is answered as unknown.
    pub async fn send(&mut self, request: v1::MatchRequest) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let deadline = Instant::now() + self.client.config.routing_timeout;
        let failed = self.try_send(id, request, deadline).await.err();
        self.pending.push_back(Pending { id, deadline, failed });
        id
    }

    /// The answer to the oldest question without one, at the latest at its deadline; `None` when every question
    /// is answered.
    pub async fn next(&mut self) -> Option<StreamAnswer> {
        let front = self.pending.front()?;
        let (id, deadline, failed) = (front.id, front.deadline, front.failed.clone());
        let answer = match failed {
            Some(error) => Answer::unknown(error),
            None => self.receive(id, deadline).await,
        };
        self.pending.pop_front();
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
            self.open = Some(self.connect().await?);
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

    async fn connect(&self) -> Result<Open, CallError> {
        let (questions, receiver) = mpsc::channel(QUEUE);
        let mut query = self.client.query();
        let call = query.match_stream(ReceiverStream::new(receiver));
        let answers = error::within(self.client.config.routing_timeout, call).await?;
        Ok(Open { questions, answers })
    }

    async fn receive(&mut self, id: u64, deadline: Instant) -> Answer {
        loop {
            let Some(open) = &mut self.open else { return Answer::unknown(broken()) };
            match timeout_at(deadline, open.answers.message()).await {
                Ok(Ok(Some(answer))) if answer.id == id => {
                    return Answer::from_parts(answer.response, answer.error);
                }
                // Answers come in order, so this is one whose question was given up.
                Ok(Ok(Some(answer))) if answer.id < id => {}
                Ok(Ok(_)) => return self.fail_pending(&broken()),
                Ok(Err(status)) => return self.fail_pending(&CallError::from_status(&status)),
                Err(_) => {
                    return Answer::unknown(CallError::TimedOut {
                        after: self.client.config.routing_timeout,
                    });
                }
            }
        }
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
