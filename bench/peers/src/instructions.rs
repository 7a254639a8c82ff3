//! Instruction counts under callgrind: repeatable where times are not. The binary runs itself under valgrind, once
//! an index and load; valgrind writes a count at every phase boundary, so nothing outside a phase is in its count.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;

use crate::indexes::{Implementation, KvIndex, Shared, Visitor, prepare, visit};
use crate::samples::Samples;
use crate::work::long::{LONG_SHAPES, LongLoad};
use crate::work::stream::Stream;
use crate::work::zipf::ZipfLoad;
use crate::work::{Question, Scale};

/// Marks where a phase ends. Valgrind writes and clears its counts when this is entered.
#[inline(never)]
pub(crate) fn phase_boundary(phase: usize) {
    black_box(phase);
}

/// How valgrind finds [`phase_boundary`] among the symbols.
const BOUNDARY: &str = "--dump-before=*phase_boundary*";

/// Least number of questions counted of each length.
const ASKED: usize = 100;
/// A phase that is not counted: what only an index's first question costs, or repairs put off until then.
const WARM_UP: &str = "warm-up";

/// Counts every phase of every implementation on these loads.
pub(crate) fn run(
    implementations: &[Implementation],
    loads: &[String],
    seed: u64,
    smoke: bool,
) -> anyhow::Result<Samples> {
    let version =
        Command::new("valgrind").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    anyhow::ensure!(
        version.is_ok_and(|status| status.success()),
        "valgrind does not run, and instruction counts need it. Install it, such as Debian's valgrind package."
    );
    let mut samples = Samples::default();
    for load in loads {
        for which in implementations {
            eprintln!("instructions, {load}: {}", which.name());
            for (figure, count) in count(*which, load, seed, smoke)? {
                samples.add(&figure, *which, count, 0.0);
            }
        }
    }
    Ok(samples)
}

/// A directory that goes away with its last use, also on errors.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// One index on one load: (figure, instructions each).
fn count(which: Implementation, load: &str, seed: u64, smoke: bool) -> anyhow::Result<Vec<(String, f64)>> {
    let name = format!("kvindex-callgrind-{}-{}-{load}", std::process::id(), which.name());
    let directory = Temporary(std::env::temp_dir().join(name));
    std::fs::create_dir_all(&directory.0)?;
    let counts = directory.0.join("out");
    let mut child = Command::new("valgrind");
    child.args(["--tool=callgrind", BOUNDARY]).arg(format!("--callgrind-out-file={}", counts.display()));
    child.arg(std::env::current_exe()?).args(["phases-of", which.name(), "--load", load]);
    child.args(["--seed", &seed.to_string()]);
    if smoke {
        child.arg("--smoke");
    }
    let output = child.output().context("valgrind did not start")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{} under valgrind on {load}: {errors}", which.name());
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut figures = Vec::new();
    // Dump 1 is what came before the first phase.
    for (dump, line) in said.lines().enumerate() {
        let (figure, units) = line.rsplit_once('\t').context("phases: a line without a count of units")?;
        if figure == WARM_UP {
            continue;
        }
        let total = total_of(&counts.with_extension((dump + 2).to_string()))?;
        figures.push((figure.to_owned(), total / units.parse::<f64>()?));
    }
    Ok(figures)
}

/// The instruction total of a callgrind file.
fn total_of(file: &Path) -> anyhow::Result<f64> {
    let text = std::fs::read_to_string(file).with_context(|| format!("callgrind's {}", file.display()))?;
    let find = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
    find("totals:").or_else(|| find("summary:")).context("callgrind wrote no total")
}

/// The child's part: goes through the phases with a boundary before, between and after them, and prints a figure
/// and its number of blocks or questions for each.
pub(crate) fn child(which: Implementation, load: &str, scale: &Scale) -> anyhow::Result<()> {
    if load == "zipf" {
        let work = ZipfLoad::new(scale);
        let ask = scale.lengths().map(|len| (len, work.questions(len, scale.questions))).collect();
        let evictions = [
            ("remove, one hash an event", &work.evict_single),
            ("remove, up to 32 an event", &work.evict_batch),
        ];
        return visit(which, &mut Visit { load, fill: &work.fill, ask, evictions: &evictions });
    }
    let shape = LONG_SHAPES.into_iter().find(|shape| shape.name == load);
    let work = LongLoad::new(shape.with_context(|| format!("no load named {load}"))?, scale);
    let ask = scale.lengths().map(|len| (len, work.questions(len))).collect();
    visit(which, &mut Visit { load, fill: &work.fill, ask, evictions: &[] })
}

struct Visit<'a> {
    load: &'a str,
    fill: &'a Stream,
    ask: Vec<(usize, Vec<Question>)>,
    evictions: &'a [(&'a str, &'a Stream)],
}

impl Visitor for Visit<'_> {
    fn visit<I: KvIndex>(
        &mut self,
        _: Implementation,
        make: &dyn Fn() -> I,
        _: Option<Shared<I>>,
    ) -> anyhow::Result<()> {
        let index = make();
        let fill = prepare(&index, self.fill);
        let evictions: Vec<Vec<I::Event>> = self.evictions.iter().map(|(_, s)| prepare(&index, s)).collect();
        let convert = |(len, questions): &(usize, Vec<Question>)| {
            (*len, questions.iter().map(|q| index.query(&q.locals)).collect::<Vec<_>>())
        };
        let queries: Vec<(usize, Vec<I::Query>)> = self.ask.iter().map(convert).collect();
        let mut said = vec![format!("{} store\t{}", self.load, self.fill.stored())];
        let mut phase = 0;
        let mut boundary = || {
            phase += 1;
            phase_boundary(phase);
        };
        boundary();
        fill.into_iter().for_each(|event| index.apply(event));
        index.barrier();
        boundary();
        for (len, queries) in &queries {
            let rounds = ASKED.div_ceil(queries.len().max(1));
            queries.iter().for_each(|query| drop(black_box(index.find(query))));
            boundary();
            said.push(format!("{WARM_UP}\t1"));
            for query in std::iter::repeat_n(queries, rounds).flatten() {
                drop(black_box(index.find(query)));
            }
            boundary();
            said.push(format!("{} match {len}\t{}", self.load, queries.len() * rounds));
        }
        for ((name, stream), events) in self.evictions.iter().zip(evictions) {
            events.into_iter().for_each(|event| index.apply(event));
            index.barrier();
            boundary();
            said.push(format!("{} {name}\t{}", self.load, stream.removed()));
        }
        said.iter().for_each(|line| println!("{line}"));
        Ok(())
    }
}
