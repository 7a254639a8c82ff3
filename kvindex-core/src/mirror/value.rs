//! The Python values that vLLM hashes, as far as block hashes need them: what `pickle` and `cbor` write.

/// A value of vLLM's hash input.
#[derive(Debug, Clone)]
pub(super) enum Value<'a> {
    None,
    Int(i128),
    Text(&'a str, Object),
    Bytes(&'a [u8]),
    Tuple(Vec<Value<'a>>),
    /// A tuple of token ids, kept as it came: a value for each would cost more than the hash.
    Tokens(&'a [u64]),
}

/// Which Python object a text is. Pickle writes an object that it has written before as a back reference, and
/// an equal object as a copy, so identity is part of the hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Object {
    /// A literal of the engine's source: the same object wherever it stands.
    Literal,
    /// One object for all equal texts of this kind.
    Shared,
    /// An object of its own.
    Own,
}

impl<'a> Value<'a> {
    pub(super) fn literal(text: &'a str) -> Self {
        Self::Text(text, Object::Literal)
    }

    pub(super) fn own(text: &'a str) -> Self {
        Self::Text(text, Object::Own)
    }
}
