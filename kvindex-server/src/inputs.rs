//! Bytes from outside, taken as far as they come without a node: what the fuzz targets call. Each answers whether
//! the bytes were in order, so that a run can tell that some were.

use kvindex_core::limits::IndexLimits;
use kvindex_core::replication::{self, ShardCommand};
use kvindex_core::{BlockHasher, Change, Command, EngineProfile, GapPolicy, Index, Scratch, find_matches};
use kvindex_proto::v1;
use prost::Message;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::sync::LazyLock;
use xxhash_rust::xxh3::xxh3_64;

use crate::access::{Caller, check_access};
use crate::api::{Question, parse_json, publication, raw_worker, walk_message};
use crate::config::{ApiLimits, Config, Setting};
use crate::dialects::{Wire, prompt_of};
use crate::ingest::decode::{blocks_of, decode};

/// Limits of a small node: what is beyond them must be refused, not held. Made once, not for each of millions.
static LIMITS: LazyLock<ApiLimits> = LazyLock::new(|| ApiLimits {
    prompt_tokens: 1 << 16,
    batch: 16,
    candidates: 16,
    ..Config::defaults().limits
});

/// An event batch as an engine sends it, and the hashing after it.
///
/// # Panics
/// When more comes out than went in.
#[must_use]
pub fn event_batch(payload: &[u8]) -> bool {
    let Ok(decoded) = decode(payload) else { return false };
    assert!(blocks_of(&decoded.batch) <= payload.len());
    let changes = decoded.batch.seal(&EngineProfile::default(), &mut BlockHasher::new());
    assert_eq!(changes.len(), decoded.batch.events.len());
    true
}

/// An entry of a cluster's log. What is read can be written and reads the same.
///
/// # Panics
/// When it does not, or is larger than the bytes justify.
#[must_use]
pub fn log_entry(entry: &[u8]) -> bool {
    let Ok(commands) = replication::decode(entry) else { return false };
    assert!(hashes(&commands) <= 17 * entry.len() / 8, "more hashes than the bytes justify");
    let again = replication::encode(&commands).expect("what was read can be written");
    assert_eq!(replication::decode(&again).as_ref(), Ok(&commands));
    true
}

fn hashes(commands: &[ShardCommand]) -> usize {
    let batches = commands.iter().flat_map(|command| match command {
        ShardCommand::Index(Command::Events(events)) => events.batches.as_slice(),
        _ => &[],
    });
    let changes = batches.flat_map(|batch| &batch.changes);
    let hashes = changes.map(|change| match change {
        Change::Stored(run) => run.engine_hashes.len() + run.local_hashes.len(),
        Change::Removed { hashes, .. } => hashes.len(),
        Change::Cleared { .. } | Change::Unreadable => 0,
    });
    hashes.sum()
}

/// An HTTP body. The first byte says of which call.
#[must_use]
pub fn http_body(input: &[u8]) -> bool {
    let Some((kind, body)) = input.split_first() else { return false };
    read(*kind, body, &JSON)
}

/// The body of another indexer's question. The first byte says whose, and whether it asks by hashes. What is read is no
/// more than was sent, and reads the same when it is written again, in the conductor's JSON as in its MessagePack.
///
/// # Panics
/// When it does not, or when a body is not refused as its caller's mistake.
#[must_use]
pub fn dialect_body(input: &[u8]) -> bool {
    let Some((kind, body)) = input.split_first() else { return false };
    let (wire, by_hash) = (WIRES[usize::from(kind & 3)], kind & 4 == 4);
    let prompt = match prompt_of(wire, by_hash, body, &LIMITS) {
        Ok(prompt) => prompt,
        Err(status) => {
            assert!(status.is_client_error(), "refused with {status}");
            return false;
        }
    };
    let items = prompt.token_ids.len() + prompt.token_ids_le.len() + prompt.sequence_hashes.len();
    assert!(items <= body.len(), "{items} of {} bytes", body.len());
    // Its hashes are chained from those that came, which nobody knows any more.
    if wire == Wire::Dynamo && by_hash {
        return true;
    }
    let prompt = with_ids(prompt);
    // Packed words are counted when they are asked about.
    if prompt.token_ids.len() > LIMITS.prompt_tokens {
        return true;
    }
    let written = written(wire, by_hash, &prompt);
    let json = serde_json::to_vec(&written).expect("JSON can be written");
    let packed = rmp_serde::to_vec_named(&written).expect("JSON can be written as MessagePack");
    let again = match wire {
        Wire::Packed | Wire::Conductor => vec![(Wire::Conductor, json), (Wire::Packed, packed)],
        Wire::Rfc | Wire::Dynamo => vec![(wire, json)],
    };
    for (wire, body) in again {
        assert_eq!(prompt_of(wire, by_hash, &body, &LIMITS).as_ref(), Ok(&prompt), "{wire:?} {written}");
    }
    true
}

const WIRES: [Wire; 4] = [Wire::Rfc, Wire::Packed, Wire::Conductor, Wire::Dynamo];

/// The same prompt with its packed words as a list.
fn with_ids(mut prompt: v1::Prompt) -> v1::Prompt {
    let words = std::mem::take(&mut prompt.token_ids_le);
    let words = words.chunks_exact(4).filter_map(|word| Some(u32::from_le_bytes(word.try_into().ok()?)));
    prompt.token_ids.extend(words);
    prompt
}

