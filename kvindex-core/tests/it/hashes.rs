//! Hash vectors: Dynamo's published ones (crate dynamo-tokens), checked with the reference xxHash library too.

use kvindex_core::{
    BlockHasher, BlockStored, Change, EngineBlockHash, EngineProfile, EventBatch, ExtraKey, KvEvent,
    LocalBlockHash, SequenceHash, local_hash_of_le_bytes,
};

#[test]
fn local_and_sequence_hashes_are_the_standards() {
    let mut hasher = BlockHasher::new();
    let blocks = [[1u32, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]];
    let locals = [14643705804678351452u64, 16777012769546811212, 483935686894639516];
    let sequence = [14643705804678351452u64, 4945711292740353085, 12583592247330656132];
    let mut before = None;
    for ((tokens, local), expected) in blocks.iter().zip(locals).zip(sequence) {
        assert_eq!(hasher.local(tokens, &[]), LocalBlockHash(local));
        let bytes: Vec<u8> = tokens.iter().flat_map(|t| t.to_le_bytes()).collect();
        assert_eq!(local_hash_of_le_bytes(&bytes), LocalBlockHash(local));
        let hash = SequenceHash::chain(before, LocalBlockHash(local));
        assert_eq!(hash, SequenceHash(expected));
        before = Some(hash);
    }
}

#[test]
fn extra_keys_change_the_hash_and_never_run_into_each_other() {
    let text = |s: &str| ExtraKey::Text(s.into());
    let item = |s: &str, offset| ExtraKey::Item { identifier: s.into(), offset };
    let lists = [
        vec![],
        vec![text("ab")],
        vec![text("a"), text("b")],
        vec![item("ab", 0)],
        vec![item("ab", 1)],
        vec![ExtraKey::Bytes(b"ab".to_vec())],
        vec![ExtraKey::Lookahead(vec![1])],
        vec![ExtraKey::Lookahead(vec![1, 2])],
    ];
    let hashes: std::collections::BTreeSet<_> =
        lists.iter().map(|keys| BlockHasher::new().local(&[1, 2], keys)).collect();
    assert_eq!(hashes.len(), lists.len());
}

#[test]
fn byte_hashes_fold_to_the_integer_form_of_the_same_engine() {
    let digest: Vec<u8> = (0..32).collect();
    assert_eq!(EngineBlockHash::from_bytes(&digest), Some(EngineBlockHash(0x1819_1a1b_1c1d_1e1f)));
    assert_eq!(EngineBlockHash::from_bytes(&[0; 7]), None);
    assert_eq!(EngineBlockHash::from_bytes(&[0; 65]), None);
}

/// The adapter's name is the namespace's, not the block's; a salt of the same shape stays.
#[test]
fn the_adapters_name_leaves_the_blocks_identity() {
    let seal = |lora: Option<&str>, keys: Vec<ExtraKey>| {
        let stored = BlockStored {
            block_hashes: vec![EngineBlockHash(1)],
            token_ids: vec![1, 2],
            block_size: 2,
            lora_name: lora.map(Into::into),
            carries_extra_keys: true,
            extra_keys: vec![keys],
            ..BlockStored::default()
        };
        let batch = EventBatch { events: vec![KvEvent::BlockStored(stored)], ..EventBatch::default() };
        match batch.seal(&EngineProfile::default(), &mut BlockHasher::new()).remove(0) {
            Change::Stored(run) => (run.lora, run.local_hashes.to_vec()),
            other => panic!("{other:?}"),
        }
    };
    let plain = BlockHasher::new().local(&[1, 2], &[]);
    let salted = BlockHasher::new().local(&[1, 2], &[ExtraKey::Text("x".into())]);
    let text = || ExtraKey::Text("x".into());
    assert_eq!(seal(Some("x"), vec![text()]), (Some("x".into()), vec![plain]));
    assert_eq!(seal(None, vec![text()]), (None, vec![salted]));
    assert_eq!(seal(Some("x"), vec![text(), text()]), (Some("x".into()), vec![salted]));
}
