//! What can be wrong with a payload: each error names the field and, where there is one, the limit.

/// Why a payload, or one event in it, cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The payload is longer than this service reads.
    #[error("payload has {len} bytes, the limit is {limit}")]
    PayloadTooLarge {
        /// Its length.
        len: usize,
        /// The limit.
        limit: usize,
    },
    /// The payload ends inside a value.
    #[error("{field}: payload ends in the middle of it")]
    Truncated {
        /// Which field.
        field: &'static str,
    },
    /// A length on the wire is longer than the rest of the payload could hold.
    #[error("{field}: claims {claimed} elements with {remaining} bytes left")]
    LengthBeyondPayload {
        /// Which field.
        field: &'static str,
        /// The length on the wire.
        claimed: u64,
        /// Bytes left in the payload.
        remaining: usize,
    },
    /// One event names more blocks than an event may.
    #[error("{field}: {count} blocks in one event, the limit is {limit}")]
    TooManyBlocks {
        /// Which field.
        field: &'static str,
        /// How many.
        count: usize,
        /// The limit.
        limit: usize,
    },
    /// A value has another kind than the field takes.
    #[error("{field}: expected {expected}, found {found}")]
    WrongKind {
        /// Which field.
        field: &'static str,
        /// What the field takes.
        expected: &'static str,
        /// What is there.
        found: &'static str,
    },
    /// A number is outside the field's range.
    #[error("{field}: {value} is out of range, the limit is {limit}")]
    OutOfRange {
        /// Which field.
        field: &'static str,
        /// The number.
        value: i128,
        /// The largest allowed.
        limit: u64,
    },
    /// A text is longer than the field's may be.
    #[error("{field}: has {len} bytes, the limit is {limit}")]
    TooLong {
        /// Which field.
        field: &'static str,
        /// Its length.
        len: usize,
        /// The limit.
        limit: usize,
    },
    /// An array has too few elements.
    #[error("{field}: has {len} elements, at least {least} are needed")]
    TooFew {
        /// Which field.
        field: &'static str,
        /// How many there are.
        len: usize,
        /// How many are needed.
        least: usize,
    },
    /// A text is not UTF-8.
    #[error("{field}: is not UTF-8")]
    NotUtf8 {
        /// Which field.
        field: &'static str,
    },
    /// A block hash is neither an integer nor a byte string of a width that engines emit.
    #[error("{field}: a block hash of {width} bytes; known are integers and 8 to 64 bytes")]
    HashWidth {
        /// Which field.
        field: &'static str,
        /// Its width in bytes; 0 for a value that is no hash at all.
        width: usize,
    },
    /// Bytes follow the batch.
    #[error("payload: {len} bytes after the batch")]
    TrailingBytes {
        /// How many.
        len: usize,
    },
}

/// Why one event of a batch was left out while the others were kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SkipReason {
    /// A block hash of unknown width.
    HashWidth,
    /// A block size over the limit.
    BlockSize,
    /// A field of a wrong kind or range.
    Malformed,
}

impl SkipReason {
    /// The reason's name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::HashWidth => "hash_width",
            Self::BlockSize => "block_size",
            Self::Malformed => "malformed_event",
        }
    }
}

impl DecodeError {
    /// Whether only the event is lost that it occurred in, because the bytes after it can still be found;
    /// `None` when the payload as a whole cannot be trusted.
    #[must_use]
    pub fn skip_reason(&self) -> Option<SkipReason> {
        match self {
            Self::HashWidth { .. } => Some(SkipReason::HashWidth),
            Self::OutOfRange { field: "block_size", .. } => Some(SkipReason::BlockSize),
            Self::WrongKind { .. }
            | Self::OutOfRange { .. }
            | Self::NotUtf8 { .. }
            | Self::TooLong { .. }
            | Self::TooFew { .. } => Some(SkipReason::Malformed),
            Self::PayloadTooLarge { .. }
            | Self::Truncated { .. }
            | Self::LengthBeyondPayload { .. }
            | Self::TooManyBlocks { .. }
            | Self::TrailingBytes { .. } => None,
        }
    }

    /// Every name that [`DecodeError::name`] returns.
    pub const NAMES: [&'static str; 11] = [
        "payload_too_large",
        "truncated",
        "length_beyond_payload",
        "too_many_blocks",
        "wrong_kind",
        "out_of_range",
        "too_few_elements",
        "not_utf8",
        "too_long",
        "hash_width",
        "trailing_bytes",
    ];

    /// The error's name in metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::PayloadTooLarge { .. } => "payload_too_large",
            Self::Truncated { .. } => "truncated",
            Self::LengthBeyondPayload { .. } => "length_beyond_payload",
            Self::TooManyBlocks { .. } => "too_many_blocks",
            Self::WrongKind { .. } => "wrong_kind",
            Self::OutOfRange { .. } => "out_of_range",
            Self::TooFew { .. } => "too_few_elements",
            Self::NotUtf8 { .. } => "not_utf8",
            Self::TooLong { .. } => "too_long",
            Self::HashWidth { .. } => "hash_width",
            Self::TrailingBytes { .. } => "trailing_bytes",
        }
    }
}
