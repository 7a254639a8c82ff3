//! `kvindex replay`: plays a recording as N engines over real ZeroMQ, with faults on request, for any subscriber.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use kvindex_recording::{
    EngineEndpoints, Faults, Pace, Publisher, PublisherOptions, PublisherStats, Recording, ReplayFrames,
    SeqRange,
};
use serde_json::json;

use crate::demo::{self, Output, roster};
use crate::output;

/// Arguments of `kvindex replay`.
#[derive(Debug, clap::Args)]
pub(crate) struct ReplayArgs {
    /// Recording to play: the path of a case without suffix
    #[arg(value_name = "CASE")]
    case: PathBuf,
    #[command(flatten)]
    play: PlayArgs,
    /// Seconds to wait for a subscriber to each engine before playing; 0 plays at once
    #[arg(long, value_name = "SECS", default_value_t = 60)]
    wait: u64,
    /// Seconds to go on answering replay requests after the last batch
    #[arg(long, value_name = "SECS", default_value_t = 5)]
    linger: u64,
    /// Register the engines as workers of this server, such as http://127.0.0.1:9590
    #[arg(long, value_name = "URL")]
    register: Option<String>,
    /// Model name to register the workers under
    #[arg(long, value_name = "NAME", default_value = "demo-model")]
    model: String,
}

/// How to play.
#[derive(Debug, clap::Args)]
struct PlayArgs {
    /// Address to publish on, without port
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// Engine i publishes on this port + i; the system chooses when left out
    #[arg(long, value_name = "N")]
    port: Option<u16>,
    /// Engine i answers replay requests on this port + i; the system chooses when left out
    #[arg(long, value_name = "N")]
    replay_port: Option<u16>,
    /// Event batches a second, all engines together; as fast as possible when left out
    #[arg(long, value_name = "N", conflicts_with = "speed")]
    rate: Option<f64>,
    /// The recorded timing, times this
    #[arg(long, value_name = "X")]
    speed: Option<f64>,
    #[command(flatten)]
    faults: FaultArgs,
    /// Frames of a replay answer: 2 as vLLM before 0.26 and SGLang before 0.5.22, 3 as later ones
    #[arg(long, value_name = "2|3", default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=3))]
    replay_frames: u8,
}

/// What goes wrong. E is an engine's index, A, B and SEQ are its sequence numbers.
#[derive(Debug, clap::Args)]
struct FaultArgs {
    /// Never publish these batches; they can be replayed
    #[arg(long, value_name = "E:A-B", value_parser = seq_range)]
    drop: Vec<SeqRange>,
    /// Neither publish nor replay these batches
    #[arg(long, value_name = "E:A-B", value_parser = seq_range)]
    lose: Vec<SeqRange>,
    /// Publish these batches twice
    #[arg(long, value_name = "E:A-B", value_parser = seq_range)]
    dup: Vec<SeqRange>,
    /// Restart this engine after this batch; it plays its life again
    #[arg(long, value_name = "E:SEQ", value_parser = engine_seq)]
    restart: Vec<(u32, u64)>,
    /// Drop this share of all batches at random, 0 to 1; they can be replayed
    #[arg(long, value_name = "F", default_value_t = 0.0)]
    drop_fraction: f64,
    /// Seed of the random drops
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
}

/// Plays the recording to its end.
pub(crate) fn run(args: ReplayArgs, output: Output) -> anyhow::Result<ExitCode> {
    let ReplayArgs { case, play, wait, linger, register, model } = args;
    let recording = Recording::open(&demo::without_suffix(&case))?;
    let publisher = Publisher::start(recording, play.options())?;
    for engine in publisher.endpoints() {
        show_engine(output, engine)?;
    }
    if let Some(server) = &register {
        let workers = register_at(server, &publisher, &model)?;
        let value = json!({"event": "registered", "server": server, "model": model, "workers": workers});
        say(output, &value, || format!("registered {} workers of model {model} at {server}", workers.len()))?;
    }
    if wait > 0 && !publisher.wait_for_subscribers(Duration::from_secs(wait)) {
        bail!("not every engine got a subscriber within {wait} s (--wait 0 plays without)");
    }
    let records = publisher.recording().records.len();
    let bar = demo::progress_bar(records as u64);
    let played = publisher.play_until_with(records, |pos| bar.set_position(pos as u64))?;
    bar.finish_and_clear();
    show_end(output, played, &publisher.stats())?;
    std::thread::sleep(Duration::from_secs(linger));
    publisher.stop()?;
    Ok(ExitCode::SUCCESS)
}

