//! How large each namespace's runs are, counted as they change: a cap and every scrape ask, and a walk over all runs
//! takes a second and more under the index's lock.

use super::usage::vec_bytes;

/// What the runs of one namespace take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Size {
    pub(crate) runs: usize,
    pub(crate) blocks: usize,
    /// Bytes of blocks and holders, without the table in which the runs stand.
    pub(crate) bytes: usize,
}

/// Sizes by namespace.
#[derive(Debug, Default)]
pub(crate) struct Sizes {
    of: Vec<Size>,
}

/// How many bytes `after` is more than `before`.
pub(crate) fn difference(before: usize, after: usize) -> isize {
    after as isize - before as isize
}

impl Size {
    fn change(&mut self, runs: isize, blocks: isize, bytes: isize) {
        self.runs = self.runs.wrapping_add_signed(runs);
        self.blocks = self.blocks.wrapping_add_signed(blocks);
        self.bytes = self.bytes.wrapping_add_signed(bytes);
    }
}

impl Sizes {
    /// Runs of a namespace have become so many more, and so much longer and larger.
    #[inline]
    pub(crate) fn change(&mut self, space: u32, runs: isize, blocks: isize, bytes: isize) {
        let at = space as usize;
        if self.of.len() <= at {
            self.of.resize(at + 1, Size::default());
        }
        self.of[at].change(runs, blocks, bytes);
    }

    pub(crate) fn of(&self, space: u32) -> Size {
        self.of.get(space as usize).copied().unwrap_or_default()
    }

    /// Of all namespaces together.
    pub(crate) fn all(&self) -> Size {
        let mut all = Size::default();
        self.of.iter().for_each(|of| all.change(of.runs as isize, of.blocks as isize, of.bytes as isize));
        all
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        vec_bytes::<Size>(self.of.capacity())
    }

    /// Whether they are what a walk finds.
    pub(crate) fn check(&self, walked: impl Iterator<Item = (u32, Size)>) -> Result<(), String> {
        let mut found = Self::default();
        for (space, Size { runs, blocks, bytes }) in walked {
            found.change(space, runs as isize, blocks as isize, bytes as isize);
        }
        let spaces = self.of.len().max(found.of.len()) as u32;
        match (0..spaces).find(|space| self.of(*space) != found.of(*space)) {
            Some(space) => Err(format!(
                "namespace {space} is counted as {:?}, its runs are {:?}",
                self.of(space),
                found.of(space)
            )),
            None => Ok(()),
        }
    }
}
