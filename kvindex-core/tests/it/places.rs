//! Where blocks go when one name could lie in several places: each was wrong once.

use kvindex_core::*;

use crate::rig::{BLOCK, MODEL, Rig, ask, engine_hash, removed, stored, tokens};

fn blocks(path: &[u8], from: usize) -> BlockStored {
    BlockStored { carries_extra_keys: true, ..stored("a", path, from) }
}

fn asked(index: &Index, path: &[u8], lora: Option<&str>, salt: Option<&str>) -> WorkerMatch {
    let tokens = tokens(path);
    let prompt = Prompt::Tokens { tokens: Tokens::Ids(&tokens), salt, items: &[] };
    let query = Query { prompt, lora, ..Query::tokens(MODEL, &tokens) };
    find_matches(&index.reader(), &query, &mut Scratch::default()).unwrap().workers.remove(0)
}

/// SGLang 0.5.22: the adapter is named in the event but is not in the hash, so two namespaces share names.
#[test]
fn an_adapters_block_never_lies_in_the_base_models_namespace() {
    let mut rig = Rig::new(&[]);
    let mut spec = WorkerSpec::new(WorkerId::new("a").unwrap(), MODEL);
    (spec.engine, spec.hidden_identity) = (EngineKind::Sglang, HiddenIdentity::Unused);
    rig.index.apply(&Command::Register(Box::new(spec)));
    let profile = EngineProfile { kind: EngineKind::Sglang, version: Some((0, 5, 22)), ..Default::default() };
    rig.send_as("a", vec![KvEvent::BlockStored(blocks(b"x", 0))], &profile);
    let adapted = BlockStored { lora_name: Some("ad".into()), ..blocks(b"xy", 0) };
    rig.send_as("a", vec![KvEvent::BlockStored(adapted)], &profile);
    assert_eq!(asked(&rig.index, b"xy", None, None).matched_blocks, 1, "y was stored for the adapter alone");
    let found = asked(&rig.index, b"xy", Some("ad"), None);
    assert!(found.matched_blocks == 2 || !found.doubts.is_empty(), "{found:?}");
}

/// Batch 1 has group 0 alone (unit 4); batch 2 has both, group 0 first: unit 2 is learned while the model still
/// looks ordinary, so nothing is unseated and the old chain is out of reach without a doubt.
#[test]
fn chains_cut_anew_by_group_0_itself_are_unplaced_and_say_so() {
    let mut rig = Rig::new(&["a"]);
    let large = |path: &[u8]| BlockStored {
        block_size: 2 * BLOCK,
        block_hashes: vec![engine_hash("a", path)],
        kind: Some(GroupKind::Full),
        ..blocks(path, 0)
    };
    rig.send("a", vec![KvEvent::BlockStored(large(b"xy"))]);
    let (group, kind, sliding_window) = (Group(1), Some(GroupKind::SlidingWindow), Some(2 * BLOCK + 1));
    let small = BlockStored { group, kind, sliding_window, ..blocks(b"xy", 0) };
    rig.send("a", vec![KvEvent::BlockStored(large(b"vw")), KvEvent::BlockStored(small)]);
    let found = ask(&rig.index, b"xy").remove(0);
    assert!(found.matched_blocks == 2 || found.doubts.contains(Doubt::UnplacedBlocks), "{found:?}");
}

/// A host copy seen first is placed by its tokens; the device's later word on the same name must move it.
#[test]
fn the_devices_word_moves_what_was_placed_by_tokens() {
    let mut rig = Rig::new(&["a"]);
    let host = BlockStored { tier: Tier::Host, ..blocks(b"xy", 0) };
    let salted =
        BlockStored { extra_keys: vec![vec![ExtraKey::Text("s".into())], vec![]], ..blocks(b"xy", 0) };
    rig.send("a", vec![KvEvent::BlockStored(host), KvEvent::BlockStored(salted)]);
    rig.send("a", (1..=2).map(|end| KvEvent::BlockRemoved(removed("a", &b"xy"[..end]))).collect());
    let found = asked(&rig.index, b"xy", None, Some("s"));
    assert!(found.matched_blocks == 2 || !found.doubts.is_empty(), "{found:?}");
}
