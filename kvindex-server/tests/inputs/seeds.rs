//! Inputs that are in order, to begin with.

use kvindex_proto::v1;
use kvindex_recording::Recording;
use prost::Message;
use serde::Serialize;
use serde_json::{Value, json};
use std::path::Path;

const CASES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../recording/cases");

/// The numbers of the calls, as the entry points know them.
const MATCH: u8 = 0;
const BATCH: u8 = 1;
const EXPLAIN: u8 = 2;
const REGISTER: u8 = 3;
const PUBLISH: u8 = 4;

/// The first events of engines of several kinds.
pub(crate) fn frames() -> Vec<Vec<u8>> {
    let cases = ["basic", "hybrid-swa", "sglang-v0.5.23", "bytes-cbor", "offload-cpu"];
    let recordings = cases.map(|case| Recording::open(&Path::new(CASES).join(case)).unwrap());
    let payloads = recordings.iter().flat_map(|recording| recording.records.iter().take(6));
    payloads.map(|record| record.payload.to_vec()).collect()
}

/// Commands of every kind in one entry, as today's programs write it and as earlier ones did.
pub(crate) fn entries() -> Vec<Vec<u8>> {
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../kvindex-core/tests/golden");
    ["entry-v1.bin", "entry-v2.bin"].map(|file| std::fs::read(Path::new(golden).join(file)).unwrap()).to_vec()
}

fn prompts() -> Vec<v1::Prompt> {
    let base = v1::Prompt { model: "m".into(), tenant: "t".into(), ..v1::Prompt::default() };
    let item = v1::PromptItem { identifier: "i".into(), offset: 3, length: 5 };
    vec![
        v1::Prompt { token_ids: (0..40).collect(), cache_salt: Some("s".into()), ..base.clone() },
        v1::Prompt { token_ids_le: vec![7; 64].into(), items: vec![item], ..base.clone() },
        v1::Prompt { sequence_hashes: vec![1, u64::MAX], block_size: 16, ..base.clone() },
        v1::Prompt { engine_block_hashes: vec![1, 2, 3], block_size: 4, lora_name: Some("l".into()), ..base },
    ]
}

fn questions() -> Vec<v1::MatchRequest> {
    let question = |prompt| v1::MatchRequest {
        prompt: Some(prompt),
        candidates: vec!["w".into(), "10.0.0.1:1".into()],
        labels: [("k".to_owned(), "v".to_owned())].into(),
        tier: Some("host".into()),
        top_k: Some(3),
        group_rollup: true,
        ..v1::MatchRequest::default()
    };
    prompts().into_iter().map(question).collect()
}

fn worker() -> v1::RegisterRequest {
    v1::RegisterRequest {
        worker_id: "a/w".into(),
        model: "m".into(),
        address: Some("[::1]:8000".into()),
        endpoint: "tcp://10.0.0.1:5557".into(),
        replay_endpoint: "tcp://10.0.0.1:6557".into(),
        data_parallel_size: 2,
        groups: vec![v1::KvCacheGroup {
            group_idx: 0,
            kind: "sliding_window".into(),
            block_size: 16,
            sliding_window: 64,
        }],
        hash_profile: Some(v1::HashProfile {
            algorithm: "sha256".into(),
            hash_seed: Some("0".into()),
            none_hash: None,
        }),
        ..v1::RegisterRequest::default()
    }
}

