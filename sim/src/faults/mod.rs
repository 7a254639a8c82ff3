//! What may go wrong, one file each. A fault strikes, lasts and is mended; several may strike at once.

mod clock_jump;
mod crash;
mod engine_restart;
mod event_gap;
mod full_disk;
mod membership;
mod one_way;
mod overtaking;
mod partition;
mod pause;
mod power_loss;
mod registry;
mod slow_disk;
mod slow_link;
mod snapshot_now;
mod wiped_disk;

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

use crate::dice::Dice;
use crate::node::Node;
use crate::plan::PlannedFault;
use crate::world::World;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Some nodes cannot reach the others, nor these them.
    Partition,
    /// One node is heard by nobody, or hears nobody.
    OneWay,
    /// Processes are killed, and start again.
    Crash,
    /// Machines lose power: what was not flushed is gone, but for a beginning of it.
    PowerLoss,
    /// Writes take long.
    SlowDisk,
    /// Every write fails; the process must stop.
    FullDisk,
    /// Messages take long.
    SlowLink,
    /// Messages overtake each other, come twice, or are lost.
    Overtaking,
    /// Wall clocks jump.
    ClockJump,
    /// A process stands still for longer than a lease.
    Pause,
    /// An engine begins another life.
    EngineRestart,
    /// Batches are lost between engines and subscribers.
    EventGap,
    /// Nodes join, are promoted, leave; leadership is handed over.
    Membership,
    /// A snapshot is taken at once, and the log before it goes.
    SnapshotNow,
    /// A worker is taken out of the registry and put back.
    Registry,
    /// A node loses all that it kept, and joins anew.
    WipedDisk,
}

impl Kind {
    /// All of them, by the name that the command line uses.
    pub const ALL: [(Self, &'static str); 16] = [
        (Self::Partition, "partition"),
        (Self::OneWay, "one-way"),
        (Self::Crash, "crash"),
        (Self::PowerLoss, "power-loss"),
        (Self::SlowDisk, "slow-disk"),
        (Self::FullDisk, "full-disk"),
        (Self::SlowLink, "slow-link"),
        (Self::Overtaking, "overtaking"),
        (Self::ClockJump, "clock-jump"),
        (Self::Pause, "pause"),
        (Self::EngineRestart, "engine-restart"),
        (Self::EventGap, "event-gap"),
        (Self::Membership, "membership"),
        (Self::SnapshotNow, "snapshot-now"),
        (Self::Registry, "registry"),
        (Self::WipedDisk, "wiped-disk"),
    ];

    /// The name that the command line uses.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(kind, _)| *kind == self).map_or("", |(_, name)| name)
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|(_, name)| *name == text);
        let names = || Self::ALL.map(|(_, name)| name).join(", ");
        found.map(|(kind, _)| *kind).ok_or_else(|| format!("no fault \"{text}\": {}", names()))
    }
}

/// Between two looks at whether the cluster is whole, and how many.
const LOOK: Duration = Duration::from_millis(100);
const MOST_LOOKS: usize = 300;

/// A fault at work.
pub(crate) struct Strike {
    world: Arc<World>,
    dice: Dice,
    lasts: Duration,
}

impl Strike {
    fn any_node(&mut self) -> Option<Arc<Node>> {
        self.dice.pick(&self.world.nodes()).cloned()
    }

    /// One node, or several, or all.
    fn some_nodes(&mut self) -> Vec<Arc<Node>> {
        let nodes = self.world.nodes();
        match self.dice.below(10) {
            0 => nodes,
            1..4 => nodes.into_iter().filter(|_| self.dice.percent(50)).collect(),
            _ => self.dice.pick(&nodes).cloned().into_iter().collect(),
        }
    }

    async fn last(&self) {
        sleep(self.lasts).await;
    }

    /// Waits until nothing is missing from the cluster, but not for ever: the world looks at that itself.
    async fn wait_until_whole(&self) {
        for _ in 0..MOST_LOOKS {
            sleep(LOOK).await;
            if self.world.incomplete().is_none() {
                return;
            }
        }
    }

    fn say(&self, node: u64, text: impl Into<String>) {
        self.world.trace.say("FAULT", node, text);
    }
}

/// Lets a fault strike when it is due.
pub(crate) async fn strike(world: Arc<World>, fault: PlannedFault) {
    let wait = fault.at_ms.saturating_sub(world.trace.now_ms());
    sleep(Duration::from_millis(wait)).await;
    let (dice, lasts) = (Dice::new(fault.seed), Duration::from_millis(fault.lasts_ms));
    world.trace.say("FAULT", 0, format!("{} for {} ms", fault.kind.name(), fault.lasts_ms));
    let strike = Strike { world, dice, lasts };
    match fault.kind {
        Kind::Partition => partition::strike(strike).await,
        Kind::OneWay => one_way::strike(strike).await,
        Kind::Crash => crash::strike(strike).await,
        Kind::PowerLoss => power_loss::strike(strike).await,
        Kind::SlowDisk => slow_disk::strike(strike).await,
        Kind::FullDisk => full_disk::strike(strike).await,
        Kind::SlowLink => slow_link::strike(strike).await,
        Kind::Overtaking => overtaking::strike(strike).await,
        Kind::ClockJump => clock_jump::strike(strike).await,
        Kind::Pause => pause::strike(strike).await,
        Kind::EngineRestart => engine_restart::strike(strike).await,
        Kind::EventGap => event_gap::strike(strike).await,
        Kind::Membership => membership::strike(strike).await,
        Kind::SnapshotNow => snapshot_now::strike(strike).await,
        Kind::Registry => registry::strike(strike).await,
        Kind::WipedDisk => wiped_disk::strike(strike).await,
    }
}
