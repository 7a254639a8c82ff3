//! The namespaces that may hold a query's prompt, and its hashes in each: apart from the walk, so that a long prompt can
//! be hashed while no lock is held.

use super::found::Scratch;
use super::prompt::{Prompt, Query, QueryError};
use crate::index::{Family, IndexReader, Space};
use crate::worker::HashScheme;

/// First quarter of [`find_matches`](crate::find_matches), for callers that hold a lock around the reader: checks the
/// query and notes the
/// namespaces that may hold its prompt. [`hash_noted`] needs no reader then.
///
/// # Errors
/// When the query contradicts itself.
pub fn note_namespaces(
    reader: &IndexReader<'_>,
    query: &Query<'_>,
    scratch: &mut Scratch,
) -> Result<(), QueryError> {
    query.check()?;
    scratch.note_all(reader, query);
    Ok(())
}

/// Second quarter: hashes the prompt for the namespaces that [`note_namespaces`] noted.
pub fn hash_noted(query: &Query<'_>, scratch: &mut Scratch) {
    scratch.hash_noted(query);
}

/// Whether the namespaces that were noted are still all there are; where they are not, the prompt must be hashed
/// again, by [`hash_prompt`](crate::hash_prompt).
#[must_use]
pub fn is_noted(reader: &IndexReader<'_>, query: &Query<'_>, scratch: &Scratch) -> bool {
    let mut noted = scratch.walks.iter().map(|walk| (walk.space, walk.block_size, walk.scheme));
    namespaces_of(reader, query).all(|now| noted.next() == Some(now)) && noted.next().is_none()
}

/// Those in which a query may have an answer by its tokens or sequence hashes.
fn namespaces_of(
    reader: &IndexReader<'_>,
    query: &Query<'_>,
) -> impl Iterator<Item = (Space, u32, HashScheme)> {
    let family = Family { tenant: query.tenant, model: query.model, lora: query.lora };
    let by_name = matches!(query.prompt, Prompt::EngineHashes(_));
    let spaces = if by_name { &[] } else { reader.spaces().family(family) };
    let of = |space: &Space| reader.spaces().get(*space).map(|n| (*space, n.block_size, n.scheme));
    let asked = |(_, size, _): &(Space, u32, HashScheme)| query.block_size.is_none_or(|asked| asked == *size);
    spaces.iter().filter_map(of).filter(asked)
}

impl Scratch {
    /// Hashes the prompt for every namespace in which the query may have an answer.
    pub(crate) fn hash_all(&mut self, reader: &IndexReader<'_>, query: &Query<'_>) {
        self.note_all(reader, query);
        self.hash_noted(query);
    }

    fn note_all(&mut self, reader: &IndexReader<'_>, query: &Query<'_>) {
        self.spare.append(&mut self.walks);
        for (space, block_size, scheme) in namespaces_of(reader, query) {
            let mut walk = self.spare.pop().unwrap_or_default();
            walk.space = space;
            walk.block_size = block_size;
            walk.hidden = query.hidden_from(scheme);
            walk.scheme = scheme;
            self.walks.push(walk);
        }
    }

    fn hash_noted(&mut self, query: &Query<'_>) {
        for walk in &mut self.walks {
            query.sequence_hashes(walk.block_size, walk.scheme, &mut self.hasher, &mut walk.hashes);
        }
    }
}
