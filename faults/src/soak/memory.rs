//! What nodes' processes and indexes take over time, and whether that is flat.
//!
//! The time after warming up is cut into parts, and each part's median is held against the first one's: a mean over all
//! of it would let growth through that goes as far above it as it began below. Medians, because a snapshot on its way
//! takes memory for a moment. Parts say something only where the index is as large in each of them.

use std::time::Duration;

use anyhow::Context;
use comfy_table::{Table, presets};
use kvindex_faults::cluster::Cluster;

/// Between two looks.
pub(crate) const EVERY: Duration = Duration::from_secs(1);
/// How far from the first part's median those of the others may be, and how many parts there are.
const FLAT: f64 = 0.05;
const PARTS: usize = 5;
/// How far the index's may be, for parts that are compared.
const STEADY: f64 = 0.05;
/// Looks that a part needs, or one of them decides.
const PART_LEAST: usize = 8;
/// An index may be above its cap by what comes before an eviction is agreed on.
const ABOVE: f64 = 1.10;
const MIB: f64 = 1_048_576.0;

#[derive(Debug, Clone, Copy)]
struct Look {
    at: Duration,
    resident: u64,
    index: u64,
}

/// Looks at each node.
pub(crate) struct Memory {
    pids: Vec<u32>,
    looks: Vec<Vec<Look>>,
}

/// What they say.
pub(crate) struct Flat {
    pub(crate) table: String,
    pub(crate) good: bool,
}

/// Resident bytes of a process.
fn resident(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_ascii_whitespace().next()?.parse::<u64>().ok()? << 10)
}

fn median(looks: &[Look], of: fn(&Look) -> u64) -> f64 {
    let mut values: Vec<u64> = looks.iter().map(of).collect();
    values.sort_unstable();
    values.get(values.len() / 2).map_or(f64::NAN, |value| *value as f64)
}

/// The largest distance from the first, as a share of it.
fn drift(medians: &[f64]) -> f64 {
    let first = medians.first().copied().unwrap_or(f64::NAN);
    medians.iter().map(|median| (median / first - 1.0).abs()).fold(0.0, f64::max)
}

/// One node's looks after warming up, part by part.
struct Parts {
    resident: Vec<f64>,
    index: Vec<f64>,
    /// Between the middles of the first part and the last.
    time: Duration,
    enough: bool,
}

impl Parts {
    fn of(warm: &[Look]) -> Self {
        let size = warm.len() / PARTS;
        let parts = || warm.chunks_exact(size.max(1)).take(PARTS);
        let time = |number| parts().nth(number).and_then(|part| part.get(part.len() / 2)).map(|look| look.at);
        Self {
            resident: parts().map(|part| median(part, |look| look.resident)).collect(),
            index: parts().map(|part| median(part, |look| look.index)).collect(),
            time: time(PARTS - 1).unwrap_or_default().saturating_sub(time(0).unwrap_or_default()),
            enough: size >= PART_LEAST,
        }
    }

    fn is_good(&self) -> bool {
        self.enough && drift(&self.resident) <= FLAT && drift(&self.index) <= STEADY
    }

    /// What an hour would add at this pace, in MiB.
    fn an_hour(&self) -> f64 {
        let (first, last) = (self.resident.first(), self.resident.last());
        let grown = last.copied().unwrap_or_default() - first.copied().unwrap_or_default();
        grown / MIB / self.time.as_secs_f64().max(1.0) * 3600.0
    }
}

impl Memory {
    pub(crate) fn new(cluster: &Cluster) -> anyhow::Result<Self> {
        let pids = cluster.all().map(|number| cluster.pid(number)).collect::<anyhow::Result<Vec<_>>>();
        let pids = pids.context("the nodes")?;
        Ok(Self { looks: vec![Vec::new(); pids.len()], pids })
    }

    pub(crate) fn look(&mut self, at: Duration, cluster: &Cluster) {
        for (number, (pid, looks)) in self.pids.iter().zip(&mut self.looks).enumerate() {
            let index = cluster.metric(number, "kvindex_index_bytes");
            looks.extend(resident(*pid).zip(index).map(|(resident, index)| Look { at, resident, index }));
        }
    }

