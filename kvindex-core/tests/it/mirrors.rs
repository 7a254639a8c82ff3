//! Hash mirrors against `data/hash_vectors.json`, which real vLLM and SGLang code wrote: every case of it, and a
//! count that fails when one is passed over.

use std::collections::BTreeMap;

use kvindex_core::mirror::{
    FIXED_SEED, HashProfile, KeyForm, MirrorHash, MirrorItem, MirrorLora, MirrorPrompt, RepeatedItems,
    SglangFormat, SglangProfile, VllmAlgorithm, VllmProfile,
};
use proptest::prelude::*;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// (engine, version, algorithm) → (cases, blocks).
type Counts = BTreeMap<(String, String, String), (usize, usize)>;

fn vectors() -> Vec<Value> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/hash_vectors.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap()
}

fn release(version: &str) -> (u32, u32, u32) {
    let parts: Vec<u32> = version.split('.').map(|part| part.parse().unwrap()).collect();
    (parts[0], parts[1], parts[2])
}

fn tokens(case: &Value) -> Vec<u64> {
    case["tokens"].as_array().unwrap().iter().map(|token| token.as_u64().unwrap()).collect()
}

fn row(row: &Value) -> (String, String, String) {
    (text(row, "engine").into(), text(row, "version").into(), text(row, "algo").into())
}

#[test]
fn every_vllm_vector_is_reproduced() {
    let mut counts = Counts::new();
    for vector in vectors().iter().filter(|row| row["engine"] == "vllm" && row.get("cases").is_some()) {
        let profile = vllm_profile(vector);
        for case in vector["cases"].as_array().unwrap() {
            let name = format!("{:?} {}", row(vector), text(case, "name"));
            let count = counts.entry(row(vector)).or_default();
            count.0 += 1;
            count.1 += check_blocks(&name, case, &vllm_hashes(profile, case), |block, hash| {
                assert_eq!(block["event_u64"].as_u64(), Some(hash.wire.0), "{name}");
            });
        }
    }
    let expected = [
        ("0.11.0", "sha256", (11, 30)),
        ("0.11.0", "sha256_cbor", (11, 30)),
        ("0.20.2", "sha256", (14, 39)),
        ("0.20.2", "sha256_cbor", (14, 39)),
        ("0.20.2", "xxhash", (14, 39)),
        ("0.20.2", "xxhash_cbor", (14, 39)),
        ("0.33.0", "sha256", (37, 97)),
        ("0.33.0", "sha256_cbor", (37, 97)),
        ("0.33.0", "xxhash", (19, 50)),
        ("0.33.0", "xxhash_cbor", (19, 50)),
    ];
    let expected =
        expected.map(|(version, algo, count)| (("vllm".into(), version.into(), algo.into()), count));
    assert_eq!(counts, Counts::from(expected));
}

/// The profile as an operator would give it; its none hash must be the engine's.
fn vllm_profile(vector: &Value) -> VllmProfile {
    let seed = vector["PYTHONHASHSEED"].as_str();
    let version = release(text(vector, "version"));
    let parsed = HashProfile::parse(text(vector, "algo"), seed, None, Some(version)).unwrap();
    let given =
        HashProfile::parse(text(vector, "algo"), None, Some(text(vector, "none_hash")), Some(version));
    assert_eq!(given.unwrap(), parsed);
    let HashProfile::Vllm(profile) = parsed else { panic!("{parsed:?}") };
    assert_eq!(text(vector, "none_hash_seed"), seed.unwrap_or(FIXED_SEED));
    profile
}

