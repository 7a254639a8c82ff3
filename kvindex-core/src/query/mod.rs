//! Questions to an index: which worker holds how long a prefix of a prompt, and why not longer. Synchronous,
//! in memory, and with the caller's scratch space instead of allocations.

mod combine;
mod doubt;
mod explain;
mod found;
mod groups;
mod held;
mod notes;
mod noting;
mod path;
mod prompt;
mod score;
mod scorer;

pub use doubt::{Doubt, Doubts};
pub use explain::{Explanation, Reason, WorkerExplanation, explain, explain_hashed};
pub use found::{Matches, Scratch, TierMatch, WorkerMatch, find_hashed, find_matches, hash_prompt};
pub use held::HeldPrefix;
pub use noting::{hash_noted, is_noted, note_namespaces};
pub use prompt::{Filter, Prompt, PromptItem, Query, QueryError, Tokens};
pub use score::{Candidates, Score, ScoreQuery, StreamSlot, score};
pub use scorer::Scorer;
