//! What the machine gives a node: open files, memory, room and speed of its disk.

use kvindex_server::config::{Config, memory_granted};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::finding::{Finding, Findings};

/// Sockets and files of a node besides those of engines and callers: logs, peers, threads' wake-ups.
const OWN_FILES: u64 = 128;
/// libzmq has a socket, a connection and signalling files for each stream and its replay.
const FILES_A_STREAM: u64 = 6;
/// Less than this and the log fills it within minutes at full ingest.
const LEAST_FREE: u64 = 1 << 30;
/// Of all room, below which somebody should look.
const LITTLE_FREE_PERCENT: u64 = 10;
/// A flush that takes longer is most of an acknowledgement's time.
const SLOW_FLUSH: Duration = Duration::from_millis(20);
/// Flushes that are timed; their median counts.
const FLUSHES: usize = 9;

pub(super) async fn examine(config: &Config, findings: &mut Findings) {
    files(config, findings);
    memory(config, findings);
    let cluster = config.cluster.as_ref().map(|cluster| cluster.data_dir.clone());
    let cluster = cluster.filter(|folder| !folder.as_os_str().is_empty());
    let snapshot = config.snapshot.as_ref().map(|snapshot| parent(&snapshot.path));
    let Some((key, folder)) =
        cluster.map(|folder| ("data_dir", folder)).or(snapshot.map(|folder| ("snapshot_path", folder)))
    else {
        findings.note(Finding::skipped("disk", "the node keeps nothing (data_dir, snapshot_path)"));
        return;
    };
    let probed = tokio::task::spawn_blocking(move || disk(key, &folder)).await;
    probed.unwrap_or_default().into_iter().for_each(|finding| findings.note(finding));
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn files(config: &Config, findings: &mut Findings) {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let Some(limit) = limit else {
        return findings.note(Finding::well("open files", "without limit"));
    };
    let streams: usize = config.workers.iter().map(|worker| worker.streams.len()).sum();
    let needed = OWN_FILES + FILES_A_STREAM * streams as u64 + config.limits.streams as u64;
    let what = format!(
        "{limit} may be open; {streams} streams of engines and the calls allowed need about {needed}"
    );
    findings.note(if limit < needed {
        Finding::wrong("open files", what, "raise the limit: `ulimit -n`, LimitNOFILE= of systemd")
    } else {
        Finding::well("open files", what)
    });
}

fn memory(config: &Config, findings: &mut Findings) {
    let machine = machine_memory();
    let granted = memory_granted();
    let least = granted.as_ref().map_or(machine, |(bytes, _)| (*bytes).min(machine));
    let whose = granted.map_or_else(|| "the machine".into(), |(_, file)| file.display().to_string());
    let cap = config.limits.index_bytes as u64;
    let what = format!("{least} bytes ({whose}); max_index_bytes = {cap}");
    let next = "set max_index_bytes to about half of it: the rest is for logs, snapshots and answers";
    findings.note(match cap {
        0 => Finding::doubtful("memory", format!("{what}: the index grows without a cap"), next),
        cap if cap > least / 5 * 4 => Finding::wrong("memory", format!("{what}: more than fits"), next),
        _ => Finding::well("memory", what),
    });
}

fn machine_memory() -> u64 {
    let info = rustix::system::sysinfo();
    // The fields' types differ between systems.
    #[allow(clippy::unnecessary_cast)]
    (info.totalram as u64).saturating_mul(u64::from(info.mem_unit))
}

/// Writes a small file where the node would write, and looks how long flushes take and how much room there is.
fn disk(key: &str, folder: &Path) -> Vec<Finding> {
    let there = folder.ancestors().find(|folder| folder.exists());
    // A folder that is not there is made by the node; what is above it must be writable.
    let Some(there) = there.filter(|_| !folder.as_os_str().is_empty()).or(Some(Path::new("."))) else {
        return Vec::new();
    };
    let name = folder.display();
    let mut found = Vec::new();
    match flushes(there) {
        Ok(median) if median > SLOW_FLUSH => {
            let what = format!("{name}: a flush takes {} ms in the median of {FLUSHES}", median.as_millis());
            found.push(Finding::doubtful("disk", what, "use a faster disk, or durability = async"));
        }
        Ok(median) => {
            let what = format!("{name} can be written; a flush takes {} µs", median.as_micros());
            found.push(Finding::well("disk", what));
        }
        Err(error) => {
            let next = format!("give the node's user a folder it may write ({key})");
            found.push(Finding::wrong("disk", format!("{key} = {name} cannot be written: {error}"), next));
            return found;
        }
    }
    if let Ok(disk) = rustix::fs::statvfs(there) {
        let (free, total) = (disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize);
        let what = format!("{name}: {} MiB of {} are free", free >> 20, total >> 20);
        found.push(match free {
            free if free < LEAST_FREE => Finding::wrong("room", what, "make room: a full disk stops a node"),
            free if free < total / 100 * LITTLE_FREE_PERCENT => {
                Finding::doubtful("room", what, "make room, or watch kvindex_data_dir_free_bytes")
            }
            _ => Finding::well("room", what),
        });
    }
    found
}

fn flushes(folder: &Path) -> std::io::Result<Duration> {
    let path = folder.join(format!(".kvindex-doctor-{}", std::process::id()));
    let mut file = std::fs::File::create(&path)?;
    let mut flush = || {
        let started = Instant::now();
        file.write_all(&[0; 4096])?;
        file.sync_data()?;
        Ok(started.elapsed())
    };
    let timed: std::io::Result<Vec<Duration>> = (0..FLUSHES).map(|_| flush()).collect();
    let removed = std::fs::remove_file(&path);
    let mut timed = timed?;
    removed?;
    timed.sort();
    Ok(timed.get(FLUSHES / 2).copied().unwrap_or_default())
}
