//! Disks that are full, and data that are not what was written.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use kvindex_faults::cluster::Cluster;

use crate::rows::{AWAY, LENGTH, others};
use crate::stage::{Outcome, Play, Stage};

/// How long a node may go on that cannot write: until its next write, and a moment to stop in order.
const MUST_STOP: Duration = Duration::from_secs(10);

/// A disk of so many MiB for a node, which is a file system in memory.
fn small_disk(cluster: &Cluster, number: usize, mib: u32) -> anyhow::Result<()> {
    let folder = cluster.data(number);
    fs::create_dir_all(&folder)?;
    let size = format!("size={mib}m");
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", &size, "kvindex-faults"]).arg(&folder).status()?;
    ensure!(mounted.success(), "cannot mount a small disk on {}", folder.display());
    Ok(())
}

/// Fills a disk to its last byte.
fn fill(folder: &Path) -> anyhow::Result<PathBuf> {
    let path = folder.join("filler");
    let mut file = File::create(&path)?;
    let piece = vec![0; 1 << 16];
    while file.write_all(&piece).is_ok() {}
    while file.write_all(&[0; 64]).is_ok() {}
    Ok(path)
}

/// The node must stop by itself, and say why; not stay up while there is no room; and come back once there is.
pub(crate) async fn disk_full(play: &Play, leader: bool) -> anyhow::Result<Outcome> {
    let name = if leader { "full-leader" } else { "full-follower" };
    let prepare = |cluster: &Cluster| cluster.all().try_for_each(|number| small_disk(cluster, number, 24));
    let mut stage = Stage::set_up_with(play, name, LENGTH, false, prepare).await?;
    let victim = if leader { stage.leader().await? } else { stage.follower().await? };
    let fault = Instant::now();
    let filler = fill(&stage.cluster.data(victim))?;
    // Until it notices, it answers queries as ever.
    until_stopped(&mut stage, victim, fault).await?;
    stage.note_log(victim, &["must stop", "No space"]);
    stage.measure_gap(fault, &others(&stage, victim)).await?;
    stage.kill(victim)?;
    stage.cluster.run(victim)?;
    until_stopped(&mut stage, victim, Instant::now()).await.context("started again on the full disk")?;
    stage.kill(victim)?;
    fs::remove_file(filler)?;
    stage.cluster.run(victim)?;
    stage.finish().await
}

async fn until_stopped(stage: &mut Stage, victim: usize, fault: Instant) -> anyhow::Result<()> {
    while !stage.cluster.has_ended(victim)? {
        if stage.cluster.log(victim).contains("must stop") {
            // It drains its clients' calls, and takes no new ones.
            stage.clients.expect(victim, false);
        }
        if fault.elapsed() > MUST_STOP {
            bail!("node {} goes on although it cannot write", victim + 1);
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    stage.clients.expect(victim, false);
    Ok(())
}

/// Flips a byte in the middle of what a file holds before its zeros.
fn flip(path: &Path) -> anyhow::Result<u64> {
    let mut bytes = Vec::new();
    let mut file = File::options().read(true).write(true).open(path)?;
    file.read_to_end(&mut bytes)?;
    let used = bytes.iter().rposition(|byte| *byte != 0).context("an empty file")?;
    let place = used / 2;
    let byte = bytes.get(place).copied().unwrap_or_default();
    file.seek(SeekFrom::Start(place as u64))?;
    file.write_all(&[byte ^ 0x40])?;
    file.sync_all()?;
    Ok(place as u64)
}

/// The file of a folder, at any depth, that was written last and fits.
fn newest(folder: &Path, fits: &dyn Fn(&Path) -> bool) -> Option<PathBuf> {
    let mut found: Vec<(std::time::SystemTime, PathBuf)> = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).ok()?.flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if fits(&path) {
                found.extend(entry.metadata().and_then(|data| data.modified()).map(|time| (time, path)));
            }
        }
    }
    found.into_iter().max().map(|(_, path)| path)
}

/// What a node must say about its damaged data, and then do.
async fn comes_back_anew(mut stage: Stage, victim: usize, named: &str) -> anyhow::Result<Outcome> {
    let before = stage.cluster.node_id(victim)?;
    stage.cluster.run(victim)?;
    stage.until_ready().await?;
    let after = stage.cluster.node_id(victim)?;
    ensure!(after != before, "it came back under its old id, {before}");
    ensure!(stage.cluster.log(victim).contains(named), "its log does not name {named}");
    stage.note_log(victim, &["put aside"]);
    stage.note(format!("node {before} came back as node {after}"));
    stage.finish().await
}

