//! The leader killed again and again, and how long writing stood still each time.

use std::time::{Duration, Instant};

use crate::report;
use crate::rows::others;
use crate::stage::{Outcome, Play, Stage};

/// A killed node stays away for so long.
const AWAY: f64 = 0.5;

/// Kills `count` leaders; answers what to print, and whether all was well. A recording ends before so many can be
/// killed, so there are rounds, each with a cluster of its own.
pub(crate) async fn run(play: &Play, count: usize) -> anyhow::Result<(String, bool)> {
    let mut report = report::Report::default();
    let mut all = Outcome { equal: true, truth: true, ..Outcome::default() };
    let mut rounds = 0;
    while all.write_gaps.len() < count {
        rounds += 1;
        let outcome = round(play, count - all.write_gaps.len(), rounds).await?;
        anyhow::ensure!(!outcome.write_gaps.is_empty(), "the recording is too short to kill anybody");
        all.add(outcome);
    }
    let mut gaps = all.write_gaps.clone();
    gaps.sort_unstable();
    let at = |share: f64| {
        let place = (gaps.len() as f64 * share).ceil() as usize;
        gaps.get(place.saturating_sub(1)).map_or(0, Duration::as_millis)
    };
    let summary = format!(
        "{count} kills of the leader in {rounds} rounds: write gap p50 {} ms, p99 {} ms, longest {} ms; {} of {} queries \
         to living nodes failed",
        at(0.5),
        at(0.99),
        at(1.0),
        all.seen.failed,
        all.seen.answered + all.seen.failed,
    );
    let good = all.is_good();
    report.add("the leader killed again and again", &Ok(all));
    Ok((format!("{summary}\n\n{}", report.text()), good))
}

async fn round(play: &Play, most: usize, number: usize) -> anyhow::Result<Outcome> {
    // As long as there is something to say.
    let mut stage = Stage::set_up(play, &format!("kills-{number}"), Duration::from_secs(3600), false).await?;
    let mut done = 0;
    while done < most && stage.has_more_than(play.rate as usize * 4) {
        let victim = stage.leader().await?;
        let fault = Instant::now();
        stage.kill(victim)?;
        let gap = stage.measure_gap(fault, &others(&stage, victim)).await?;
        done += 1;
        eprintln!("{number}.{done}: node {} killed, write gap {} ms", victim + 1, gap.as_millis());
        stage.pause(AWAY).await;
        stage.cluster.run(victim)?;
        stage.until_ready().await?;
        // The node that came back has to listen to the engines before another may die.
        stage.pause(1.0).await;
    }
    stage.finish().await
}
