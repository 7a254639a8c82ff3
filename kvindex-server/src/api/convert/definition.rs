//! Register calls.

use kvindex_core::PodRef;
use kvindex_proto::v1;

use crate::hash_profile::RawHashProfile;
use crate::kv_groups::RawGroup;
use crate::workers::{RawStream, RawWorker};

/// A register call as a definition still to be checked.
pub(crate) fn raw_worker(request: v1::RegisterRequest) -> RawWorker {
    let stream = |stream: v1::StreamSource| RawStream {
        dp_rank: stream.dp_rank,
        endpoint: stream.endpoint,
        replay_endpoint: stream.replay_endpoint,
        topic: stream.topic,
    };
    let group = |group: v1::KvCacheGroup| RawGroup {
        group_idx: group.group_idx,
        kind: group.kind,
        block_size: group.block_size,
        sliding_window: group.sliding_window,
    };
    RawWorker {
        worker_id: request.worker_id,
        model: request.model,
        tenant: request.tenant,
        engine: request.engine,
        engine_version: request.engine_version,
        address: request.address,
        pod: request.pod.map(|pod| PodRef { namespace: pod.namespace, name: pod.name, uid: pod.uid }),
        service: request.service,
        role: request.role,
        pd_group: request.pd_group,
        labels: request.labels,
        copies: request.copies,
        gap_policy: request.gap_policy,
        streams: request.streams.into_iter().map(stream).collect(),
        endpoint: request.endpoint,
        replay_endpoint: request.replay_endpoint,
        topic: request.topic,
        data_parallel_size: request.data_parallel_size,
        groups: request.groups.into_iter().map(group).collect(),
        cleared: request.cleared,
        hidden_identity: request.hidden_identity,
        offload_chunk: request.offload_chunk,
        hash_profile: request.hash_profile.map(hash_profile),
    }
}

fn hash_profile(profile: v1::HashProfile) -> RawHashProfile {
    let v1::HashProfile { algorithm, hash_seed, none_hash } = profile;
    RawHashProfile { algorithm, hash_seed, none_hash }
}
