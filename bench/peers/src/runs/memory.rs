//! What an entry costs in memory, and what is left when all entries are gone. Each index gets a process of its
//! own, so that nothing of another stands in the way of its resident bytes.

use std::process::Command;

use anyhow::Context;

use super::Run;
use crate::allocator::{live, start_counting, trim};
use crate::indexes::{Implementation, KvIndex, Shared, Visitor, visit};
use crate::machine::resident;
use crate::timing::apply_in_chunks;
use crate::work::Scale;
use crate::work::long::{LONG_SHAPES, LongLoad};
use crate::work::stream::Stream;
use crate::work::zipf::ZipfLoad;

/// Loads whose memory is measured.
pub(crate) const LOADS: [&str; 5] = ["zipf", "full64", "full1000", "stagger64", "stagger1000"];

/// Measures all of them in children.
pub(crate) fn run(run: &mut Run, smoke: bool) -> anyhow::Result<()> {
    for load in LOADS {
        for which in run.implementations.clone() {
            eprintln!("memory, {load}: {}", which.name());
            let own = std::env::current_exe()?;
            let mut child = Command::new(own);
            child.args(["memory-of", which.name(), "--load", load]);
            child.args(["--seed", &run.scale.seed.to_string()]);
            if smoke {
                child.arg("--smoke");
            }
            let output = child.output().context("memory: the child did not start")?;
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            anyhow::ensure!(
                output.status.success(),
                "memory of {} on {load}: {}",
                which.name(),
                String::from_utf8_lossy(&output.stderr)
            );
            for line in said.lines() {
                let (figure, value) = line.rsplit_once('\t').context("memory: a line without a value")?;
                run.samples.add(figure, which, value.parse()?, 0.0);
            }
        }
    }
    Ok(())
}

/// The child's part: measures one index on one load and prints a figure a line.
pub(crate) fn child(which: Implementation, load: &str, scale: &Scale) -> anyhow::Result<()> {
    if load == "zipf" {
        let work = ZipfLoad::new(scale);
        let evictions = [&work.evict_single, &work.evict_batch];
        return visit(which, &mut Visit { load, fill: &work.fill, evictions: &evictions });
    }
    let shape = LONG_SHAPES.into_iter().find(|shape| shape.name == load);
    let work = LongLoad::new(shape.with_context(|| format!("no load named {load}"))?, scale);
    visit(which, &mut Visit { load, fill: &work.fill, evictions: &[] })
}

struct Visit<'a> {
    load: &'a str,
    fill: &'a Stream,
    evictions: &'a [&'a Stream],
}

impl Visitor for Visit<'_> {
    fn visit<I: KvIndex>(
        &mut self,
        _: Implementation,
        make: &dyn Fn() -> I,
        _: Option<Shared<I>>,
    ) -> anyhow::Result<()> {
        trim();
        let before = resident();
        start_counting();
        let index = make();
        // What an empty index costs is not an entry's, and not left over from one.
        let empty = live();
        apply_in_chunks(&index, self.fill);
        let full = (live() - empty) as f64;
        trim();
        let full_resident = (resident() - before) as f64;
        let entries = self.fill.stored() as f64;
        println!("{} live bytes an entry\t{}", self.load, full / entries);
        println!("{} resident bytes an entry\t{}", self.load, full_resident / entries);
        if !self.evictions.is_empty() {
            self.evictions.iter().for_each(|stream| apply_in_chunks(&index, stream));
            let left = (live() - empty) as f64;
            trim();
            let left_resident = (resident() - before) as f64;
            println!("{} live bytes left after all is removed\t{}", self.load, 100.0 * left / full);
            let share = 100.0 * left_resident / full_resident.max(1.0);
            println!("{} resident bytes left after all is removed\t{share}", self.load);
        }
        Ok(())
    }
}
