//! One event, positional array or map. The array form carries all fields of its version in a fixed order,
//! the map form names them; both fill the same struct, so one rule decides what a field means.

use kvindex_core::limits::{MAX_BLOCK_SIZE, MAX_NAME_BYTES, MAX_SALT_BYTES};
use kvindex_core::{BlockRemoved, BlockStored, EngineBlockHash, ExtraKey, Group, GroupKind, KvEvent, Tier};

use super::error::DecodeError;
use super::hashes::{hash_list, optional_hash};
use super::identity::{Understood, extra_keys, lookahead, tokens};
use super::reader::Reader;

/// One event that was understood.
pub(super) struct Decoded {
    pub(super) event: KvEvent,
    pub(super) tokens_known: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Tag {
    Stored,
    Removed,
    Cleared,
    Unknown,
}

impl Tag {
    fn of(name: &str) -> Self {
        match name {
            "BlockStored" => Self::Stored,
            "BlockRemoved" => Self::Removed,
            "AllBlocksCleared" => Self::Cleared,
            _ => Self::Unknown,
        }
    }

    /// By the word of the indexer standard (Mooncake RFC 1527), which Mooncake's store puts beside or in place of
    /// the engines' own.
    fn of_standard(word: &str) -> Option<Self> {
        match word {
            "stored" => Some(Self::Stored),
            "removed" => Some(Self::Removed),
            "cleared" => Some(Self::Cleared),
            _ => None,
        }
    }
}

/// Every field that any version of any event has had and that means something here.
#[derive(Default)]
struct Fields {
    block_hashes: Option<Vec<EngineBlockHash>>,
    /// The same under the indexer standard's name; a publisher may send both.
    seq_hashes: Option<Vec<EngineBlockHash>>,
    parent: Option<EngineBlockHash>,
    token_ids: Vec<u32>,
    tokens_unknown: bool,
    block_size: u32,
    tier: Tier,
    lora_id: Option<u64>,
    lora_name: Option<String>,
    carries_extra_keys: bool,
    extra_keys: Vec<Vec<ExtraKey>>,
    cache_salt: Option<String>,
    lookahead: Vec<Vec<u32>>,
    group: Group,
    kind: Option<GroupKind>,
    sliding_window: Option<u32>,
}

/// Reads one event; `None` when its tag is unknown.
pub(super) fn read(reader: &mut Reader<'_>) -> Result<Option<Decoded>, DecodeError> {
    if let Some(len) = reader.array("event")? {
        return read_array(reader, len);
    }
    if let Some(len) = reader.map("event")? {
        return read_map(reader, len);
    }
    Err(reader.wrong_kind("event", "an array or a map"))
}

const STORED_FIELDS: [&str; 11] = [
    "block_hashes",
    "parent_block_hash",
    "token_ids",
    "block_size",
    "lora_id",
    "medium",
    "lora_name",
    "extra_keys",
    "group_idx",
    "kv_cache_spec_kind",
    "kv_cache_spec_sliding_window",
];
const REMOVED_FIELDS: [&str; 3] = ["block_hashes", "medium", "group_idx"];

/// Length, tag included, from which vLLM's positional BlockStored has extra keys.
const EXTRA_KEYS_LENGTH: usize = 9;

fn read_array(reader: &mut Reader<'_>, len: usize) -> Result<Option<Decoded>, DecodeError> {
    if len == 0 {
        return Err(DecodeError::TooFew { field: "event", len, least: 1 });
    }
    let Some(name) = reader.text("type")? else {
        return Err(reader.wrong_kind("type", "text"));
    };
    let tag = Tag::of(name);
    let names: &[&str] = match tag {
        Tag::Stored => &STORED_FIELDS,
        Tag::Removed => &REMOVED_FIELDS,
        Tag::Cleared | Tag::Unknown => &[],
    };
    let mut fields = Fields { carries_extra_keys: len >= EXTRA_KEYS_LENGTH, ..Fields::default() };
    for i in 0..len - 1 {
        match names.get(i) {
            Some(name) => fields.read(name, reader)?,
            None => reader.skip("event")?,
        }
    }
    fields.build(tag)
}

fn read_map(reader: &mut Reader<'_>, len: usize) -> Result<Option<Decoded>, DecodeError> {
    let mut fields = Fields { carries_extra_keys: true, ..Fields::default() };
    let mut tag = None;
    for _ in 0..len {
        let Some(key) = reader.text("event key")? else {
            reader.skip("event key")?;
            reader.skip("event")?;
            continue;
        };
        if key == "type" {
            let name = reader.text("type")?.ok_or_else(|| reader.wrong_kind("type", "text"))?;
            tag = Some(Tag::of(name));
        } else if key == "event_type" {
            let word = optional_text(reader, "event_type")?;
            tag = tag.or(word.and_then(Tag::of_standard));
        } else if tag == Some(Tag::Unknown) {
            // Its fields may mean anything, so none may make it malformed.
            reader.skip("event")?;
        } else {
            fields.read(key, reader)?;
        }
    }
    // Without a word for what happened the publisher speaks another dialect.
    fields.build(tag.unwrap_or(Tag::Unknown))
}

impl Fields {
    fn read(&mut self, name: &str, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        match name {
            "block_hashes" => self.block_hashes = Some(hash_list(reader, "block_hashes")?),
            "seq_hashes" => self.seq_hashes = Some(hash_list(reader, "seq_hashes")?),
            "parent_block_hash" => self.parent = optional_hash(reader, "parent_block_hash")?.or(self.parent),
            "parent_hash" => self.parent = self.parent.or(optional_hash(reader, "parent_hash")?),
            "token_ids" => self.token_ids = self.understood(tokens(reader, "token_ids")?),
            "block_size" => self.block_size = block_size(reader)?,
            "lora_id" => self.lora_id = optional_int(reader, "lora_id", u64::MAX)?,
            "medium" => self.tier = Tier::from_medium(optional_text(reader, "medium")?),
            "lora_name" => self.read_lora_name(reader)?,
            "extra_keys" => self.extra_keys = self.understood(extra_keys(reader)?),
            "cache_salt" => self.cache_salt = salt(reader)?,
            "lookahead_token_ids" => self.lookahead = self.understood(lookahead(reader)?),
            // Of a whole deployment, and part of its hashes: no prompt's tokens alone can name these blocks.
            "additional_salt" => {
                self.tokens_unknown |= optional_text(reader, "additional_salt")?.is_some();
            }
            "group_idx" => {
                let group = optional_int(reader, "group_idx", u16::MAX.into())?.unwrap_or(0);
                self.group = Group(u16::try_from(group).unwrap_or(u16::MAX));
            }
            "kv_cache_spec_kind" => {
                self.kind = optional_text(reader, "kv_cache_spec_kind")?.map(GroupKind::from_wire);
            }
            "kv_cache_spec_sliding_window" => {
                let window = optional_int(reader, "kv_cache_spec_sliding_window", u32::MAX.into())?;
                self.sliding_window = window.and_then(|tokens| u32::try_from(tokens).ok());
            }
            _ => reader.skip("event")?,
        }
        Ok(())
    }

