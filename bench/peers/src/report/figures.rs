//! The figures that have a place in the report, and the targets set for them before they were measured.

use crate::indexes::Implementation;
use crate::samples::{Kept, Samples};

/// What a figure has to reach.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Bar {
    /// At most this many times the best peer's.
    Ratio(f64),
    /// At most this much, whatever the peers do.
    AtMost(f64),
    /// At least this much.
    AtLeast(f64),
    /// Nothing is set; shown for its own sake.
    Open,
}

/// A line of the report.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Figure {
    /// Its name among the samples.
    pub(crate) samples: String,
    /// Its name for readers.
    pub(crate) title: String,
    pub(crate) unit: &'static str,
    /// Which of our two forms it is about.
    pub(crate) ours: Implementation,
    pub(crate) bar: Bar,
}

/// A figure's outcome.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) ours: Kept,
    pub(crate) best: Option<(Implementation, f64)>,
    /// Ours to the best peer's, turned over where more is better: below 1 is always good for us.
    pub(crate) ratio: Option<f64>,
    /// The bar on the scale of `ratio`.
    pub(crate) bar_ratio: Option<f64>,
    pub(crate) reached: Option<bool>,
}

impl Figure {
    fn new(samples: impl Into<String>, unit: &'static str, bar: Bar) -> Self {
        let samples = samples.into();
        Self { title: samples.clone(), samples, unit, ours: Implementation::Kvindex, bar }
    }

    /// What the samples say; `None` where ours was not measured.
    pub(crate) fn outcome(&self, samples: &Samples) -> Option<Outcome> {
        let ours = samples.kept(&self.samples, self.ours)?;
        let more_is_better = matches!(self.bar, Bar::AtLeast(_));
        let peers = Implementation::ALL.into_iter().filter(|which| which.is_peer());
        let medians = peers.filter_map(|which| Some((which, samples.kept(&self.samples, which)?.median)));
        let best =
            medians.min_by(|a, b| if more_is_better { b.1.total_cmp(&a.1) } else { a.1.total_cmp(&b.1) });
        let to_best = |value: f64| {
            let (_, peer) = best.filter(|(_, peer)| *peer > 0.0 && value > 0.0)?;
            Some(if more_is_better { peer / value } else { value / peer })
        };
        let ratio = to_best(ours.median);
        let (bar_ratio, reached) = match self.bar {
            Bar::Ratio(most) => (Some(most), ratio.map(|ratio| ratio <= most)),
            Bar::AtMost(most) => (to_best(most), Some(ours.median <= most)),
            Bar::AtLeast(least) => (to_best(least), Some(ours.median >= least)),
            Bar::Open => (None, None),
        };
        Some(Outcome { ours, best, ratio, bar_ratio, reached })
    }
}

/// Name of the figure that counts probes answered wrongly.
pub(crate) const PROBES: &str = "semantics probes answered wrongly";
/// Name of the figure that counts wrong answers on the loads.
pub(crate) const WRONG: &str = "wrong answers on the loads";

/// All figures of the report, in the order of the targets.
pub(crate) fn all() -> Vec<Figure> {
    let mut figures: Vec<Figure> = ["zipf", "full64", "full1000", "stagger64", "stagger1000"]
        .map(|load| {
            let bar = if load.starts_with("stagger") { Bar::Open } else { Bar::Ratio(0.5) };
            Figure::new(format!("{load} store"), "CPU ns/block", bar)
        })
        .into();
    figures.push(Figure::new("zipf remove, one hash an event", "CPU ns/block", Bar::Ratio(0.3)));
    figures.push(Figure::new("zipf remove, up to 32 an event", "CPU ns/block", Bar::Ratio(0.5)));
    for load in ["zipf", "full64", "full1000", "stagger64", "stagger1000"] {
        for len in crate::work::LENGTHS {
            for quantile in ["p50", "p99"] {
                let bar = match_bar(load, len, quantile);
                figures.push(Figure::new(format!("{load} match {len} {quantile}"), "µs", bar));
            }
        }
    }
    figures.push(Figure::new("zipf match 4096, 2 threads / 1", "times", Bar::AtLeast(1.8)));
    figures.push(Figure::new("match 128 p99, stores running / idle", "times", Bar::AtMost(2.0)));
    figures.push(Figure::new("match 128 p99 while stores run", "µs", Bar::Open));
    figures.extend(memory());
    figures.push(Figure::new("trace, a block asked, stored or removed", "CPU ns/block", Bar::Open));
    figures.push(Figure::new("trace match p50", "µs", Bar::Open));
    figures.push(Figure::new("trace match p99", "µs", Bar::Open));
    figures.push(Figure::new(PROBES, "", Bar::AtMost(0.0)));
    figures.push(Figure::new(WRONG, "", Bar::AtMost(0.0)));
    figures
}

