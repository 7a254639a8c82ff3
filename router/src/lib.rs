//! A reference router: OpenAI's API in front of a fleet of engines, each request sent where the index says that most
//! of its prompt is cached, weighed against what each engine has to do already.
//!
//! It is an example to read and to try, not a product: one process, no rate limits, no authentication of its own. What
//! a router should take from it:
//! - **It fails open.** When the index does not answer within its deadline, requests go to the engine with the least to
//!   do. When the list of workers cannot be had, the last one is used.
//! - **Knowledge and load are in one unit.** An engine's cost is the prompt tokens that it would have to compute before
//!   this request's first token: its queue's, and this prompt's that it does not hold ([`choose`]).
//! - **Trust is used.** What a suspect stream says to hold counts half.
//! - **Prefill and decode.** In a prefill-decode group the pair is chosen together, and told in the headers
//!   `x-openfuyao-{prefill,decode}-pod-address-port`, for a proxy of the group's own or for this router itself, which
//!   then asks both engines by vLLM's `kv_transfer_params`.
//!
//! [`engine`] is what it is tried with: an engine without a model, whose block cache and KV events are real.

pub mod choose;
pub mod engine;
mod fleet;
mod forward;
mod serve;
pub mod stage;
mod tokens;
pub mod try_out;

pub use fleet::{Fleet, Known};
pub use serve::{Router, RouterOptions};
