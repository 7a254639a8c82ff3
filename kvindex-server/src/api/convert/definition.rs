//! Register calls.

use kvindex_core::PodRef;
use kvindex_proto::v1;

use crate::workers::{RawStream, RawWorker};

/// A register call as a definition still to be checked.
pub(crate) fn raw_worker(request: v1::RegisterRequest) -> RawWorker {
    let stream = |stream: v1::StreamSource| RawStream {
        dp_rank: stream.dp_rank,
        endpoint: stream.endpoint,
        replay_endpoint: stream.replay_endpoint,
        topic: stream.topic,
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
    }
}
