//! Scores for threads that ask while the index changes.

use super::found::Scratch;
use super::prompt::QueryError;
use super::score::{Score, ScoreQuery, best, race_all};
use crate::index::{Index, Reader, View};

/// Answers [`score`](super::score)'s questions while another thread applies commands. Cheap to clone, one for every
/// thread that asks; it stays of use for as long as anybody keeps the index.
///
/// An [`Index`] has one owner, who changes it. A scorer reads the part of it that questions by sequence hashes need,
/// which is closed to readers only while one run of blocks changes, and not while an event is worked through. So an
/// answer may fall between two blocks of one event, as a question to the engine itself might.
///
/// ```
/// use kvindex_core::{Index, ScoreQuery, Scratch};
/// let index = Index::default();
/// let scorer = index.scorer();
/// let asking = std::thread::spawn(move || {
///     let query = ScoreQuery::new("llama", 16, &[]);
///     scorer.score(&query, &mut Scratch::default()).map(|found| found.map(<[_]>::len))
/// });
/// assert_eq!(asking.join().unwrap(), Ok(Some(0)));
/// ```
#[derive(Debug, Clone)]
pub struct Scorer {
    view: Reader<View>,
}

impl Scorer {
    /// Scores every stream that can serve a prefix of the chain, the longest first, equals in no particular order.
    /// `None` when a stream with several tiers or KV-cache groups may hold a part of the chain: that takes the whole
    /// index, see [`score`](super::score).
    ///
    /// # Errors
    /// When the block size is 0 or too large, or the chain is longer than any prompt.
    pub fn score<'s>(
        &self,
        query: &ScoreQuery<'_>,
        scratch: &'s mut Scratch,
    ) -> Result<Option<&'s [Score]>, QueryError> {
        let (first, others) = race_all(&self.view.look(), query, scratch)?;
        Ok((!others).then(|| best(scratch, first, query)))
    }
}

impl Index {
    /// A reader for other threads, for as long as this index lives and changes.
    #[must_use]
    pub fn scorer(&self) -> Scorer {
        Scorer { view: self.share_view() }
    }
}
