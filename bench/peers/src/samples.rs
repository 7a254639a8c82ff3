//! Samples of figures, and what is left of them: the median of the least disturbed, with their spread.

use std::collections::BTreeMap;

use crate::indexes::Implementation;

/// Samples kept of each figure.
const KEEP: usize = 5;

/// A figure's value, and the share of the machine that others used meanwhile.
type Sample = (f64, f64);

/// What remains of a figure's samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Kept {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) greatest: f64,
    /// The largest share that others used of the machine during a kept sample.
    pub(crate) disturbed: f64,
}

/// All samples of a run, by figure and implementation.
#[derive(Default)]
pub(crate) struct Samples {
    taken: BTreeMap<(String, Implementation), Vec<Sample>>,
}

impl Samples {
    pub(crate) fn add(&mut self, figure: &str, which: Implementation, value: f64, others: f64) {
        self.taken.entry((figure.to_owned(), which)).or_default().push((value, others));
    }

    pub(crate) fn kept(&self, figure: &str, which: Implementation) -> Option<Kept> {
        let mut samples = self.taken.get(&(figure.to_owned(), which))?.clone();
        samples.sort_by(|a, b| a.1.total_cmp(&b.1));
        samples.truncate(KEEP);
        let disturbed = samples.last()?.1;
        let mut values: Vec<f64> = samples.iter().map(|sample| sample.0).collect();
        values.sort_by(f64::total_cmp);
        let (least, greatest) = (*values.first()?, *values.last()?);
        let median = *values.get(values.len() / 2)?;
        Some(Kept { median, least, greatest, disturbed })
    }

    /// All figures sampled, in alphabetical order.
    pub(crate) fn figures(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.taken.keys().map(|(figure, _)| figure.as_str()).collect();
        names.dedup();
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disturbed_samples_are_dropped_before_the_median_is_taken() {
        let mut samples = Samples::default();
        for (value, others) in [(900.0, 0.9), (1.0, 0.0), (2.0, 0.1), (3.0, 0.0), (4.0, 0.0), (5.0, 0.2)] {
            samples.add("figure", Implementation::Kvindex, value, others);
        }
        let kept = samples.kept("figure", Implementation::Kvindex);
        assert_eq!(kept, Some(Kept { median: 3.0, least: 1.0, greatest: 5.0, disturbed: 0.2 }));
        assert_eq!(samples.kept("figure", Implementation::Crtc), None);
    }
}