/// A prompt as a body of this form; what nobody said is left out.
fn written(wire: Wire, by_hash: bool, prompt: &v1::Prompt) -> Value {
    let is_dynamo = wire == Wire::Dynamo;
    let (model, tenant) = if is_dynamo { ("model_name", "routing_group") } else { ("model", "tenant_id") };
    let mut body = json!({(model): prompt.model, (tenant): prompt.tenant});
    if !is_dynamo {
        body["block_size"] = prompt.block_size.into();
    }
    for (name, text) in [("lora_name", &prompt.lora_name), ("cache_salt", &prompt.cache_salt)] {
        if let Some(text) = text {
            body[name] = text.as_str().into();
        }
    }
    if by_hash {
        body["seq_hashes"] = prompt.sequence_hashes.as_slice().into();
    } else {
        body["token_ids"] = prompt.token_ids.as_slice().into();
    }
    body
}

/// A gRPC message. The first byte says of which call.
#[must_use]
pub fn grpc_message(input: &[u8]) -> bool {
    let Some((kind, body)) = input.split_first() else { return false };
    let call = match kind % 5 {
        0 => "match",
        1 => "match_batch",
        2 => "explain",
        3 => "register",
        _ => "publish",
    };
    walk_message(call, body, &LIMITS) && read(*kind, body, &PROTOBUF)
}

/// How bytes become each message.
struct Form {
    find: fn(&[u8]) -> Option<v1::MatchRequest>,
    batch: fn(&[u8]) -> Option<v1::MatchBatchRequest>,
    explain: fn(&[u8]) -> Option<v1::ExplainRequest>,
    register: fn(&[u8]) -> Option<v1::RegisterRequest>,
    publish: fn(&[u8]) -> Option<v1::PublishRequest>,
}

const JSON: Form = Form { find: json, batch: json, explain: json, register: json, publish: json };

const PROTOBUF: Form =
    Form { find: protobuf, batch: protobuf, explain: protobuf, register: protobuf, publish: protobuf };

fn json<T: DeserializeOwned>(body: &[u8]) -> Option<T> {
    parse_json(body).ok()
}

fn protobuf<T: Message + Default>(body: &[u8]) -> Option<T> {
    T::decode(body).ok()
}

fn read(kind: u8, body: &[u8], form: &Form) -> bool {
    let (limits, caller) = (&*LIMITS, Caller::anyone());
    let asked =
        |request: &v1::MatchRequest| Question::of_match(request, limits, &caller).is_ok_and(asked_of_nobody);
    match kind % 5 {
        0 => (form.find)(body).is_some_and(|request| asked(&request)),
        1 => (form.batch)(body).is_some_and(|batch| batch.requests.iter().take(limits.batch).all(asked)),
        2 => (form.explain)(body).is_some_and(|request| {
            Question::of_explain(&request, limits, &caller).is_ok_and(asked_of_nobody)
        }),
        3 => (form.register)(body)
            .is_some_and(|request| raw_worker(request).check(GapPolicy::default()).is_ok()),
        _ => (form.publish)(body).is_some_and(|request| publication(request).is_ok()),
    }
}

/// Asks an index that knows nobody.
#[allow(clippy::needless_pass_by_value)] // as is_ok_and hands it over
fn asked_of_nobody(question: Question<'_>) -> bool {
    find_matches(&Index::default().reader(), &question.query(), &mut Scratch::default()).is_ok()
}

/// A configuration file, or an access file. What is taken prints as a file that is taken again, and prints the same.
///
/// # Panics
/// When it does not.
#[must_use]
pub fn configuration(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else { return false };
    let access = check_access(text).is_ok();
    let Ok(config) = Config::of_text(text) else { return access };
    // Static workers are told of, not printed.
    let printed: String = config
        .settings()
        .into_iter()
        .map(|Setting { key, value, .. }| format!("{key} = {value}\n"))
        .collect();
    match Config::of_text(&printed) {
        Ok(again) => assert_eq!(again.settings(), config.settings(), "{printed}"),
        Err(error) => panic!("what is printed is not taken: {error}: {printed}"),
    }
    true
}

/// An index's snapshot, whose length and checksum are made to fit first: damage is found by them, and what is left
/// to find is what fits.
///
/// # Panics
/// When what is taken is not the same again after another round.
#[must_use]
pub fn snapshot(input: &[u8]) -> bool {
    const HEADER: usize = 24;
    const SUM: usize = 8;
    let mut bytes = input.to_vec();
    if let Some(body) = bytes.len().checked_sub(HEADER + SUM) {
        bytes[HEADER - 8..HEADER].copy_from_slice(&(body as u64).to_le_bytes());
        let sum = xxh3_64(&bytes[..HEADER + body]);
        bytes[HEADER + body..].copy_from_slice(&sum.to_le_bytes());
    }
    let limits = IndexLimits { max_entries: 1 << 20, ..IndexLimits::default() };
    let Ok(index) = Index::restore(&bytes, limits) else { return false };
    let again = Index::restore(&index.snapshot(), limits).expect("what was restored can be stored");
    assert_eq!(again.digest(), index.digest());
    true
}