    fn understood<T: Default>(&mut self, value: Understood<T>) -> T {
        match value {
            Understood::Yes(value) => value,
            Understood::No => {
                self.tokens_unknown = true;
                T::default()
            }
        }
    }

    /// The adapter's name; at this place SGLang 0.5.18 and 0.5.19 send a map of metadata instead.
    fn read_lora_name(&mut self, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        let Some(len) = reader.map("lora_name")? else {
            // A namespace bears it, for good.
            self.lora_name = short_text(reader, "lora_name", MAX_NAME_BYTES)?;
            return Ok(());
        };
        for _ in 0..len {
            if reader.text("lora_name")? == Some("cache_salt") {
                self.cache_salt = salt(reader)?;
            } else {
                reader.skip("lora_name")?;
            }
        }
        Ok(())
    }

    fn build(self, tag: Tag) -> Result<Option<Decoded>, DecodeError> {
        let event = match tag {
            Tag::Unknown => return Ok(None),
            // The standard lets an event clear one medium, the engines' names none. One that clears another
            // medium than the device's cannot be told to the index, and passing it over must be.
            Tag::Cleared if self.tier != Tier::Device => {
                let (field, expected) = ("medium", "the device's, in an event that clears");
                return Err(DecodeError::WrongKind { field, expected, found: "another" });
            }
            Tag::Cleared => KvEvent::AllBlocksCleared,
            Tag::Removed => KvEvent::BlockRemoved(BlockRemoved {
                block_hashes: required(self.block_hashes.or(self.seq_hashes))?,
                tier: self.tier,
                group: self.group,
            }),
            Tag::Stored => return self.build_stored().map(Some),
        };
        Ok(Some(Decoded { event, tokens_known: true }))
    }

