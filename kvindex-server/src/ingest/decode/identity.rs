//! What makes a block itself: its tokens, extra keys and lookahead. Where one of these has a form that is
//! not understood, the event keeps its engine hashes (presence by hash stays right) and loses its tokens,
//! because a guessed identity would match the wrong prompts.

use kvindex_core::ExtraKey;
use kvindex_core::limits::MAX_BLOCKS_PER_EVENT;

use super::error::DecodeError;
use super::reader::Reader;

/// A value that may have a form that is not understood.
pub(super) enum Understood<T> {
    Yes(T),
    No,
}

/// Token ids: integers below 2^32, or those packed as little-endian `u32` in one byte string. Pairs
/// (SGLang with EAGLE), negative and larger ids are not understood.
pub(super) fn tokens(
    reader: &mut Reader<'_>,
    field: &'static str,
) -> Result<Understood<Vec<u32>>, DecodeError> {
    if reader.nil() {
        return Ok(Understood::Yes(Vec::new()));
    }
    if let Some(packed) = reader.binary(field)? {
        let (words, rest) = packed.as_chunks::<4>();
        if !rest.is_empty() {
            return Ok(Understood::No);
        }
        return Ok(Understood::Yes(words.iter().map(|word| u32::from_le_bytes(*word)).collect()));
    }
    let Some(count) = reader.array(field)? else {
        return Err(reader.wrong_kind(field, "an array"));
    };
    let mut tokens = Vec::with_capacity(count);
    loop {
        let left = count - tokens.len();
        if reader.plain_tokens(left, &mut tokens) == left {
            return Ok(Understood::Yes(tokens));
        }
        // A longer integer form of a small id is legal, if unusual.
        match reader.int(field)?.map(u32::try_from) {
            Some(Ok(token)) => tokens.push(token),
            Some(Err(_)) => return skip_rest(reader, count - tokens.len() - 1, field),
            None => return skip_rest(reader, count - tokens.len(), field),
        }
    }
}

fn skip_rest<T>(
    reader: &mut Reader<'_>,
    left: usize,
    field: &'static str,
) -> Result<Understood<T>, DecodeError> {
    for _ in 0..left {
        reader.skip(field)?;
    }
    Ok(Understood::No)
}

/// Lookahead tokens: one list for each block. All empty is the same as none.
pub(super) fn lookahead(reader: &mut Reader<'_>) -> Result<Understood<Vec<Vec<u32>>>, DecodeError> {
    const FIELD: &str = "lookahead_token_ids";
    per_block(reader, FIELD, |reader| tokens(reader, FIELD))
}

/// Extra keys: one list, or nil, for each block. All nil is the same as none.
pub(super) fn extra_keys(reader: &mut Reader<'_>) -> Result<Understood<Vec<Vec<ExtraKey>>>, DecodeError> {
    per_block(reader, "extra_keys", keys_of_block)
}

fn per_block<T>(
    reader: &mut Reader<'_>,
    field: &'static str,
    read: impl Fn(&mut Reader<'_>) -> Result<Understood<Vec<T>>, DecodeError>,
) -> Result<Understood<Vec<Vec<T>>>, DecodeError> {
    if reader.nil() {
        return Ok(Understood::Yes(Vec::new()));
    }
    let Some(count) = reader.array(field)? else {
        reader.skip(field)?;
        return Ok(Understood::No);
    };
    if count > MAX_BLOCKS_PER_EVENT {
        return Err(DecodeError::TooManyBlocks { field, count, limit: MAX_BLOCKS_PER_EVENT });
    }
    let mut blocks = Vec::new();
    let mut any = false;
    for done in 0..count {
        let before = *reader;
        match read(reader) {
            Ok(Understood::Yes(items)) => {
                any |= !items.is_empty();
                // Nothing is kept for blocks before the first that has something.
                if any {
                    blocks.resize_with(done, Vec::new);
                    blocks.push(items);
                }
            }
            Ok(Understood::No) => return skip_rest(reader, count - done - 1, field),
            Err(error) if error.skip_reason().is_some() => {
                *reader = before;
                return skip_rest(reader, count - done, field);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Understood::Yes(blocks))
}

fn keys_of_block(reader: &mut Reader<'_>) -> Result<Understood<Vec<ExtraKey>>, DecodeError> {
    const FIELD: &str = "extra_keys";
    if reader.nil() {
        return Ok(Understood::Yes(Vec::new()));
    }
    let Some(count) = reader.array(FIELD)? else {
        reader.skip(FIELD)?;
        return Ok(Understood::No);
    };
    let mut keys = Vec::new();
    for done in 0..count {
        let before = *reader;
        match key(reader)? {
            Some(key) => keys.push(key),
            None => {
                *reader = before;
                return skip_rest(reader, count - done, FIELD);
            }
        }
    }
    Ok(Understood::Yes(keys))
}

/// One extra key, bare (`"salt"`, `["image", offset]`, bytes) or tagged as vLLM's own hash input is since
/// 0.31 (`["mm", image, offset]`, `["cache_salt", salt]`, `["lora", name, path]`, `["prompt_embeds", digest]`).
fn key(reader: &mut Reader<'_>) -> Result<Option<ExtraKey>, DecodeError> {
    const FIELD: &str = "extra_keys";
    if let Some(text) = reader.text(FIELD)? {
        return Ok(Some(ExtraKey::Text(text.into())));
    }
    if let Some(bytes) = reader.binary(FIELD)? {
        return Ok(Some(ExtraKey::Bytes(bytes.into())));
    }
    let Some(len) = reader.array(FIELD)? else {
        return Ok(None);
    };
    let Some(first) = reader.text(FIELD)? else {
        return Ok(None);
    };
    match (first, len) {
        ("mm", 3) => item(reader),
        ("lora", 3) => {
            let name = reader.text(FIELD)?;
            reader.skip(FIELD)?;
            Ok(name.map(|name| ExtraKey::Text(name.into())))
        }
        (_, 2) => pair(first, reader),
        _ => Ok(None),
    }
}

fn item(reader: &mut Reader<'_>) -> Result<Option<ExtraKey>, DecodeError> {
    match reader.text("extra_keys")? {
        Some(identifier) => item_at(identifier, reader),
        None => Ok(None),
    }
}

fn item_at(identifier: &str, reader: &mut Reader<'_>) -> Result<Option<ExtraKey>, DecodeError> {
    let offset = reader.int("extra_keys")?.and_then(|offset| i64::try_from(offset).ok());
    Ok(offset.map(|offset| ExtraKey::Item { identifier: identifier.into(), offset }))
}

fn pair(first: &str, reader: &mut Reader<'_>) -> Result<Option<ExtraKey>, DecodeError> {
    if let Some(text) = reader.text("extra_keys")? {
        return Ok((first == "cache_salt").then(|| ExtraKey::Text(text.into())));
    }
    if let Some(bytes) = reader.binary("extra_keys")? {
        return Ok((first == "prompt_embeds").then(|| ExtraKey::Bytes(bytes.into())));
    }
    item_at(first, reader)
}