fn batch() -> v1::PublishRequest {
    let key = v1::ExtraKey { identifier: "i".into(), offset: -1, ..v1::ExtraKey::default() };
    let stored = v1::PublishEvent {
        r#type: "stored".into(),
        block_hashes: vec![1, 2],
        parent_block_hash: Some(9),
        token_ids: (0..8).collect(),
        block_size: 4,
        extra_keys: vec![v1::BlockExtraKeys { keys: vec![key] }, v1::BlockExtraKeys::default()],
        ..v1::PublishEvent::default()
    };
    let removed =
        v1::PublishEvent { r#type: "removed".into(), block_hashes: vec![1], ..v1::PublishEvent::default() };
    let cleared = v1::PublishEvent { r#type: "cleared".into(), ..v1::PublishEvent::default() };
    v1::PublishRequest {
        worker_id: "w".into(),
        generation: 1,
        events: vec![stored, removed, cleared],
        ..v1::PublishRequest::default()
    }
}

/// Every kind of call, each message made into bytes.
fn calls(make: &dyn Fn(&dyn Call) -> Vec<u8>) -> Vec<Vec<u8>> {
    let numbered = |number: u8, call: &dyn Call| [vec![number], make(call)].concat();
    let explain = |question: v1::MatchRequest| v1::ExplainRequest {
        prompt: question.prompt,
        candidates: question.candidates,
        ..v1::ExplainRequest::default()
    };
    let mut all: Vec<Vec<u8>> = questions().iter().map(|question| numbered(MATCH, question)).collect();
    all.extend(questions().into_iter().map(|question| numbered(EXPLAIN, &explain(question))));
    all.push(numbered(BATCH, &v1::MatchBatchRequest { requests: questions() }));
    all.push(numbered(REGISTER, &worker()));
    all.push(numbered(PUBLISH, &batch()));
    all
}

/// A message in both its forms.
trait Call {
    fn json(&self) -> Vec<u8>;
    fn protobuf(&self) -> Vec<u8>;
}

impl<T: Serialize + Message> Call for T {
    fn json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap()
    }

    fn protobuf(&self) -> Vec<u8> {
        self.encode_to_vec()
    }
}

pub(crate) fn http() -> Vec<Vec<u8>> {
    calls(&|call| call.json())
}

/// Mooncake's and Dynamo's questions, by tokens and by hashes, in each form.
pub(crate) fn dialects() -> Vec<Vec<u8>> {
    const RFC: u8 = 0;
    const PACKED: u8 = 1;
    const CONDUCTOR: u8 = 2;
    const DYNAMO: u8 = 3;
    const BY_HASH: u8 = 4;
    let with = |base: &Value, name: &str, value: Value| {
        let mut body = base.clone();
        body[name] = value;
        body
    };
    let (ids, hashes) = (|| Value::from_iter(0..40), || json!([1, u64::MAX, 3]));
    let rfc = json!({"model": "m", "block_size": 4, "tenant_id": "t", "instance_id": null, "cache_salt": "s",
        "hash_profile": {"strategy": "vllm_v1", "inner": {"a": [1]}}, "unknown": [[{}], 1.5, "x"]});
    let conductor =
        json!({"model": "m", "block_size": 4, "tenant_id": "t", "instance_id": "i", "lora_name": "l"});
    let dynamo = json!({"model_name": "m", "routing_group": "t", "lora_name": "l", "unknown": {"a": null}});
    let by_hash = json!({"model_name": "m", "block_hashes": [-1, 2, i64::MIN]});
    let json = |kind: u8, body: Value| [vec![kind], serde_json::to_vec(&body).unwrap()].concat();
    let packed = |kind: u8, body: Value| [vec![kind], rmp_serde::to_vec_named(&body).unwrap()].concat();
    vec![
        json(RFC, with(&rfc, "token_ids", ids())),
        json(RFC | BY_HASH, with(&rfc, "seq_hashes", hashes())),
        json(CONDUCTOR, with(&conductor, "token_ids", ids())),
        packed(PACKED, with(&conductor, "token_ids", ids())),
        packed(PACKED | BY_HASH, with(&conductor, "block_hash", hashes())),
        packed_words(PACKED),
        json(DYNAMO, with(&dynamo, "token_ids", ids())),
        json(DYNAMO | BY_HASH, by_hash),
    ]
}

/// A question whose token ids are bytes, which no JSON has.
fn packed_words(kind: u8) -> Vec<u8> {
    let mut body = vec![kind];
    rmp::encode::write_map_len(&mut body, 3).unwrap();
    rmp::encode::write_str(&mut body, "token_ids").unwrap();
    rmp::encode::write_bin(&mut body, &[7; 64]).unwrap();
    rmp::encode::write_str(&mut body, "model").unwrap();
    rmp::encode::write_str(&mut body, "m").unwrap();
    rmp::encode::write_str(&mut body, "block_size").unwrap();
    rmp::encode::write_uint(&mut body, 16).unwrap();
    body
}

pub(crate) fn grpc() -> Vec<Vec<u8>> {
    calls(&|call| call.protobuf())
}

pub(crate) fn configurations() -> Vec<Vec<u8>> {
    let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let access = format!(
        "[[tokens]]\nname = \"t\"\nsha256 = \"{digest}\"\nrights = [\"read\", \"admin\"]\ntenants = [\"a\"]\n\
         queries_per_s = 5\nburst = 9\nexpires = \"2030-01-31T00:00:00Z\"\n[[tenants]]\nname = \"a\"\nmax_workers = 3\n"
    );
    let node = "listen = \"[::1]:9590\"\nlog_format = \"json\"\nmax_batch = 7\nmax_streams = 9\ndrain_s = 3\n\
                gap_policy = \"keep_as_suspect\"\naccess_file = \"a.toml\"\nmetrics_open = true\n\
                max_query_wait_us = 500\n[[workers]]\nworker_id = \"w\"\nmodel = \"m\"\nendpoint = \"tcp://h:1\"\n";
    let cluster = "peer_listen = \"127.0.0.1:9591\"\ncluster_peers = \"a:1,dns:b:2\"\ncluster_size = 3\n\
                   data_dir = \"d\"\nlog_store = \"sled\"\ndurability = \"async\"\nheartbeat_ms = 50\n";
    [access.as_str(), node, cluster].map(|text| text.as_bytes().to_vec()).to_vec()
}

/// Snapshots of small indexes, of a hybrid model too.
pub(crate) fn snapshots() -> Vec<Vec<u8>> {
    use kvindex_core::{
        Batch, BatchSeq, BlockHasher, Command, DpRank, EngineProfile, Generation, Index, StreamEvents,
        StreamId, WorkerId, WorkerSpec,
    };
    use kvindex_server::ingest::decode::decode;
    let of_case = |case: &str| {
        let recording = Recording::open(&Path::new(CASES).join(case)).unwrap();
        let mut index = Index::default();
        let worker = WorkerId::new("w").unwrap();
        index.apply(&Command::Register(Box::new(WorkerSpec::new(worker.clone(), "m"))));
        for record in recording.records.iter().filter(|record| record.engine == 0).take(8) {
            let changes =
                decode(&record.payload).unwrap().seal(&EngineProfile::default(), &mut BlockHasher::new());
            let events = StreamEvents {
                stream: StreamId { worker: worker.clone(), dp_rank: DpRank(0) },
                generation: Generation(1),
                at_ms: 1,
                batches: vec![Batch { seq: BatchSeq(record.seq), changes }].into(),
                payload_digest: None,
                registration: index.reader().registration(&worker).unwrap_or_default(),
            };
            index.apply(&Command::Events(events));
        }
        index.snapshot()
    };
    ["basic", "hybrid-swa", "sglang-v0.5.23"].map(of_case).to_vec()
}