fn vllm_hashes(profile: VllmProfile, case: &Value) -> Vec<MirrorHash> {
    let lookahead = case["lookahead"].as_u64().unwrap_or(0) as usize;
    let profile = HashProfile::Vllm(VllmProfile { lookahead, ..profile });
    let items: Vec<MirrorItem<'_>> = case["mm"].as_array().into_iter().flatten().map(item).collect();
    // The one case with embeddings: float32, 16 x 2, each value its position.
    let tensor: Vec<u8> = (0..32u8).flat_map(|i| f32::from(i).to_le_bytes()).collect();
    let digest = Sha256::digest(&tensor);
    let embeds: &[&[u8]] = if text(case, "name").starts_with("prompt embeds") { &[&digest] } else { &[] };
    let tokens = tokens(case);
    let prompt = MirrorPrompt {
        tokens: &tokens,
        lora: case.get("lora").map(|lora| MirrorLora {
            name: text(lora, "name"),
            id: lora["id"].as_i64(),
            path: lora["path"].as_str(),
        }),
        cache_salt: case["salt"].as_str(),
        items: &items,
        prompt_embeds: embeds,
        extra_key: None,
    };
    profile.block_hashes(&prompt, case["block_size"].as_u64().unwrap() as usize).unwrap()
}

fn item(item: &Value) -> MirrorItem<'_> {
    MirrorItem {
        identifier: text(item, "identifier"),
        offset: item["offset"].as_u64().unwrap() as usize,
        length: item["length"].as_u64().unwrap() as usize,
    }
}

/// Compares digest by digest; how many there were.
fn check_blocks(
    name: &str,
    case: &Value,
    hashes: &[MirrorHash],
    check_wire: impl Fn(&Value, &MirrorHash),
) -> usize {
    let blocks = case["blocks"].as_array().unwrap();
    assert_eq!(hashes.len(), blocks.len(), "{name}");
    for (i, (block, hash)) in blocks.iter().zip(hashes).enumerate() {
        assert_eq!(hash.digest.to_string(), text(block, "digest"), "{name}, block {i}");
        check_wire(block, hash);
    }
    blocks.len()
}

#[test]
fn every_sglang_vector_is_reproduced() {
    let mut counts = Counts::new();
    let mut namespaces = 0;
    for vector in vectors().iter().filter(|row| row["engine"] == "sglang") {
        for case in vector["cases"].as_array().unwrap() {
            let eagle = case["bigram"].as_bool().unwrap_or(false);
            let profile = HashProfile::Sglang(SglangProfile { eagle, ..SglangProfile::default() });
            let tokens = tokens(case);
            let prompt = MirrorPrompt { cache_salt: case["salt"].as_str(), ..MirrorPrompt::tokens(&tokens) };
            let size = case["page_size"].as_u64().unwrap() as usize;
            let name = format!("{:?} {}", row(vector), text(case, "name"));
            let count = counts.entry(row(vector)).or_default();
            count.0 += 1;
            let hashes = profile.block_hashes(&prompt, size).unwrap();
            count.1 += check_blocks(&name, case, &hashes, |block, hash| {
                assert_eq!(block["event_i64"].as_i64(), Some(hash.wire.0 as i64), "{name}");
            });
        }
        for namespaced in vector["namespaced_block_hash"].as_array().into_iter().flatten() {
            check_namespace(namespaced);
            namespaces += 1;
        }
    }
    let expected = [("0.5.14", (5, 12)), ("0.5.23", (6, 16))];
    let expected =
        expected.map(|(version, count)| (("sglang".into(), version.into(), "sha256 chain".into()), count));
    assert_eq!(counts, Counts::from(expected));
    assert_eq!(namespaces, 6);
}

/// The vector wraps the unsalted first page of tokens 1000..1016, so only rows without a salt can be had through
/// a prompt; those with one are wrapped here by the written rule, over the chain that a salt really starts.
fn check_namespace(vector: &Value) {
    let tokens: Vec<u64> = (1000..1016).collect();
    let plain = MirrorPrompt::tokens(&tokens);
    let (extra_key, cache_salt) = (vector["extra_key"].as_str(), vector["cache_salt"].as_str());
    let first = |format, prompt: &MirrorPrompt<'_>| {
        let profile = HashProfile::Sglang(SglangProfile { format, eagle: false });
        profile.block_hashes(prompt, 16).unwrap()[0]
    };
    let base = first(SglangFormat::Default, &plain);
    assert_eq!(vector["block_hash"].as_i64(), Some(base.wire.0 as i64));

    let seed = vector["seed"].as_str().map(|hex| {
        (0..32).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect::<Vec<_>>()
    });
    let wrapped = |hash: MirrorHash| match &seed {
        None => i64::from_be_bytes(hash.digest.as_bytes()[..8].try_into().unwrap()),
        Some(seed) => {
            let bytes = [seed.as_slice(), &hash.digest.as_bytes()[..8]].concat();
            i64::from_be_bytes(Sha256::digest(bytes)[..8].try_into().unwrap())
        }
    };
    assert_eq!(vector["published"].as_i64(), Some(wrapped(base)), "the vector's own rule");
    let prompt = MirrorPrompt { extra_key, cache_salt, ..plain };
    let published = first(SglangFormat::Dynamo, &prompt);
    assert_eq!(published.wire.0 as i64, wrapped(published), "{vector}");
}

