//! What calls of some dialects do not say, and what stands in for it: the model, from a header or the configuration.

use kvindex_proto::v1;

use super::fold::INSTANCE;
use crate::config::DialectsConfig;

/// Header, or gRPC metadata, that names the model of a call whose dialect has no field for it.
pub(super) const MODEL: &str = "x-kvindex-model";

/// The model of a call that may name one in a header.
pub(super) fn model(header: Option<&str>, config: &DialectsConfig) -> String {
    header.filter(|name| !name.is_empty()).unwrap_or(&config.model).to_owned()
}

/// A worker's instance: where several workers are its ranks, they say so by a label.
pub(super) fn instance(worker: &v1::WorkerMatch) -> &str {
    worker.labels.get(INSTANCE).unwrap_or(&worker.worker_id)
}