    /// When the first node's index is full, but not before `warm_up` is over. All nodes hold the same blocks from then on;
    /// in how many bytes each does follows from its tables, so one may never come near its cap.
    fn warm(&self, warm_up: Duration, cap: u64) -> Option<Duration> {
        let full = |look: &&Look| look.index >= cap / 10 * 9;
        let first = self.looks.iter().filter_map(|looks| looks.iter().find(full)).map(|look| look.at).min();
        first.map(|at| at.max(warm_up))
    }

    pub(crate) fn judge(&self, warm_up: Duration, cap: u64) -> Flat {
        let mut table = Table::new();
        table.load_preset(presets::ASCII_MARKDOWN);
        table.set_header([
            "node",
            "warm after, s",
            "resident, MiB, part by part",
            "off the first, %",
            "an hour would add, MiB",
            "index, MiB, part by part",
            "off the first, %",
            "index at most, MiB",
        ]);
        let mut good = true;
        let from = self.warm(warm_up, cap).unwrap_or(Duration::MAX);
        for (number, looks) in self.looks.iter().enumerate() {
            let warm = looks.get(looks.partition_point(|look| look.at < from)..).unwrap_or_default();
            let parts = Parts::of(warm);
            let most = looks.iter().map(|look| look.index).max().unwrap_or(0) as f64;
            good &= parts.is_good() && most <= cap as f64 * ABOVE;
            let row = |medians: &[f64], digits: usize| {
                let texts: Vec<String> = medians.iter().map(|b| format!("{:.digits$}", b / MIB)).collect();
                texts.join(" ")
            };
            table.add_row([
                (number + 1).to_string(),
                warm.first().map_or_else(|| "never".to_owned(), |look| look.at.as_secs().to_string()),
                row(&parts.resident, 0),
                format!("{:.1}", drift(&parts.resident) * 100.0),
                format!("{:+.0}", parts.an_hour()),
                row(&parts.index, 1),
                format!("{:.1}", drift(&parts.index) * 100.0),
                format!("{:.1}", most / MIB),
            ]);
        }
        Flat { table: table.to_string(), good: good && !self.looks.is_empty() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAP: u64 = 16 << 20;

    /// A node that is looked at every second for ten minutes.
    fn judged(resident: impl Fn(f64) -> f64, index: impl Fn(f64) -> f64, warm_up: u64) -> bool {
        let look = |second: u64| Look {
            at: Duration::from_secs(second),
            resident: (resident(second as f64) * MIB) as u64,
            index: (index(second as f64) * MIB) as u64,
        };
        let memory = Memory { pids: vec![1], looks: vec![(0..600).map(look).collect()] };
        memory.judge(Duration::from_secs(warm_up), CAP).good
    }

    #[test]
    fn only_what_does_not_grow_is_flat() {
        let full = |_: f64| 15.5;
        assert!(judged(|_| 200.0, full, 180));
        assert!(judged(|second| if second % 30.0 < 5.0 { 300.0 } else { 200.0 }, full, 180), "peaks");
        assert!(judged(|second| 200.0 + second.min(150.0), full, 180), "grown before it was warm");
        // 8 % in all: never more than 5 % from its mean.
        assert!(!judged(|second| 200.0 + second / 600.0 * 24.0, full, 180), "growth");
        assert!(!judged(|second| 200.0 - second / 600.0 * 24.0, full, 180), "shrinking");
    }

    #[test]
    fn parts_are_compared_only_when_the_index_is_as_large_in_each() {
        assert!(!judged(|_| 200.0, |second| 14.5 + second / 300.0, 180), "it grows");
        assert!(!judged(|_| 200.0, |_| 10.0, 180), "never full");
        assert!(!judged(|_| 200.0, |_| 18.0, 180), "above its cap");
        assert!(!judged(|_| 200.0, |_| 15.5, 570), "too little time");
    }
}