/// The newest file of the log.
pub(crate) async fn corrupt_log(play: &Play) -> anyhow::Result<Outcome> {
    let mut stage = Stage::set_up(play, "corrupt-log", LENGTH, false).await?;
    let victim = stage.leader().await?;
    let fault = Instant::now();
    stage.kill(victim)?;
    stage.measure_gap(fault, &others(&stage, victim)).await?;
    let is_log = |path: &Path| {
        path.extension().is_some_and(|end| end == "jnl") || path.file_name().is_some_and(|name| name == "db")
    };
    let file = newest(&stage.cluster.data(victim).join("log"), &is_log).context("no log file")?;
    let place = flip(&file)?;
    stage.note(format!("byte {place} of {} flipped", file.file_name().unwrap_or_default().display()));
    stage.pause(AWAY).await;
    comes_back_anew(stage, victim, "is damaged").await
}

/// A snapshot, which here is due with every MiB of log.
pub(crate) async fn corrupt_snapshot(play: &Play) -> anyhow::Result<Outcome> {
    let mut play = play.clone();
    // All engines in one shard, and talking faster: or the recording would end before a snapshot is due.
    play.options.flags.extend(["--snapshot-log-mib", "1", "--cluster-shards", "1"].map(String::from));
    play.rate *= 2.0;
    let mut stage = Stage::set_up(&play, "corrupt-snapshot", LENGTH, false).await?;
    let victim = stage.leader().await?;
    let folder = stage.cluster.data(victim).join("snapshots");
    let is_snapshot = |path: &Path| path.extension().is_some_and(|end| end == "snapshot");
    let started = Instant::now();
    let file = loop {
        if let Some(file) = newest(&folder, &is_snapshot) {
            break file;
        }
        ensure!(started.elapsed() < LENGTH, "no snapshot was taken");
        stage.pause(0.1).await;
    };
    let fault = Instant::now();
    stage.kill(victim)?;
    stage.measure_gap(fault, &others(&stage, victim)).await?;
    let place = flip(&file)?;
    stage.note(format!("byte {place} of {} flipped", file.file_name().unwrap_or_default().display()));
    comes_back_anew(stage, victim, "snapshot of shard").await
}

/// Everything a node had.
pub(crate) async fn wipe(play: &Play) -> anyhow::Result<Outcome> {
    let mut stage = Stage::set_up(play, "wipe", LENGTH, false).await?;
    let victim = stage.leader().await?;
    let before = stage.cluster.node_id(victim)?;
    let fault = Instant::now();
    stage.kill(victim)?;
    stage.measure_gap(fault, &others(&stage, victim)).await?;
    fs::remove_dir_all(stage.cluster.data(victim))?;
    stage.pause(AWAY).await;
    stage.cluster.run(victim)?;
    stage.until_ready().await?;
    let after = stage.cluster.node_id(victim)?;
    stage.note(format!("node {before} came back as node {after}"));
    ensure!(after != before, "it came back under its old id, {before}");
    stage.finish().await
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let copied = Command::new("cp").arg("-a").args([from, to]).status()?;
    ensure!(copied.success(), "cannot copy {}", from.display());
    Ok(())
}

/// The node must be told, not stay up, and come back as another; leaders must not mind.
pub(crate) async fn old_copy(play: &Play) -> anyhow::Result<Outcome> {
    let mut stage = Stage::set_up(play, "old-copy", LENGTH, false).await?;
    let victim = stage.follower().await?;
    let before = stage.cluster.node_id(victim)?;
    let data = stage.cluster.data(victim);
    let old = data.with_extension("old");
    stage.kill(victim)?;
    copy(&data, &old)?;
    stage.cluster.run(victim)?;
    stage.until_ready().await?;
    stage.pause(1.0).await;
    stage.kill(victim)?;
    fs::remove_dir_all(&data)?;
    fs::rename(&old, &data)?;
    let fault = Instant::now();
    stage.cluster.run(victim)?;
    stage.measure_gap(fault, &others(&stage, victim)).await?;
    until_stopped(&mut stage, victim, fault).await?;
    stage.note_log(victim, &["has this node's word"]);
    stage.kill(victim)?;
    stage.cluster.run(victim)?;
    stage.until_ready().await?;
    let after = stage.cluster.node_id(victim)?;
    ensure!(after != before, "it came back under its old id, {before}");
    stage.note(format!("node {before} came back as node {after}"));
    stage.finish().await
}
