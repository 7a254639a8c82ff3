//! The measurements: each visits every implementation in turn, round by round.

pub(crate) mod long;
pub(crate) mod memory;
pub(crate) mod mixed;
pub(crate) mod probes;
pub(crate) mod trace;
pub(crate) mod zipf;

use std::path::PathBuf;
use std::time::Duration;

use crate::answers::Answers;
use crate::indexes::{Implementation, Visitor, visit};
use crate::samples::Samples;
use crate::work::Scale;

/// What a run is to do, and what it found so far.
pub(crate) struct Run {
    pub(crate) scale: Scale,
    pub(crate) rounds: usize,
    /// How long a sample may wait for a quiet machine.
    pub(crate) patience: Duration,
    pub(crate) implementations: Vec<Implementation>,
    /// Mooncake trace to replay as well.
    pub(crate) trace: Option<PathBuf>,
    pub(crate) samples: Samples,
    pub(crate) answers: Answers,
}

impl Run {
    /// Which of them are timed: private hashes change what an entry costs in memory, and are measured there.
    pub(crate) fn timed(&self) -> Vec<Implementation> {
        self.implementations
            .iter()
            .copied()
            .filter(|which| *which != Implementation::KvindexPrivate)
            .collect()
    }
}

/// Alternates between implementations, each round in another order.
fn alternate(
    load: &str,
    rounds: usize,
    implementations: &[Implementation],
    mut visitor: impl FnMut(usize, Implementation) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    for round in 0..rounds {
        let mut order = implementations.to_vec();
        if !order.is_empty() {
            order.rotate_left(round % implementations.len());
        }
        for which in order {
            eprintln!("{load}, round {} of {rounds}: {}", round + 1, which.name());
            visitor(round, which)?;
        }
    }
    Ok(())
}

/// Visits one implementation; named apart so that a closure can borrow what the visitor needs.
fn once(which: Implementation, mut visitor: impl Visitor) -> anyhow::Result<()> {
    visit(which, &mut visitor)
}
