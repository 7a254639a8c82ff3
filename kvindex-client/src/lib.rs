//! kvindex-client: what a router links to ask a kvindex node which worker holds how long a prefix of a prompt.
//!
//! Two kinds of calls, with two contracts:
//! - **Routing calls** ([`Client::match_tokens`], [`Client::match_hashes`], [`Client::match_prompt`],
//!   [`Client::match_batch`], [`Client::match_stream`]) *fail open*. They end within a deadline (20 ms unless
//!   configured) with an [`Answer`], which is [`Answer::Unknown`] when the nodes are slow or gone, or refuse.
//!   There is no error to forget: a user's request never fails because the index is down.
//! - **Admin calls** ([`Client::explain`], [`Client::list_workers`], [`Client::register`],
//!   [`Client::unregister`], [`Client::publish`], [`Client::watch`], and those of a cluster:
//!   [`Client::cluster_status`], [`Client::remove_node`], [`Client::set_voter`], [`Client::hand_over`]) answer a
//!   [`CallError`] that says whether another attempt may help.
//!
//! Given several nodes ([`ClientConfig::of`]) a client asks whichever is expected to answer first, another one when that
//! fails or takes long, and none that is left out; [`Client::stats`] tells. [`Client::follow`] watches changes over the
//! end of a node, and [`Client::routed`] makes a prompt count where it was sent before its engine speaks of it.
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
mod calls;
mod cluster;
mod config;
mod error;
mod pool;
mod prompt;
mod routing;
mod speculative;
mod stats;
mod stream;
mod tls;
mod token;
mod watch;

pub use admin::Watcher;
pub use answer::{Answer, UnknownReason};
pub use config::{
    ClientConfig, ConnectError, DEFAULT_ADMIN_TIMEOUT, DEFAULT_PROBE_INTERVAL, DEFAULT_ROUTING_TIMEOUT,
    DEFAULT_SPECULATIVE_TTL, Hedge,
};
pub use error::CallError;
pub use kvindex_proto::v1;
pub use prompt::{PromptHashes, PromptTokens};
pub use routing::Client;
pub use speculative::{Routed, SPECULATIVE};
pub use stats::{ClientStats, EndpointState, EndpointStats, LATENCY_BOUNDS};
pub use stream::{MatchStream, StreamAnswer};
pub use watch::{Followed, Follower, ResyncReason};
