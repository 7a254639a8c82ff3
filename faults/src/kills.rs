//! The leader killed again and again, and how long writing stood still each time.

use std::time::{Duration, Instant};

use crate::report;
use crate::stage::{Play, Stage};

/// A killed node stays away for so long.
const AWAY: f64 = 0.5;

/// Kills `count` leaders; answers what to print, and whether all was well.
pub(crate) async fn run(play: &Play, count: usize) -> anyhow::Result<(String, bool)> {
    // About eight seconds each; engines must not fall silent before the last.
    let length = Duration::from_secs(30 + 8 * count as u64);
    let mut stage = Stage::set_up(play, "kills", length, false).await?;
    let mut done = 0;
    while done < count && stage.plays() {
        let victim = stage.leader().await?;
        let fault = Instant::now();
        stage.kill(victim)?;
        let survivors: Vec<usize> = stage.cluster.all().filter(|number| *number != victim).collect();
        let gap = stage.measure_gap(fault, &survivors).await?;
        done += 1;
        eprintln!("{done}: node {} killed, write gap {} ms", victim + 1, gap.as_millis());
        stage.pause(AWAY).await;
        stage.cluster.run(victim)?;
        stage.until_ready().await?;
        // The node that came back has to listen to the engines before another may die.
        stage.pause(1.0).await;
    }
    let outcome = stage.finish().await?;
    let mut gaps = outcome.write_gaps.clone();
    gaps.sort_unstable();
    let at = |share: f64| {
        let place = (gaps.len() as f64 * share).ceil() as usize;
        gaps.get(place.saturating_sub(1)).map_or(0, Duration::as_millis)
    };
    let mut report = report::Report::default();
    let good = outcome.is_good() && done == count;
    let seen = outcome.seen.clone();
    report.add("the leader killed again and again", &Ok(outcome));
    let text = format!(
        "{done} kills of the leader: write gap p50 {} ms, p99 {} ms, longest {} ms; {} of {} queries to living nodes \
         failed\n\n{}",
        at(0.5),
        at(0.99),
        at(1.0),
        seen.failed,
        seen.answered + seen.failed,
        report.text()
    );
    Ok((text, good))
}
