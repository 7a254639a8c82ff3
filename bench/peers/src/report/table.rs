//! Figures as Markdown tables.

use std::fmt::Write;

use super::figures::{Bar, Figure, Outcome};
use crate::indexes::Implementation;
use crate::samples::{Kept, Samples};

/// Share of the machine used by others from which a figure is marked. Figures of several threads suffer most.
const DISTURBED: f64 = 0.25;

/// Three digits that count; whole numbers as such.
pub(crate) fn number(value: f64) -> String {
    let digits = match value.abs() {
        v if v.fract() == 0.0 || v >= 99.95 => 0,
        v if v >= 9.995 => 1,
        v if v >= 0.9995 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

fn columns() -> impl Iterator<Item = Implementation> {
    Implementation::ALL.into_iter().filter(|which| !which.is_ours())
}

fn heading(first: &[&'static str], last: &[&'static str]) -> String {
    let names = columns().map(Implementation::name);
    let all: Vec<&str> = first.iter().copied().chain(names).chain(last.iter().copied()).collect();
    format!("| {} |\n|{}\n", all.join(" | "), "---|".repeat(all.len()))
}

fn bar_text(bar: Bar) -> String {
    match bar {
        Bar::Ratio(most) => format!("≤ {most}×"),
        Bar::AtMost(most) => format!("≤ {most}"),
        Bar::AtLeast(least) => format!("≥ {least}"),
        Bar::Open => "–".into(),
    }
}

/// The main table: every implementation's median, and what it means for us.
pub(crate) fn medians(figures: &[Figure], samples: &Samples) -> String {
    let mut table =
        heading(&["figure", "unit", "kvindex"], &["best peer", "ours / best", "target", "reached"]);
    for (figure, outcome) in measured(figures, samples) {
        let mut cells = vec![figure.title.clone(), figure.unit.into(), number(outcome.ours.median)];
        cells.extend(columns().map(|which| median(samples, &figure.samples, which)));
        let best = outcome.best.filter(|_| outcome.ratio.is_some());
        cells.push(best.map_or("–".into(), |(which, _)| which.name().into()));
        cells.push(outcome.ratio.map_or("–".into(), |ratio| format!("{}×", number(ratio))));
        cells.push(bar_text(figure.bar));
        cells.push(verdict(figure, &outcome, samples));
        let _ = writeln!(table, "| {} |", cells.join(" | "));
    }
    table
}

/// Whether the target is reached, and a mark where others used so much of the machine that it may not hold.
fn verdict(figure: &Figure, outcome: &Outcome, samples: &Samples) -> String {
    let best = outcome.best.and_then(|(which, _)| samples.kept(&figure.samples, which));
    let disturbed = best.map_or(0.0, |kept| kept.disturbed).max(outcome.ours.disturbed);
    let word = outcome.reached.map_or("–", |reached| if reached { "yes" } else { "**no**" });
    if disturbed > DISTURBED { format!("{word} (disturbed)") } else { word.into() }
}

/// The same figures' spread.
pub(crate) fn spreads(figures: &[Figure], samples: &Samples) -> String {
    let mut table = heading(&["figure", "kvindex"], &["others used"]);
    for (figure, outcome) in measured(figures, samples) {
        let mut cells = vec![figure.title.clone(), spread(&outcome.ours)];
        let kept = |which| samples.kept(&figure.samples, which);
        cells.extend(columns().map(|which| kept(which).map_or("–".into(), |kept| spread(&kept))));
        let disturbed = columns().filter_map(kept).map(|kept| kept.disturbed);
        let worst = disturbed.fold(outcome.ours.disturbed, f64::max);
        cells.push(format!("{:.0} %", worst * 100.0));
        let _ = writeln!(table, "| {} |", cells.join(" | "));
    }
    table
}

fn spread(kept: &Kept) -> String {
    format!("{} – {}", number(kept.least), number(kept.greatest))
}

fn median(samples: &Samples, figure: &str, which: Implementation) -> String {
    samples.kept(figure, which).map_or("–".into(), |kept| number(kept.median))
}

/// Figures that were measured, with what came of them.
pub(crate) fn measured<'a>(
    figures: &'a [Figure],
    samples: &'a Samples,
) -> impl Iterator<Item = (&'a Figure, Outcome)> {
    figures.iter().filter_map(|figure| Some((figure, figure.outcome(samples)?)))
}
