//! `kvindex dump`: prints what a node's snapshot file holds, without a server.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use kvindex_core::limits::IndexLimits;
use kvindex_core::{Index, Namespace};
use kvindex_server::config::Config;
use kvindex_server::metrics::Metrics;
use kvindex_server::node::Node;
use serde_json::json;

use crate::demo::Output;

/// Arguments of `kvindex dump`.
#[derive(Debug, clap::Args)]
pub(crate) struct DumpArgs {
    /// Snapshot file, as a server writes it to its `snapshot_path`
    #[arg(long, value_name = "PATH")]
    snapshot: PathBuf,
    /// Only the totals, not every entry
    #[arg(long)]
    totals: bool,
}

/// Prints every held block of a snapshot, then totals.
pub(crate) fn run(args: DumpArgs, output: Output) -> anyhow::Result<ExitCode> {
    let DumpArgs { snapshot, totals } = args;
    let index = load(&snapshot)?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    print(&index, totals, output, &mut out).and_then(|()| out.flush())?;
    Ok(ExitCode::SUCCESS)
}

/// Reads a node's snapshot file, or the bare snapshot of an index.
fn load(path: &Path) -> anyhow::Result<Index> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read snapshot {}", path.display()))?;
    let limits = IndexLimits::default();
    if let Ok(index) = Index::restore(&bytes, limits) {
        return Ok(index);
    }
    // The node's own reader judges the file: version, checksum, worker list and index.
    let node = Node::new(&Config::defaults(), Metrics::new());
    if !node.load_snapshot(path, limits)? {
        bail!("there is no snapshot {}", path.display());
    }
    let index = index_of(&bytes).with_context(|| format!("snapshot {} is too short", path.display()))?;
    Index::restore(index, limits).with_context(|| format!("snapshot {}", path.display()))
}

/// The index inside a node's snapshot: behind 8 bytes of magic, the worker list's length and the list, and
/// before 8 bytes of checksum.
fn index_of(bytes: &[u8]) -> Option<&[u8]> {
    let (len, rest) = bytes.get(8..)?.split_first_chunk::<8>()?;
    let index = rest.get(usize::try_from(u64::from_le_bytes(*len)).ok()?..)?;
    index.get(..index.len().checked_sub(8)?)
}

fn print(index: &Index, totals: bool, output: Output, out: &mut impl Write) -> std::io::Result<()> {
    let (reader, stats) = (index.reader(), index.stats());
    let as_json = output == Output::Json;
    if !totals {
        if !as_json {
            writeln!(
                out,
                "{:<24} {:>4} {:<9} {:>5} {:<32} {:>16} {:>6}",
                "worker", "dp", "tier", "group", "namespace", "sequence hash", "copies"
            )?;
        }
        for (stream, tier, group, namespace, hash, copies) in reader.entries() {
            let (worker, rank, hash) = (stream.worker.as_str(), stream.dp_rank, format!("{:016x}", hash.0));
            if as_json {
                let entry = json!({"worker_id": worker, "dp_rank": rank, "tier": tier.name(), "group": group,
                                   "namespace": namespace, "sequence_hash": hash, "copies": copies});
                writeln!(out, "{entry}")?;
            } else {
                let namespace = describe(namespace);
                let tier = tier.name();
                writeln!(
                    out,
                    "{worker:<24} {rank:>4} {tier:<9} {group:>5} {namespace:<32} {hash} {copies:>6}"
                )?;
            }
        }
    }
    let digest = format!("{:016x}", index.digest());
    if as_json {
        let totals = json!({"totals": {"workers": stats.workers, "streams": stats.streams,
            "entries": stats.entries, "blocks": stats.blocks, "runs": stats.runs, "orphans": stats.orphans,
            "namespaces": stats.namespaces, "bytes": stats.bytes, "digest": digest}});
        return writeln!(out, "{totals}");
    }
    writeln!(
        out,
        "{} entries of {} workers ({} streams): {} blocks in {} runs and {} namespaces, {} orphans; digest {digest}",
        stats.entries,
        stats.workers,
        stats.streams,
        stats.blocks,
        stats.runs,
        stats.namespaces,
        stats.orphans
    )
}

/// A namespace in one word: what tells two of a fleet apart.
fn describe(namespace: &Namespace) -> String {
    let mut text = format!("{}/{}/{}", namespace.tenant, namespace.model, namespace.block_size);
    if let Some(lora) = &namespace.lora {
        text.push_str(&format!("+{lora}"));
    }
    text
}
