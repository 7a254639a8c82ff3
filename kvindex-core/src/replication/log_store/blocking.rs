//! Work that blocks, away from the runtime's own threads.

use super::error::LogError;

/// Runs `work` where it may block. A panic of the storage engine becomes an error: the node stops in order.
pub(super) async fn blocking<T: Send + 'static>(
    place: String,
    doing: &'static str,
    work: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, LogError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(panic) => Err(LogError::Engine { doing, place, why: panic.to_string() }),
    }
}