    fn build_stored(self) -> Result<Decoded, DecodeError> {
        let tokens_known = !self.tokens_unknown;
        let event = KvEvent::BlockStored(BlockStored {
            block_hashes: required(self.block_hashes.or(self.seq_hashes))?,
            parent: self.parent,
            token_ids: if tokens_known { self.token_ids } else { Vec::new() },
            block_size: self.block_size,
            tier: self.tier,
            lora_name: self.lora_name,
            lora_id: self.lora_id,
            carries_extra_keys: self.carries_extra_keys,
            extra_keys: self.extra_keys,
            cache_salt: self.cache_salt,
            lookahead: self.lookahead,
            group: self.group,
            kind: self.kind,
            sliding_window: self.sliding_window,
        });
        Ok(Decoded { event, tokens_known })
    }
}

fn required(hashes: Option<Vec<EngineBlockHash>>) -> Result<Vec<EngineBlockHash>, DecodeError> {
    hashes.ok_or(DecodeError::WrongKind { field: "block_hashes", expected: "an array", found: "nothing" })
}

fn optional_text<'a>(reader: &mut Reader<'a>, field: &'static str) -> Result<Option<&'a str>, DecodeError> {
    if reader.nil() {
        return Ok(None);
    }
    match reader.text(field)? {
        Some(text) => Ok(Some(text)),
        None => Err(reader.wrong_kind(field, "text")),
    }
}

fn short_text(
    reader: &mut Reader<'_>,
    field: &'static str,
    limit: usize,
) -> Result<Option<String>, DecodeError> {
    match optional_text(reader, field)? {
        Some(text) if text.len() > limit => Err(DecodeError::TooLong { field, len: text.len(), limit }),
        text => Ok(text.map(Into::into)),
    }
}

fn salt(reader: &mut Reader<'_>) -> Result<Option<String>, DecodeError> {
    short_text(reader, "cache_salt", MAX_SALT_BYTES)
}

fn optional_int(
    reader: &mut Reader<'_>,
    field: &'static str,
    limit: u64,
) -> Result<Option<u64>, DecodeError> {
    if reader.nil() {
        return Ok(None);
    }
    let value = reader.int(field)?.ok_or_else(|| reader.wrong_kind(field, "an integer"))?;
    match u64::try_from(value) {
        Ok(value) if value <= limit => Ok(Some(value)),
        _ => Err(DecodeError::OutOfRange { field, value, limit }),
    }
}

fn block_size(reader: &mut Reader<'_>) -> Result<u32, DecodeError> {
    let size = optional_int(reader, "block_size", MAX_BLOCK_SIZE.into())?.unwrap_or(0);
    Ok(u32::try_from(size).unwrap_or(0))
}
