//! The leader apart from the other nodes, while clients and engines still reach everyone.

use std::time::{Duration, Instant};

use anyhow::Context;

use crate::rows::{LENGTH, others};
use crate::stage::{Outcome, Play, Stage};

/// How long nodes are apart: several elections, and longer than a cut-off node takes to say that it is.
const APART: Duration = Duration::from_secs(4);

/// Drops what the leader sends to the others, what they send to it, or both.
pub(crate) async fn leader(play: &Play, name: &str, sends: bool, hears: bool) -> anyhow::Result<Outcome> {
    let mut stage = Stage::set_up(play, name, LENGTH, false).await?;
    let victim = stage.leader().await?;
    let rest = others(&stage, victim);
    let network = stage.cluster.network().clone();
    let mut cuts = Vec::new();
    for other in &rest {
        // Not to the fault's measure: a cut takes milliseconds.
        cuts.extend(if sends { vec![(victim, *other)] } else { Vec::new() });
        cuts.extend(if hears { vec![(*other, victim)] } else { Vec::new() });
    }
    for (from, to) in &cuts {
        network.cut(*from, *to)?;
    }
    let fault = Instant::now();
    let gap = stage.measure_gap(fault, &rest).await.context("while the leader was apart");
    stage.pause(APART.saturating_sub(fault.elapsed()).as_secs_f64()).await;
    for (from, to) in &cuts {
        network.mend(*from, *to)?;
    }
    gap?;
    stage.finish().await
}