#[test]
fn a_repeated_image_has_two_hashes_under_pickle() {
    let mut checked = 0;
    for vector in vectors().iter().filter(|row| row.get("same_object").is_some()) {
        // The vector's block: parent 32 zero bytes, tokens 1 to 4, ("mm", "img-x", 0), ("mm", "img-x", 2).
        let items = [0, 2].map(|offset| MirrorItem { identifier: "img-x", offset, length: 1 });
        let prompt = MirrorPrompt { items: &items, ..MirrorPrompt::tokens(&[1, 2, 3, 4]) };
        let hash = |algorithm, repeated_items| {
            let none_hash = [0u8; 32].into();
            let keys = KeyForm::Tagged;
            let profile = VllmProfile { algorithm, none_hash, keys, lookahead: 0, repeated_items };
            HashProfile::Vllm(profile).block_hashes(&prompt, 4).unwrap()[0].digest.to_string()
        };
        let sha256 = VllmAlgorithm::Sha256;
        assert_eq!(hash(sha256, RepeatedItems::SameObject), text(vector, "same_object"));
        assert_eq!(hash(sha256, RepeatedItems::EqualCopies), text(vector, "equal_objects"));
        let cbor = VllmAlgorithm::Sha256Cbor;
        assert_eq!(hash(cbor, RepeatedItems::SameObject), hash(cbor, RepeatedItems::EqualCopies));
        checked += 1;
    }
    assert_eq!(checked, 3);
}

#[test]
fn every_row_of_the_file_is_of_a_kind_that_is_tested() {
    let of_kind = |row: &Value| row.get("cases").is_some() || row.get("same_object").is_some();
    let rows = vectors();
    assert_eq!((rows.len(), rows.iter().filter(|row| of_kind(row)).count()), (27, 27));
}

#[test]
fn wide_ids_take_eight_bytes_each_in_sglang() {
    let wide = 1u64 << 32;
    let hash = HashProfile::parse("sglang", None, None, None).unwrap();
    let hash = hash.block_hashes(&MirrorPrompt::tokens(&[7, wide]), 2).unwrap()[0];
    let bytes = [&[0xff][..], &7u64.to_le_bytes(), &wide.to_le_bytes()].concat();
    assert_eq!(hash.digest.as_bytes(), Sha256::digest(bytes).as_slice());
}

#[test]
fn an_adapter_is_in_the_hash_as_its_release_has_it() {
    let tokens: Vec<u64> = (1000..1016).collect();
    let hash = |version, lora| {
        let profile = HashProfile::parse("sha256_cbor", Some("0"), None, Some(version)).unwrap();
        let prompt = MirrorPrompt { lora: Some(lora), ..MirrorPrompt::tokens(&tokens) };
        profile.block_hashes(&prompt, 16).map(|hashes| hashes[0].digest.to_string())
    };
    let lora = MirrorLora { name: "sql", id: Some(7), path: Some("/adapters/sql") };
    let (renumbered, moved) = (MirrorLora { id: Some(8), ..lora }, MirrorLora { path: Some("/b"), ..lora });
    for (version, by_id, by_path) in
        [((0, 11, 0), true, false), ((0, 20, 2), false, false), ((0, 33, 0), false, true)]
    {
        assert_eq!(hash(version, lora) != hash(version, renumbered), by_id, "{version:?}");
        assert_eq!(hash(version, lora) != hash(version, moved), by_path, "{version:?}");
    }
    assert_eq!(hash((0, 11, 0), MirrorLora { id: None, ..lora }).unwrap_err().field, "lora.id");
    assert_eq!(hash((0, 33, 0), MirrorLora { path: None, ..lora }).unwrap_err().field, "lora.path");
}

