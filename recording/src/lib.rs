//! Recordings of real engines' KV events, the engines' own answers to queries, and a publisher that
//! plays a recording over real ZeroMQ sockets as the engines would.
//!
//! It knows nothing of the index: it is the outside world for demos, tests and benches.
//!
//! ```
//! use std::path::Path;
//! use std::time::Duration;
//! use kvindex_recording::{Bar, Publisher, PublisherOptions, Recording, Truth};
//!
//! let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases/restart");
//! let recording = Recording::open(&case)?;
//! let first = Truth::open(&case)?.next().expect("a recording has checkpoints")?;
//!
//! let publisher = Publisher::start(recording, PublisherOptions::default())?;
//! for engine in publisher.endpoints() {
//!     println!("{} publishes on {}, replays on {}", engine.name, engine.publish, engine.replay);
//! }
//! // Nobody subscribes in this example, so nothing waits and nothing is received.
//! assert!(!publisher.wait_for_subscribers(Duration::from_millis(10)));
//! publisher.play_until(first.pos)?;
//! for query in &first.queries {
//!     for (engine, answer) in query.engines.iter().enumerate() {
//!         println!("engine {engine} holds {} tokens of this prompt", answer.expected_tokens());
//!     }
//! }
//! assert_eq!(publisher.position(), first.pos);
//! assert_eq!(Bar::of("restart").and_then(|bar| bar.by_hash).map(|line| line.mismatches), Some(0));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod bar;
mod container;
mod header;
mod publisher;
mod tokens;
mod truth;

pub use bar::{Bar, Line};
pub use container::{Record, Recording, RecordingError};
pub use header::{EngineHeader, EngineKind, GroupHeader, Header, Version};
pub use publisher::{
    EngineEndpoints, Faults, Pace, Publisher, PublisherError, PublisherOptions, PublisherStats, ReplayFault,
    ReplayFrames, SeqRange,
};
pub use tokens::{MAX_PROMPT_TOKENS, PromptSpec, TokenRule, splitmix64};
pub use truth::{Answer, BlockHashes, Checkpoint, Lora, MmItem, Query, Truth, TruthError};