fn register_at(server: &str, publisher: &Publisher, model: &str) -> anyhow::Result<Vec<String>> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start the async runtime")?;
    runtime.block_on(async {
        let channel = roster::connect(server).await?;
        roster::register(channel, &publisher.recording().header, publisher.endpoints(), model).await
    })
}

impl PlayArgs {
    fn options(self) -> PublisherOptions {
        let pace = match (self.rate, self.speed) {
            (Some(rate), _) => Pace::Rate(rate),
            (None, Some(speed)) => Pace::Speed(speed),
            (None, None) => Pace::Unpaced,
        };
        let replay_frames = if self.replay_frames == 2 { ReplayFrames::Two } else { ReplayFrames::Three };
        let FaultArgs { drop, lose, dup, restart, drop_fraction, seed } = self.faults;
        let faults =
            Faults { drop, lose, dup, drop_fraction, seed, restart_after: restart, ..Faults::default() };
        PublisherOptions {
            host: self.host,
            port: self.port,
            replay_port: self.replay_port,
            pace,
            replay_frames,
            faults,
            ..PublisherOptions::default()
        }
    }
}

fn show_engine(format: Output, engine: &EngineEndpoints) -> anyhow::Result<()> {
    let EngineEndpoints { engine: index, name, topic, dp_rank, publish, replay } = engine;
    let value = json!({"event": "engine", "engine": index, "name": name, "topic": topic, "dp_rank": dp_rank,
                       "endpoint": publish, "replay_endpoint": replay});
    say(format, &value, || {
        format!("{name} (dp rank {dp_rank}) publishes {topic:?} on {publish}, replays on {replay}")
    })
}

fn show_end(format: Output, played: usize, stats: &PublisherStats) -> anyhow::Result<()> {
    let value = json!({"event": "played", "records": played, "published": stats.published,
                       "dropped": stats.dropped, "lost": stats.lost, "duplicated": stats.duplicated,
                       "restarts": stats.restarts, "replay_requests": stats.replay_requests,
                       "replayed": stats.replayed});
    say(format, &value, || {
        let PublisherStats { published, dropped, lost, duplicated, restarts, replayed, .. } = stats;
        format!(
            "played {played} event batches: {published} published, {dropped} dropped, {lost} lost, \
             {duplicated} twice, {restarts} restarts, {replayed} replayed so far"
        )
    })
}

fn say(format: Output, value: &serde_json::Value, text: impl FnOnce() -> String) -> anyhow::Result<()> {
    match format {
        Output::Json => output::json_line(value),
        Output::Table => output::line(&text()),
    }
}

/// Reads `E:A-B`, or `E:A` for one batch.
fn seq_range(text: &str) -> Result<SeqRange, String> {
    let parse = || {
        let (engine, seqs) = text.split_once(':')?;
        let (first, last) = seqs.split_once('-').unwrap_or((seqs, seqs));
        Some((engine.parse().ok()?, first.parse::<u64>().ok()?, last.parse::<u64>().ok()?))
    };
    let (engine, first, last) = parse().ok_or("must be engine:first-last in numbers, such as 2:100-140")?;
    if first > last {
        return Err(format!("first batch {first} is behind last batch {last}"));
    }
    Ok(SeqRange::new(engine, first..=last))
}

/// Reads `E:SEQ`.
fn engine_seq(text: &str) -> Result<(u32, u64), String> {
    let parse = || {
        let (engine, seq) = text.split_once(':')?;
        Some((engine.parse().ok()?, seq.parse().ok()?))
    };
    parse().ok_or_else(|| "must be engine:batch in numbers, such as 2:100".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read() {
        assert_eq!(seq_range("2:5-9"), Ok(SeqRange::new(2, 5..=9)));
        assert_eq!(seq_range("2:5"), Ok(SeqRange::new(2, 5..=5)));
        assert_eq!(engine_seq("4:300"), Ok((4, 300)));
        for bad in ["", "2", "2:", "2:a-b", "2:9-5", "-1:3-4"] {
            assert!(seq_range(bad).is_err(), "{bad}");
        }
        assert!(engine_seq("4:").is_err());
    }
}