#[test]
fn bad_profiles_are_refused_by_field() {
    let parse = |algorithm, seed, none_hash, version| {
        HashProfile::parse(algorithm, seed, none_hash, version).map_err(|error| error.field)
    };
    let zeros = "00".repeat(32);
    for (expected, result) in [
        ("algorithm", parse("md5", None, None, None)),
        ("engine_version", parse("sha256", Some("0"), None, Some((0, 10, 1)))),
        ("engine_version", parse("xxhash", Some("0"), None, Some((0, 13, 0)))),
        ("engine_version", parse("sglang", None, None, Some((0, 5, 5)))),
        ("hash_seed", parse("sha256", None, None, Some((0, 28, 0)))),
        ("hash_seed", parse("xxhash", None, None, Some((0, 33, 0)))),
        ("hash_seed", parse("sha256", Some(""), None, None)),
        ("hash_seed", parse("sha256", Some("4294967296"), None, None)),
        ("hash_seed", parse("sglang", Some("0"), None, None)),
        ("none_hash", parse("sha256", Some("0"), Some(&zeros), None)),
        ("none_hash", parse("sha256", None, Some("abc"), None)),
        ("none_hash", parse("sha256", None, Some(&zeros[..32]), None)),
        ("none_hash", parse("sglang", None, Some(&zeros), None)),
    ] {
        assert_eq!(result.unwrap_err(), expected);
    }
    assert!(parse("xxhash", None, Some(&zeros[..32]), None).is_ok());
    assert!(parse("sha256", None, None, None).is_ok(), "without a release the newest is meant");
}

#[test]
fn bad_prompts_are_refused_by_field() {
    let profile = HashProfile::parse("sha256", None, None, None).unwrap();
    let refused = |offsets: [usize; 2], size| {
        let items = offsets.map(|offset| MirrorItem { identifier: "i", offset, length: 4 });
        let prompt = MirrorPrompt { items: &items, ..MirrorPrompt::tokens(&[1; 8]) };
        profile.block_hashes(&prompt, size).err().map(|error| error.field)
    };
    assert_eq!(refused([0, 4], 4), None);
    assert_eq!(refused([0, 3], 4), Some("items"));
    assert_eq!(refused([0, 5], 4), Some("items"));
    assert_eq!(refused([0, usize::MAX], 4), Some("items"));
    assert_eq!(refused([0, 4], 0), Some("block_size"));
}

proptest! {
    /// A prompt cut anywhere has the same first hashes, and one other token changes the hashes of exactly the
    /// blocks that cover it and all after them.
    #[test]
    fn hashes_are_a_chain(
        mut tokens in prop::collection::vec(0u64..1 << 33, 1..60),
        size in 1usize..9,
        lookahead in 0usize..4,
        (cut, at) in (0usize..60, 0usize..60),
        algorithm in prop::sample::select(VllmAlgorithm::ALL.to_vec()),
    ) {
        let none_hash = algorithm.none_hash("0");
        let (keys, repeated_items) = (KeyForm::Tagged, RepeatedItems::EqualCopies);
        let profile = HashProfile::Vllm(VllmProfile { algorithm, none_hash, keys, lookahead, repeated_items });
        let hashes = |tokens: &[u64]| profile.block_hashes(&MirrorPrompt::tokens(tokens), size).unwrap();
        let whole = hashes(&tokens);
        let short = hashes(&tokens[..cut.min(tokens.len())]);
        prop_assert_eq!(&short[..], &whole[..short.len()]);
        let at = at % tokens.len();
        tokens[at] ^= 1;
        let unchanged = at.saturating_sub(lookahead) / size;
        for (block, (before, after)) in whole.iter().zip(hashes(&tokens)).enumerate() {
            prop_assert_eq!(before.digest == after.digest, block < unchanged, "block {}", block);
        }
    }
}
