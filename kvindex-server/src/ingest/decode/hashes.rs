//! Block hashes as engines write them: integers of either sign, or byte strings.

use kvindex_core::EngineBlockHash;
use kvindex_core::limits::MAX_BLOCKS_PER_EVENT;

use super::error::DecodeError;
use super::reader::Reader;

/// One hash. Negative integers count by their 64 bits, as SGLang's and old vLLM's do.
pub(super) fn hash(reader: &mut Reader<'_>, field: &'static str) -> Result<EngineBlockHash, DecodeError> {
    if let Some(value) = reader.int(field)? {
        // In -2^63..2^64 by its wire form, so the low 64 bits are all of it.
        return Ok(EngineBlockHash(value as u64));
    }
    if let Some(bytes) = reader.binary(field)? {
        let width = bytes.len();
        return EngineBlockHash::from_bytes(bytes).ok_or(DecodeError::HashWidth { field, width });
    }
    reader.peek(field)?;
    Err(DecodeError::HashWidth { field, width: 0 })
}

/// A hash or nil.
pub(super) fn optional_hash(
    reader: &mut Reader<'_>,
    field: &'static str,
) -> Result<Option<EngineBlockHash>, DecodeError> {
    if reader.nil() { Ok(None) } else { hash(reader, field).map(Some) }
}

/// A list of hashes, bounded by `MAX_BLOCKS_PER_EVENT`.
pub(super) fn hash_list(
    reader: &mut Reader<'_>,
    field: &'static str,
) -> Result<Vec<EngineBlockHash>, DecodeError> {
    if reader.nil() {
        return Ok(Vec::new());
    }
    let Some(count) = reader.array(field)? else {
        return Err(reader.wrong_kind(field, "an array"));
    };
    if count > MAX_BLOCKS_PER_EVENT {
        return Err(DecodeError::TooManyBlocks { field, count, limit: MAX_BLOCKS_PER_EVENT });
    }
    let mut hashes = Vec::with_capacity(count);
    for _ in 0..count {
        hashes.push(hash(reader, field)?);
    }
    Ok(hashes)
}