fn match_bar(load: &str, len: usize, quantile: &str) -> Bar {
    match (load, len, quantile) {
        ("zipf" | "full64", 8, "p50") => Bar::Ratio(0.6),
        ("zipf" | "full64", 128, "p50") => Bar::Ratio(0.5),
        ("zipf" | "full64", 1024 | 4096, "p50") => Bar::Ratio(0.4),
        ("zipf" | "full64", 1024 | 4096, _) => Bar::Ratio(0.5),
        ("full1000", _, "p50") => Bar::Ratio(0.5),
        ("stagger64", 1024 | 4096, "p50") => Bar::Ratio(0.3),
        ("stagger1000", 128.., "p50") => Bar::Ratio(0.05),
        _ => Bar::Open,
    }
}

/// Bytes an entry; the peers' column is the same in both rows, since they know one form only.
fn memory() -> Vec<Figure> {
    use Implementation::{Kvindex, KvindexPrivate};
    let live = |load: &str, ours: Implementation, bar: Bar| {
        let form = if ours == Kvindex { "engines hash alike" } else { "private engine hashes" };
        let figure = Figure::new(format!("{load} live bytes an entry"), "bytes", bar);
        Figure { title: format!("{}, {form}", figure.samples), ours, ..figure }
    };
    let mut figures = Vec::new();
    for (load, alike) in [("zipf", 12.0), ("full64", 3.0), ("full1000", 3.0)] {
        figures.push(live(load, KvindexPrivate, Bar::AtMost(20.0)));
        figures.push(live(load, Kvindex, Bar::AtMost(alike)));
    }
    for load in ["stagger64", "stagger1000"] {
        figures.push(live(load, KvindexPrivate, Bar::Open));
        figures.push(live(load, Kvindex, Bar::Open));
    }
    for load in ["zipf", "full64", "full1000"] {
        figures.push(Figure::new(format!("{load} resident bytes an entry"), "bytes", Bar::Open));
    }
    figures.push(Figure::new("zipf live bytes left after all is removed", "%", Bar::AtMost(5.0)));
    figures.push(Figure::new("zipf resident bytes left after all is removed", "%", Bar::AtMost(5.0)));
    figures
}

/// Instruction counts: the targets name stores; of questions and removals they say time.
pub(crate) fn instructions(samples: &Samples) -> Vec<Figure> {
    let order = |name: &str| {
        let loads = ["zipf", "full64", "full1000", "stagger64", "stagger1000"];
        let phases = ["store", "remove", "match"];
        let words: Vec<&str> = name.split([' ', ',']).collect();
        let find = |list: &[&str], at: usize| list.iter().position(|word| words.get(at) == Some(word));
        let len = words.get(2).and_then(|word| word.parse::<usize>().ok());
        (find(&loads, 0), find(&phases, 1), len, name.to_owned())
    };
    let mut names = samples.figures();
    names.sort_by_key(|name| order(name));
    let figure = |name: &str| {
        let store = name.ends_with("store");
        let bar = if store && !name.starts_with("stagger") { Bar::Ratio(0.5) } else { Bar::Open };
        let unit = if name.contains("match") { "instructions/question" } else { "instructions/block" };
        Figure::new(name, unit, bar)
    };
    names.into_iter().map(figure).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn samples(figure: &str, ours: f64, crtc: f64, trie: f64) -> Samples {
        let mut samples = Samples::default();
        samples.add(figure, Implementation::Kvindex, ours, 0.0);
        samples.add(figure, Implementation::Crtc, crtc, 0.0);
        samples.add(figure, Implementation::Trie, trie, 0.0);
        samples
    }

    #[test]
    fn a_ratio_is_to_the_best_peer_and_baselines_are_not_peers() {
        let figure = Figure::new("zipf store", "", Bar::Ratio(0.5));
        let outcome = figure.outcome(&samples("zipf store", 40.0, 100.0, 1.0)).unwrap();
        assert_eq!((outcome.ratio, outcome.reached), (Some(0.4), Some(true)));
        let outcome = figure.outcome(&samples("zipf store", 60.0, 100.0, 1.0)).unwrap();
        assert_eq!(outcome.reached, Some(false));
    }

    #[test]
    fn where_more_is_better_the_ratio_is_turned_over() {
        let figure = Figure::new("threads", "", Bar::AtLeast(1.8));
        let outcome = figure.outcome(&samples("threads", 2.0, 1.0, 9.0)).unwrap();
        assert_eq!((outcome.ratio, outcome.reached), (Some(0.5), Some(true)));
        assert_eq!(figure.outcome(&samples("threads", 1.7, 1.0, 9.0)).unwrap().reached, Some(false));
    }
}
