//! The bytes that 29 vLLM and 21 SGLang releases really send, each decoded to exactly what it says.
#![allow(clippy::unwrap_used)]

use kvindex_core::{
    BlockRemoved, BlockStored, DpRank, EngineBlockHash, EventBatch, ExtraKey, Group, GroupKind, KvEvent, Tier,
};
use serde_json::Value;

use super::{DecodedBatch, decode};

/// One schema: the releases that share it and their samples.
pub(super) fn schemas() -> Vec<Value> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../recording/wire_vectors.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Every sample payload of every release.
pub(super) fn payloads() -> Vec<Vec<u8>> {
    let schemas = schemas();
    let vectors = schemas.iter().flat_map(|schema| schema["vectors"].as_array().unwrap());
    vectors.map(|vector| from_hex(vector["hex"].as_str().unwrap())).collect()
}

fn from_hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

fn hash(value: &Value) -> EngineBlockHash {
    if let Some(hex) = value.get("hex") {
        let bytes = from_hex(hex.as_str().unwrap());
        return EngineBlockHash(u64::from_be_bytes(bytes[bytes.len() - 8..].try_into().unwrap()));
    }
    match value.as_u64() {
        Some(hash) => EngineBlockHash(hash),
        None => EngineBlockHash(value.as_i64().unwrap() as u64),
    }
}

fn hashes(value: &Value) -> Vec<EngineBlockHash> {
    value.as_array().unwrap().iter().map(hash).collect()
}

fn u32s(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|token| u32::try_from(token.as_u64().unwrap()).unwrap()).collect()
}

fn key(value: &Value) -> ExtraKey {
    match value {
        Value::String(text) => ExtraKey::Text(text.clone()),
        Value::Array(pair) => {
            ExtraKey::Item { identifier: pair[0].as_str().unwrap().into(), offset: pair[1].as_i64().unwrap() }
        }
        other => panic!("{other}"),
    }
}

/// Field `name` of an event in either form, by the schema's own list of fields.
fn field<'a>(event: &'a Value, names: &[&str], name: &str) -> &'a Value {
    match event {
        Value::Array(items) => {
            names.iter().position(|n| *n == name).and_then(|i| items.get(i + 1)).unwrap_or(&Value::Null)
        }
        map => &map[name],
    }
}

fn expected_event(schema: &Value, event: &Value) -> KvEvent {
    let tag = if event.is_array() { &event[0] } else { &event["type"] };
    let list = if tag == "BlockStored" { "stored_fields" } else { "removed_fields" };
    let names: Vec<&str> = schema[list].as_array().unwrap().iter().map(|n| n.as_str().unwrap()).collect();
    let get = |name| field(event, &names, name);
    let text = |name| get(name).as_str().map(String::from);
    let tier = Tier::from_medium(get("medium").as_str());
    let group = Group(u16::try_from(get("group_idx").as_u64().unwrap_or(0)).unwrap());
    match tag.as_str().unwrap() {
        "AllBlocksCleared" => KvEvent::AllBlocksCleared,
        "BlockRemoved" => {
            KvEvent::BlockRemoved(BlockRemoved { block_hashes: hashes(get("block_hashes")), tier, group })
        }
        _ => {
            let metadata = event.as_array().and_then(|items| items.get(7)).and_then(|m| m.get("cache_salt"));
            let keys = get("extra_keys").as_array().cloned().unwrap_or_default();
            KvEvent::BlockStored(BlockStored {
                block_hashes: hashes(get("block_hashes")),
                parent: Some(get("parent_block_hash")).filter(|p| !p.is_null()).map(hash),
                token_ids: u32s(get("token_ids")),
                block_size: u32::try_from(get("block_size").as_u64().unwrap()).unwrap(),
                tier,
                lora_name: text("lora_name"),
                lora_id: get("lora_id").as_u64(),
                carries_extra_keys: event.is_object() || names.contains(&"extra_keys"),
                extra_keys: keys.iter().map(|k| k.as_array().unwrap().iter().map(key).collect()).collect(),
                cache_salt: metadata.and_then(Value::as_str).map(String::from).or_else(|| text("cache_salt")),
                lookahead: get("lookahead_token_ids")
                    .as_array()
                    .map(|blocks| blocks.iter().map(u32s).collect())
                    .unwrap_or_default(),
                group,
                kind: text("kv_cache_spec_kind").as_deref().map(GroupKind::from_wire),
                sliding_window: get("kv_cache_spec_sliding_window")
                    .as_u64()
                    .map(|window| u32::try_from(window).unwrap()),
            })
        }
    }
}

