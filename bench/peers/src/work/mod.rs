//! The generated work: seeded, and the same for every implementation.

pub(crate) mod long;
pub(crate) mod random;
pub(crate) mod stream;
pub(crate) mod trace;
pub(crate) mod zipf;

/// Lengths of questions, in blocks.
pub(crate) const LENGTHS: [usize; 4] = [8, 128, 1024, 4096];

/// A worker and the leading blocks of a question that it holds.
pub(crate) type Credit = (u32, u32);

/// A question and its right answer, by worker.
pub(crate) struct Question {
    pub(crate) locals: Vec<u64>,
    pub(crate) right: Vec<Credit>,
}

/// How large the work is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    pub(crate) seed: u64,
    /// (Block, worker) entries of the Zipf load.
    pub(crate) entries: usize,
    /// Its workers.
    pub(crate) workers: usize,
    /// Its system prompts.
    pub(crate) prompts: usize,
    /// Its questions of each length.
    pub(crate) questions: usize,
    /// Blocks of a long chain, more than 64.
    pub(crate) depth: usize,
    /// Bound on the workers of a long load.
    pub(crate) most_workers: usize,
    /// Bound on its chains.
    pub(crate) most_chains: usize,
}

impl Scale {
    /// What the published figures are made with.
    pub(crate) fn full(seed: u64) -> Self {
        Self {
            seed,
            entries: 4_000_000,
            workers: 64,
            prompts: 1000,
            questions: 2000,
            depth: 4096,
            most_workers: usize::MAX,
            most_chains: usize::MAX,
        }
    }

    /// Seconds, not minutes: to see that everything runs and answers rightly.
    pub(crate) fn smoke(seed: u64) -> Self {
        Self {
            entries: 20_000,
            workers: 16,
            prompts: 50,
            questions: 100,
            depth: 512,
            most_workers: 100,
            most_chains: 2,
            ..Self::full(seed)
        }
    }

    /// What fits under an instruction counter fifty times slower than the machine.
    pub(crate) fn counted(seed: u64) -> Self {
        Self { entries: 400_000, questions: 200, most_chains: 2, most_workers: 250, ..Self::full(seed) }
    }

    /// The question lengths that chains of this depth can fill.
    pub(crate) fn lengths(&self) -> impl Iterator<Item = usize> {
        let depth = self.depth;
        LENGTHS.into_iter().filter(move |len| *len <= depth)
    }
}
