//! What the operating system says: CPU time of processes, and what kind of disk the nodes' data are on.

use std::path::Path;

use anyhow::Context;

/// Ticks a second in `/proc/PID/stat`: the same on every Linux.
const TICKS: f64 = 100.0;

/// CPU seconds that a process has used, in user space and in the kernel.
pub(super) fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("CPU time of a node")?;
    // The second field is the program's name and may hold anything, a parenthesis last.
    let (_, fields) = stat.rsplit_once(')').context("CPU time of a node")?;
    let field = |n: usize| fields.split_ascii_whitespace().nth(n).and_then(|text| text.parse::<f64>().ok());
    let ticks = field(11).zip(field(12)).context("CPU time of a node")?;
    Ok((ticks.0 + ticks.1) / TICKS)
}

/// The file system that a folder is on.
pub(super) fn file_system(folder: &Path) -> String {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf());
    let mount = |line: &str| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (at, kind) = (fields.next()?.to_owned(), fields.next()?.to_owned());
        folder.starts_with(&at).then_some((at.len(), kind))
    };
    let nearest = mounts.lines().filter_map(mount).max();
    nearest.map_or_else(|| "an unknown file system".into(), |(_, kind)| kind)
}

/// Cores that this process may use.
pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Bytes of all files directly in a folder whose names end so.
pub(super) fn bytes_in(folder: &Path, suffix: &str) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for file in std::fs::read_dir(folder).with_context(|| format!("folder {}", folder.display()))? {
        let file = file?;
        if file.file_name().to_string_lossy().ends_with(suffix) {
            bytes += file.metadata()?.len();
        }
    }
    Ok(bytes)
}
