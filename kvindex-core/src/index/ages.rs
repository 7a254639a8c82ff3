//! When events last stored into each run, or below it: what eviction goes by. Kept apart from the runs, because
//! readers need none of it and writers need no lock for it.

/// Counts stored events, and remembers the count for each run. It wraps: a run that four thousand million events
/// did not touch looks young once.
#[derive(Debug, Default)]
pub(crate) struct Ages {
    clock: u32,
    touched: Vec<u32>,
}

impl Ages {
    /// Ages of a snapshot's runs, by number.
    pub(crate) fn restored(clock: u32, touched: Vec<u32>) -> Self {
        Self { clock, touched }
    }

    /// Another stored event begins.
    pub(crate) fn tick(&mut self) {
        self.clock = self.clock.wrapping_add(1);
    }

    /// The event stores into this run, or below it.
    pub(crate) fn touch(&mut self, run: u32) {
        let at = run as usize;
        if self.touched.len() <= at {
            self.touched.resize(at + 1, 0);
        }
        self.touched[at] = self.clock;
    }

    pub(crate) fn clock(&self) -> u32 {
        self.clock
    }

    /// What the clock said when the run was last touched.
    pub(crate) fn touched(&self, run: u32) -> u32 {
        self.touched.get(run as usize).copied().unwrap_or(0)
    }

    /// Stored events since one touched the run.
    pub(crate) fn age(&self, run: u32) -> u32 {
        self.clock.wrapping_sub(self.touched(run))
    }

    /// Gives memory back when no run is left.
    pub(crate) fn clear(&mut self) {
        self.touched = Vec::new();
    }

    pub(crate) fn capacity(&self) -> usize {
        self.touched.capacity()
    }
}
