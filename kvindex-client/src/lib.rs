//! kvindex-client: what a router links to ask a kvindex node which worker holds how long a prefix of a prompt.
//!
//! Two kinds of calls, with two contracts:
//! - **Routing calls** ([`Client::match_tokens`], [`Client::match_hashes`], [`Client::match_prompt`],
//!   [`Client::match_batch`], [`Client::match_stream`]) *fail open*. They end within a deadline (20 ms unless
//!   configured) with an [`Answer`], which is [`Answer::Unknown`] when the node is slow, gone or refuses.
//!   There is no error to forget: a user's request never fails because the index is down.
//! - **Admin calls** ([`Client::explain`], [`Client::list_workers`], [`Client::register`],
//!   [`Client::unregister`], [`Client::publish`], [`Client::watch`], and those of a cluster:
//!   [`Client::cluster_status`], [`Client::remove_node`], [`Client::set_voter`], [`Client::hand_over`]) answer a
//!   [`CallError`] that says whether another attempt may help.
//!
//! ```no_run
//! use kvindex_client::{Answer, Client, ClientConfig, PromptTokens};
//!
//! # async fn route() -> Result<(), kvindex_client::ConnectError> {
//! let client = Client::connect(ClientConfig::new("http://127.0.0.1:9590"))?;
//! let prompt = PromptTokens::new("llama", &[101, 102, 103]);
//! match client.match_tokens(&prompt).await {
//!     // Best first.
//!     Answer::Known(answer) => println!("{:?}", answer.workers.first()),
//!     Answer::Unknown { reason } => println!("route without the index: {reason}"),
//! }
//! # Ok(())
//! # }
//! ```

mod admin;
mod answer;
mod cluster;
mod config;
mod error;
mod prompt;
mod routing;
mod stream;
mod tls;
mod token;

pub use admin::Watcher;
pub use answer::{Answer, UnknownReason};
pub use config::{ClientConfig, ConnectError, DEFAULT_ADMIN_TIMEOUT, DEFAULT_ROUTING_TIMEOUT};
pub use error::CallError;
pub use kvindex_proto::v1;
pub use prompt::{PromptHashes, PromptTokens};
pub use routing::Client;
pub use stream::{MatchStream, StreamAnswer};
