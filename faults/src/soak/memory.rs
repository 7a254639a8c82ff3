//! What nodes' processes and indexes take over time, and whether that is flat.

use std::time::Duration;

use anyhow::Context;
use comfy_table::{Table, presets};
use kvindex_faults::cluster::Cluster;
use kvindex_faults::metric;

/// Between two looks.
pub(crate) const EVERY: Duration = Duration::from_secs(1);
/// How far from their mean the means of parts of the time may be, and how many parts there are.
const FLAT: f64 = 0.05;
const PARTS: usize = 5;
/// An index may be above its cap by what comes before an eviction is agreed on.
const ABOVE: f64 = 1.10;

#[derive(Debug, Clone, Copy)]
struct Look {
    at: Duration,
    resident: u64,
    index: Option<u64>,
}

/// Looks at each node.
pub(crate) struct Memory {
    nodes: Vec<(u32, String, Vec<Look>)>,
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

fn mean(looks: &[Look]) -> f64 {
    looks.iter().map(|look| look.resident as f64).sum::<f64>() / looks.len().max(1) as f64
}

impl Memory {
    pub(crate) fn new(cluster: &Cluster) -> anyhow::Result<Self> {
        let node = |number| Ok((cluster.pid(number)?, cluster.address(number), Vec::new()));
        Ok(Self { nodes: cluster.all().map(node).collect::<anyhow::Result<_>>().context("the nodes")? })
    }

    pub(crate) fn look(&mut self, at: Duration) {
        for (pid, address, looks) in &mut self.nodes {
            let Some(resident) = resident(*pid) else { continue };
            looks.push(Look { at, resident, index: metric(address, "kvindex_index_bytes") });
        }
    }

    /// When the first node's index is full, but not before `warm_up` is over. All nodes hold the same blocks from then on;
    /// in how many bytes each does follows from its tables, so one may never come near its cap.
    fn warm(&self, warm_up: Duration, cap: u64) -> Option<Duration> {
        let full = |look: &&Look| look.index.is_some_and(|bytes| bytes >= cap / 10 * 9);
        let first =
            self.nodes.iter().filter_map(|(_, _, looks)| looks.iter().find(full)).map(|look| look.at).min();
        first.map(|at| at.max(warm_up))
    }

    pub(crate) fn judge(&self, warm_up: Duration, cap: u64) -> Flat {
        let mut table = Table::new();
        table.load_preset(presets::ASCII_MARKDOWN);
        table.set_header([
            "node",
            "warm after, s",
            "resident, MiB, part by part",
            "off the mean, %",
            "index at most, MiB",
        ]);
        let mut good = true;
        let from = self.warm(warm_up, cap);
        for (number, (_, _, looks)) in self.nodes.iter().enumerate() {
            let first = looks.partition_point(|look| from.is_none_or(|from| look.at < from));
            let warm = looks.get(first..).unwrap_or_default();
            let after = warm.first().map_or_else(|| "never".to_owned(), |look| look.at.as_secs().to_string());
            let parts: Vec<f64> = warm.chunks(warm.len().div_ceil(PARTS).max(1)).map(mean).collect();
            let all = mean(warm);
            let off = parts.iter().map(|part| (part / all - 1.0).abs()).fold(0.0, f64::max);
            let most = looks.iter().filter_map(|look| look.index).max().unwrap_or(0);
            good &= parts.len() == PARTS && off <= FLAT && most as f64 <= cap as f64 * ABOVE;
            let mib = |bytes: f64| format!("{:.0}", bytes / f64::from(1 << 20));
            let parts: Vec<String> = parts.into_iter().map(mib).collect();
            table.add_row([
                (number + 1).to_string(),
                after,
                parts.join(" "),
                format!("{:.1}", off * 100.0),
                format!("{:.1}", most as f64 / f64::from(1 << 20)),
            ]);
        }
        Flat { table: table.to_string(), good }
    }
}
