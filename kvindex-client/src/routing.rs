//! The client and its routing calls: bounded in time, and without errors.

use std::sync::Arc;
use std::time::Duration;

use kvindex_proto::v1;

use crate::answer::Answer;
use crate::config::{ClientConfig, ConnectError};
use crate::error::CallError;
use crate::pool::{Pool, Running};
use crate::prompt::{PromptHashes, PromptTokens};
use crate::stats::ClientStats;
use crate::stream::MatchStream;

/// Connections to one node, or to several of a cluster. Clones share them; make one and clone it to where it is needed.
#[derive(Debug, Clone)]
pub struct Client {
    running: Arc<Running>,
    pub(crate) config: Arc<ClientConfig>,
}

impl Client {
    /// A client that connects with its first call, and again whenever the connection is lost. Connecting counts
    /// towards that call's deadline; who wants the first routing call to find a connection makes an admin call,
    /// such as [`Client::list_workers`], before. With several nodes each is asked at once whether it is ready, which
    /// connects as well.
    ///
    /// # Errors
    /// When no address is given or one is malformed, the token's file cannot be read, certificates cannot be used, or no tokio runtime
    /// is there. That nobody listens is no error.
    pub fn connect(config: ClientConfig) -> Result<Self, ConnectError> {
        let running = Arc::new(Running::start(&config)?);
        Ok(Self { running, config: Arc::new(config) })
    }

    /// Which workers hold how long a prefix of these tokens.
    pub async fn match_tokens(&self, prompt: &PromptTokens) -> Answer {
        self.match_prompt(prompt.into()).await
    }

    /// Which workers hold how long a prefix of these blocks.
    pub async fn match_hashes(&self, prompt: &PromptHashes) -> Answer {
        self.match_prompt(prompt.into()).await
    }

    /// The same with everything a question can have: candidates, role, group, labels, tier, top k.
    ///
    /// ```no_run
    /// use kvindex_client::{Client, PromptTokens, v1::MatchRequest};
    ///
    /// # async fn ask(client: Client) {
    /// let prompt = PromptTokens::new("llama", &[1, 2, 3]);
    /// let request = MatchRequest { role: Some("decode".into()), top_k: Some(3), ..(&prompt).into() };
    /// let answer = client.match_prompt(request).await;
    /// # }
    /// ```
    pub async fn match_prompt(&self, mut request: v1::MatchRequest) -> Answer {
        let speculated = self.pool().speculations.prepare(&mut request);
        let call = |mut query: crate::calls::Query| {
            let request = request.clone();
            async move { query.r#match(request).await }
        };
        match self.ask(call, age_of).await {
            Ok(mut response) => {
                self.pool().speculations.complete(speculated, &mut response);
                Answer::Known(response)
            }
            Err(error) => Answer::unknown(error),
        }
    }

    /// Many questions in one call; as many answers, in the same order.
    pub async fn match_batch(&self, mut requests: Vec<v1::MatchRequest>) -> Vec<Answer> {
        let asked = requests.len();
        let speculations = &self.pool().speculations;
        let speculated: Vec<_> = requests.iter_mut().map(|request| speculations.prepare(request)).collect();
        let request = v1::MatchBatchRequest { requests };
        let call = |mut query: crate::calls::Query| {
            let request = request.clone();
            async move { query.match_batch(request).await }
        };
        let failed = match self.ask(call, oldest_of).await {
            Ok(response) if response.results.len() == asked => {
                let results = response.results.into_iter().zip(speculated);
                return results
                    .map(|(mut result, speculated)| {
                        if let Some(response) = &mut result.response {
                            speculations.complete(speculated, response);
                        }
                        Answer::from_parts(result.response, result.error)
                    })
                    .collect();
            }
            Ok(response) => CallError::Refused {
                code: tonic::Code::Internal,
                message: format!("{} answers to {asked} questions", response.results.len()),
            },
            Err(error) => error,
        };
        vec![Answer::unknown(failed); asked]
    }

    /// Questions and answers on one connection, which saves the set-up of a call for each.
    #[must_use]
    pub fn match_stream(&self) -> MatchStream {
        MatchStream::new(self.clone())
    }

    /// What this client and its clones counted: calls and their times by endpoint and outcome, second and repeated
    /// calls, and which endpoints are left out and why. For metrics, and for looking at.
    #[must_use]
    pub fn stats(&self) -> ClientStats {
        self.pool().stats()
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.running.pool
    }
}

/// How old an answer says that it is; `None` when not even that is known.
pub(crate) fn age_of(response: &v1::MatchResponse) -> Option<Duration> {
    match &response.freshness {
        // A node without a cluster has everything there is.
        None => Some(Duration::ZERO),
        Some(freshness) => freshness.age_ms.map(Duration::from_millis),
    }
}

fn oldest_of(response: &v1::MatchBatchResponse) -> Option<Duration> {
    let answers = response.results.iter().filter_map(|result| result.response.as_ref());
    answers.map(age_of).try_fold(Duration::ZERO, |oldest, age| age.map(|age| age.max(oldest)))
}
