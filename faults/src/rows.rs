//! The faults by name, and those that only take signals.

use std::time::{Duration, Instant};

use anyhow::Context;

use crate::stage::{Outcome, Play, Stage};
use crate::{damage, partition};

/// A fault with its name in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Row {
    /// SIGKILL of a follower
    KillFollower,
    /// SIGKILL of the leader
    KillLeader,
    /// SIGKILL of all three at once
    KillAll,
    /// SIGSTOP of the leader for longer than its lease
    StopLeader,
    /// The leader and the others do not hear each other
    CutLeader,
    /// The others do not hear the leader
    MuteLeader,
    /// The leader does not hear the others
    DeafLeader,
    /// A follower's disk is full
    FullFollower,
    /// The leader's disk is full
    FullLeader,
    /// A flipped byte in the log of a stopped node
    CorruptLog,
    /// A flipped byte in a snapshot of a stopped node
    CorruptSnapshot,
    /// A stopped node's data directory is gone
    Wipe,
    /// A node is started from an old copy of its data
    OldCopy,
}

/// How long a node is gone.
pub(crate) const AWAY: f64 = 3.0;
/// How long engines play in a row.
pub(crate) const LENGTH: Duration = Duration::from_secs(15);

impl Row {
    /// All of them, in the order of the table.
    pub(crate) const ALL: [Self; 13] = [
        Self::KillFollower,
        Self::KillLeader,
        Self::KillAll,
        Self::StopLeader,
        Self::CutLeader,
        Self::MuteLeader,
        Self::DeafLeader,
        Self::FullFollower,
        Self::FullLeader,
        Self::CorruptLog,
        Self::CorruptSnapshot,
        Self::Wipe,
        Self::OldCopy,
    ];

    /// In words.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::KillFollower => "SIGKILL of a follower",
            Self::KillLeader => "SIGKILL of the leader",
            Self::KillAll => "SIGKILL of all three",
            Self::StopLeader => "SIGSTOP of the leader, 3 s",
            Self::CutLeader => "leader cut off, both ways, 4 s",
            Self::MuteLeader => "leader is not heard, 4 s",
            Self::DeafLeader => "leader does not hear, 4 s",
            Self::FullFollower => "disk full under a follower",
            Self::FullLeader => "disk full under the leader",
            Self::CorruptLog => "log corrupted",
            Self::CorruptSnapshot => "snapshot corrupted",
            Self::Wipe => "data directory wiped",
            Self::OldCopy => "started from an old copy of its data",
        }
    }

    /// Plays it; `None` when this machine does not allow it.
    pub(crate) async fn play(self, play: &Play) -> Option<anyhow::Result<Outcome>> {
        if self.needs_namespaces() && !play.options.network.can_cut() {
            return None;
        }
        Some(match self {
            Self::KillFollower => kill_one(play, false).await,
            Self::KillLeader => kill_one(play, true).await,
            Self::KillAll => kill_all(play).await,
            Self::StopLeader => stop_leader(play).await,
            Self::CutLeader => partition::leader(play, "cut-leader", true, true).await,
            Self::MuteLeader => partition::leader(play, "mute-leader", true, false).await,
            Self::DeafLeader => partition::leader(play, "deaf-leader", false, true).await,
            Self::FullFollower => damage::disk_full(play, false).await,
            Self::FullLeader => damage::disk_full(play, true).await,
            Self::CorruptLog => damage::corrupt_log(play).await,
            Self::CorruptSnapshot => damage::corrupt_snapshot(play).await,
            Self::Wipe => damage::wipe(play).await,
            Self::OldCopy => damage::old_copy(play).await,
        })
    }

    /// Partitions need a network of our own, and a full disk root, which comes with it.
    fn needs_namespaces(self) -> bool {
        matches!(
            self,
            Self::CutLeader | Self::MuteLeader | Self::DeafLeader | Self::FullFollower | Self::FullLeader
        )
    }
}

/// Everyone but one.
pub(crate) fn others(stage: &Stage, victim: usize) -> Vec<usize> {
    stage.cluster.all().filter(|number| *number != victim).collect()
}

async fn kill_one(play: &Play, leader: bool) -> anyhow::Result<Outcome> {
    let name = if leader { "kill-leader" } else { "kill-follower" };
    let mut stage = Stage::set_up(play, name, LENGTH, false).await?;
    let victim = if leader { stage.leader().await? } else { stage.follower().await? };
    let fault = Instant::now();
    stage.kill(victim)?;
    stage.measure_gap(fault, &others(&stage, victim)).await?;
    stage.pause(AWAY).await;
    stage.cluster.run(victim)?;
    stage.finish().await
}

/// Nobody listens while all are gone, so here the engines can be asked again for what they said.
async fn kill_all(play: &Play) -> anyhow::Result<Outcome> {
    let mut stage = Stage::set_up(play, "kill-all", LENGTH, true).await?;
    let all: Vec<usize> = stage.cluster.all().collect();
    let fault = Instant::now();
    for number in &all {
        stage.kill(*number)?;
    }
    for number in &all {
        stage.cluster.run(*number)?;
    }
    stage.measure_gap(fault, &all).await?;
    stage.finish().await
}

async fn stop_leader(play: &Play) -> anyhow::Result<Outcome> {
    let mut stage = Stage::set_up(play, "stop-leader", LENGTH, false).await?;
    let victim = stage.leader().await?;
    stage.clients.expect(victim, false);
    let fault = Instant::now();
    stage.cluster.signal(victim, "STOP")?;
    stage.measure_gap(fault, &others(&stage, victim)).await.context("while the leader stood still")?;
    let rest = Duration::from_secs_f64(AWAY).saturating_sub(fault.elapsed());
    stage.pause(rest.as_secs_f64()).await;
    stage.cluster.signal(victim, "CONT")?;
    stage.finish().await
}