/// Fields that mean something here, and so are part of the expected event.
const UNDERSTOOD: [&str; 13] = [
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
    "lookahead_token_ids",
    "cache_salt",
];

/// Fields that say nothing of where a prompt's blocks are.
const PASSED_OVER: [&str; 3] = ["locality", "ownership", "session_id"];

fn names<'a>(schema: &'a Value, list: &str) -> Vec<&'a str> {
    schema[list].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect()
}

/// The releases of one engine and their samples.
fn count(schemas: &[Value], engine: &str, list: &str) -> usize {
    let of_engine = schemas.iter().filter(|schema| schema["engine"] == engine);
    of_engine.map(|schema| schema[list].as_array().unwrap().len()).sum()
}

#[test]
fn every_release_decodes_to_what_it_sent() {
    let (schemas, mut compared) = (schemas(), 0);
    for schema in &schemas {
        for vector in schema["vectors"].as_array().unwrap() {
            let decoded = decode(&from_hex(vector["hex"].as_str().unwrap())).unwrap();
            let said = &vector["decoded"];
            let rank = said.get(2).and_then(Value::as_u64);
            assert_eq!(rank, vector["rank"].as_u64(), "{}", vector["name"]);
            let batch = EventBatch {
                engine_time_ms: (said[0].as_f64().unwrap() * 1000.0) as u64,
                dp_rank: rank.map(|rank| DpRank(u32::try_from(rank).unwrap())),
                events: said[1]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|event| expected_event(schema, event))
                    .collect(),
            };
            let expected = DecodedBatch { batch, ..DecodedBatch::default() };
            assert_eq!(decoded, expected, "{} {}", schema["versions"], vector["name"]);
            compared += decoded.batch.events.len();
        }
    }
    // 29 releases of vLLM, 21 of SGLang; nothing is left out, and no event of any sample.
    let counts = ["versions", "vectors"].map(|list| ["vllm", "sglang"].map(|e| count(&schemas, e, list)));
    assert_eq!((counts, compared), ([[29, 21], [118, 53]], 237));
}

/// The comparison above says nothing of a field that no sample sets, or that nobody knows of.
#[test]
fn every_field_of_every_release_is_set_in_a_sample_and_known_here() {
    for schema in schemas() {
        let events: Vec<&Value> = schema["vectors"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|vector| vector["decoded"][1].as_array().unwrap())
            .collect();
        for (list, tag) in [("stored_fields", "BlockStored"), ("removed_fields", "BlockRemoved")] {
            let names = names(&schema, list);
            let tagged = |event: &&&Value| event[0] == tag || event["type"] == tag;
            let events: Vec<&Value> = events.iter().filter(tagged).copied().collect();
            for name in &names {
                assert!(UNDERSTOOD.contains(name) || PASSED_OVER.contains(name), "{name} of {tag}");
                let set = events.iter().any(|event| !field(event, &names, name).is_null());
                assert!(set, "{name}: {}", schema["versions"]);
            }
            for event in events {
                match event {
                    // SGLang 0.5.18 and 0.5.19 append a map of metadata, which their classes do not list.
                    Value::Array(items) if items.last().is_some_and(Value::is_object) => {
                        assert_eq!(
                            (items.len(), &items[7]),
                            (8, &serde_json::json!({"cache_salt": "tenant-1"}))
                        );
                    }
                    Value::Array(items) => assert_eq!(items.len(), names.len() + 1, "{event}"),
                    map => {
                        let keys = map.as_object().unwrap().keys().map(String::as_str);
                        assert!(keys.filter(|key| *key != "type").all(|key| names.contains(&key)), "{event}");
                    }
                }
            }
        }
    }
}
