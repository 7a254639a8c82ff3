//! The client and its routing calls: bounded in time, and without errors.

use kvindex_proto::v1;
use kvindex_proto::v1::cluster_service_client::ClusterServiceClient;
use kvindex_proto::v1::ingest_service_client::IngestServiceClient;
use kvindex_proto::v1::query_service_client::QueryServiceClient;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;

use crate::answer::Answer;
use crate::config::{ClientConfig, ConnectError};
use crate::error::{self, CallError};
use crate::prompt::{PromptHashes, PromptTokens};
use crate::stream::MatchStream;
use crate::token::Bearer;

/// The connection, with the token on every call.
type Tokened = InterceptedService<Channel, Bearer>;

/// A connection to one node. Clones share it; make one and clone it to where it is needed.
#[derive(Debug, Clone)]
pub struct Client {
    channel: Tokened,
    pub(crate) config: ClientConfig,
}

impl Client {
    /// A client that connects with its first call, and again whenever the connection is lost. Connecting counts
    /// towards that call's deadline; who wants the first routing call to find a connection makes an admin call,
    /// such as [`Client::list_workers`], before.
    ///
    /// # Errors
    /// When the address is malformed, or no tokio runtime is there. That nobody listens is no error.
    pub fn connect(config: ClientConfig) -> Result<Self, ConnectError> {
        let channel = InterceptedService::new(config.channel()?, config.bearer()?);
        Ok(Self { channel, config })
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
    pub async fn match_prompt(&self, request: v1::MatchRequest) -> Answer {
        let mut query = self.query();
        match error::within(self.config.routing_timeout, query.r#match(request)).await {
            Ok(response) => Answer::Known(response),
            Err(error) => Answer::unknown(error),
        }
    }

    /// Many questions in one call; as many answers, in the same order.
    pub async fn match_batch(&self, requests: Vec<v1::MatchRequest>) -> Vec<Answer> {
        let asked = requests.len();
        let mut query = self.query();
        let request = v1::MatchBatchRequest { requests };
        let called = error::within(self.config.routing_timeout, query.match_batch(request)).await;
        let failed = match called {
            Ok(response) if response.results.len() == asked => {
                let results = response.results.into_iter();
                return results.map(|result| Answer::from_parts(result.response, result.error)).collect();
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

    pub(crate) fn query(&self) -> QueryServiceClient<Tokened> {
        QueryServiceClient::new(self.channel.clone()).max_decoding_message_size(self.config.max_answer_bytes)
    }

    pub(crate) fn ingest(&self) -> IngestServiceClient<Tokened> {
        IngestServiceClient::new(self.channel.clone())
    }

    pub(crate) fn cluster(&self) -> ClusterServiceClient<Tokened> {
        ClusterServiceClient::new(self.channel.clone())
    }
}
