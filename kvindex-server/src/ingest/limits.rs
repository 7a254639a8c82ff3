//! Maxima of the way in from engines, each with its reason. What the index itself bounds is in
//! `kvindex_core::limits`.

/// Largest payload of one event batch in bytes. A 10-million-token prefill in one-token pages needs about
/// 140 MB on the wire and is split over many steps by every engine; 64 MiB is far above any single step.
pub const MAX_PAYLOAD_BYTES: usize = 64 << 20;

/// Largest ZeroMQ frame taken from a socket: above the decoder's limit, so that an oversized payload is
/// counted as such, yet low enough that one broken peer cannot exhaust memory.
pub const MAX_FRAME_BYTES: i64 = 4 * MAX_PAYLOAD_BYTES as i64;

/// Batches a stream may hold back while a replay runs, or keep until the index has them: some minutes of a busy engine at 100 steps a second.
pub const MAX_BUFFERED_BATCHES: usize = 32_768;

/// Payload bytes a stream may hold back while a replay runs, or keep until the index has them.
pub const MAX_BUFFERED_BYTES: usize = 64 << 20;

/// Digests of applied batches kept for each stream: a duplicate older than this is taken for another life,
/// which is safe but costs a replay.
pub const DIGEST_WINDOW: usize = 1024;

/// How long batches below the index's last applied one may wait for that one to come: two subscriptions of one
/// engine are apart by far less. What has not come by then is another life's.
pub const MAX_DOUBT_MS: u64 = 2_000;

/// Blocks that the batcher puts into one command before it starts the next one.
pub const MAX_BLOCKS_PER_COMMAND: usize = 16_384;

/// Messages taken from one stream before the others get their turn.
pub const MESSAGES_PER_TURN: usize = 512;

/// Longest ZeroMQ topic or endpoint text in bytes.
pub const MAX_ENDPOINT_BYTES: usize = 1024;

/// Streams that share one ZeroMQ context: libzmq allows 1023 sockets in one, and a stream has up to five (its
/// subscription, two ends of a monitor, a replay, and the one before that which is still closing).
pub const MAX_STREAMS_PER_CONTEXT: usize = 200;
