//! `kvindex-router try`: what the router does, shown on an index, two engines and a prefill-decode group that are
//! started for it.

use anyhow::{Context, ensure};
use serde_json::Value;
use std::fmt::Write as _;

use crate::engine::EngineOptions;
pub use crate::stage::registration;
use crate::stage::{Part, Reply, Stage};

/// A prompt long enough that computing it shows.
const STORY: &str = "Once upon a time there was a cache that knew where it was. ";
const TIMES: usize = 40;

const WHOLE: [Part; 2] = [("one", None, None), ("two", None, None)];

const GROUP: [Part; 3] = [
    ("prefill-0", Some("prefill"), Some("group-0")),
    ("prefill-1", Some("prefill"), Some("group-0")),
    ("decode-0", Some("decode"), Some("group-0")),
];

/// Runs it; answers what there is to read.
///
/// # Errors
/// When a part does not start, or an answer is not as it must be.
pub async fn run() -> anyhow::Result<String> {
    let mut text = String::new();
    for (title, parts) in
        [("Two engines that do all of a request", &WHOLE[..]), ("A prefill-decode group", &GROUP[..])]
    {
        writeln!(text, "{}{title}", if text.is_empty() { "" } else { "\n" })?;
        let stage = Stage::start(parts, EngineOptions::default()).await?;
        let chat = stage.chat(&STORY.repeat(TIMES), true);
        let tokens = stage.tokens(&chat).await?;
        for turn in ["first", "again"] {
            let reply = stage.post("/v1/chat/completions", &chat).await?;
            tell(&mut text, turn, &reply)?;
            let worker = reply.header("x-kvindex-worker").to_owned();
            // Its events come after its answer: the same prompt a moment later finds them.
            stage.holds(&worker, &tokens, tokens.len() as u64 / 16 * 16).await?;
        }
    }
    Ok(text)
}

fn tell(text: &mut String, turn: &str, reply: &Reply) -> anyhow::Result<()> {
    ensure!(reply.status == 200, "status {}: {}", reply.status, reply.text());
    let events = reply.events()?;
    let usage = events.last().and_then(|event| event.get("usage")).context("a stream without usage")?;
    let number = |path: &str| usage.pointer(path).and_then(Value::as_u64).unwrap_or(0);
    let first = reply.pieces.first().map_or(0, |(at, _)| at.as_millis());
    let pair = match reply.header("x-openfuyao-decode-pod-address-port") {
        "" => String::new(),
        decode => format!(
            ", prefill at {}, decode at {decode}",
            reply.header("x-openfuyao-prefill-pod-address-port")
        ),
    };
    writeln!(
        text,
        "  {turn}: {} of {} prompt tokens said to be at {}{pair}; first token after {first} ms, {} pieces",
        reply.header("x-kvindex-matched-tokens"),
        number("/prompt_tokens"),
        reply.header("x-kvindex-worker"),
        reply.pieces.len(),
    )?;
    Ok(())
}
