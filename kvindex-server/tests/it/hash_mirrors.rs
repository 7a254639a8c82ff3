//! Hash mirrors against the hashes that recorded vLLM engines computed for every prompt of their stories:
//! adapters, salts, images, lookahead, four algorithms, three releases, blocks of 16 to 64 tokens.

use std::path::{Path, PathBuf};

use kvindex_core::mirror::{HashProfile, MirrorItem, MirrorLora, MirrorPrompt, VllmProfile};
use kvindex_recording::{EngineHeader, EngineKind, Header, Query, Recording, Truth};

fn cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../recording/cases")
}

fn profile(header: &Header, engine: &EngineHeader) -> HashProfile {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let none_hash = engine.none_hash.as_deref().map(hex);
    let version = header.version;
    let release = Some((version.major, version.minor, version.patch));
    let algorithm = engine.hash_algo.as_deref().unwrap();
    match HashProfile::parse(algorithm, None, none_hash.as_deref(), release).unwrap() {
        HashProfile::Vllm(profile) => {
            HashProfile::Vllm(VllmProfile { lookahead: engine.lookahead as usize, ..profile })
        }
        sglang @ HashProfile::Sglang(_) => sglang,
    }
}

fn mirrored(profile: &HashProfile, query: &Query, size: u32) -> Vec<u64> {
    let tokens: Vec<u64> = query.tokens.iter().copied().map(u64::from).collect();
    let item = |item: &kvindex_recording::MmItem| (item.offset as usize, item.length as usize);
    let items: Vec<MirrorItem<'_>> = query
        .mm
        .iter()
        .map(|mm| MirrorItem { identifier: &mm.identifier, offset: item(mm).0, length: item(mm).1 })
        .collect();
    let prompt = MirrorPrompt {
        lora: query.lora.as_ref().map(|lora| MirrorLora {
            name: &lora.name,
            id: lora.id,
            path: lora.path.as_deref(),
        }),
        cache_salt: query.salt.as_deref(),
        items: &items,
        ..MirrorPrompt::tokens(&tokens)
    };
    let hashes = profile.block_hashes(&prompt, size as usize).unwrap();
    hashes.iter().map(|hash| hash.wire.0).collect()
}

/// (prompts, blocks) of a case whose mirrored hashes are the engine's; nothing may differ.
fn check(case: &str) -> (usize, usize) {
    let base = cases().join(case);
    let header = Recording::open(&base).unwrap().header;
    let (mut prompts, mut blocks) = (0, 0);
    for checkpoint in Truth::open(&base).unwrap() {
        let checkpoint = checkpoint.unwrap();
        for query in &checkpoint.queries {
            for (size, expected) in &query.block_hashes.0 {
                let engine = header.engines.iter().find(|engine| engine.hash_block_size() == *size).unwrap();
                let hashes = mirrored(&profile(&header, engine), query, *size);
                assert_eq!(&hashes, expected, "{case}, checkpoint {}", checkpoint.checkpoint);
                prompts += 1;
                blocks += expected.len();
            }
        }
    }
    (prompts, blocks)
}

#[test]
fn recorded_prompts_hash_as_the_engines_hashed_them() {
    let mut seen = Vec::new();
    for entry in std::fs::read_dir(cases()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let Some(case) = name.strip_suffix(".kvrec.gz") else {
            continue;
        };
        if Recording::open(&cases().join(case)).unwrap().header.engine != EngineKind::Vllm {
            continue; // the truth of SGLang cases has no hashes
        }
        let (prompts, blocks) = check(case);
        assert!(prompts > 10 && blocks > 10, "{case}: {prompts} prompts, {blocks} blocks");
        seen.push(case.to_owned());
    }
    for needed in
        ["basic", "basic-v0.11.0", "basic-v0.20.2", "bytes-cbor", "xxhash-cbor", "lookahead3", "mixed-a"]
    {
        assert!(seen.iter().any(|case| case == needed), "{needed} is missing: {seen:?}");
    }
}
