//! What messages hold many of, and how much of that one may hold. Known before a message is decoded, because an empty
//! part is two bytes on the wire and some hundred in memory.

use kvindex_core::limits::{MAX_BLOCKS_PER_EVENT, MAX_DP_RANKS};
use kvindex_proto::v1;

use super::convert::MAX_ITEMS;
use super::error::{ApiError, Kind};
use crate::config::ApiLimits;

/// Largest message of a call that carries neither prompts nor events: a worker's definition with a stream for each of
/// very many ranks.
const SMALL_BYTES: usize = 1 << 20;

/// What a text takes beside its bytes.
const TEXT_BYTES: usize = size_of::<String>();

/// Both texts of a map's entry, and their share of its tree.
const ENTRY_BYTES: usize = 3 * TEXT_BYTES;

/// What the largest part takes: JSON does not tell which part begins without being read.
const LARGEST_BYTES: usize = {
    let (request, event) = (size_of::<v1::MatchRequest>(), size_of::<v1::PublishEvent>());
    if request > event { request } else { event }
};

/// Which limit counts a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Limit {
    /// The field is there once, and may have parts itself.
    Once,
    /// Numbers of one byte or more each, which all take as much when decoded.
    Numbers,
    Batch,
    Candidates,
    Fixed(usize),
    /// What all parts take together is what bounds it.
    Together,
}

/// A field of which a message holds many, or in which there are such fields.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) number: u32,
    name: &'static str,
    limit: Limit,
    /// What one takes in memory.
    bytes: usize,
    pub(super) inner: &'static Shape,
}

impl Field {
    /// Whether it is packed numbers.
    pub(super) fn is_numbers(&self) -> bool {
        self.limit == Limit::Numbers
    }
}

/// The fields of a message that [`Field`] is about.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) fields: &'static [Field],
}

/// A message, or a text, without any.
pub(super) static PLAIN: Shape = Shape { fields: &[] };

static PROMPT: Shape = Shape {
    fields: &[numbers(5, "token_ids"), many::<v1::PromptItem>(10, "items", Limit::Fixed(MAX_ITEMS), &PLAIN)],
};

static MATCH: Shape = Shape {
    fields: &[
        once(1, "prompt", &PROMPT),
        texts(2, "candidates", Limit::Candidates),
        entries(5, "labels", Limit::Candidates),
    ],
};

static BATCH: Shape = Shape { fields: &[many::<v1::MatchRequest>(1, "requests", Limit::Batch, &MATCH)] };

static STREAMED: Shape = Shape { fields: &[once(2, "request", &MATCH)] };

/// Its fields have the same numbers as a match's, as far as they are told here.
static EXPLAIN: Shape = Shape { fields: MATCH.fields };

/// llm-d's: a prompt's text and pods.
static POD_SCORES: Shape = Shape { fields: &[texts(3, "pod_identifiers", Limit::Candidates)] };

static WATCH: Shape = Shape { fields: &[texts(1, "worker_ids", Limit::Candidates)] };

static REGISTER: Shape = Shape {
    fields: &[
        entries(11, "labels", Limit::Together),
        many::<v1::StreamSource>(14, "streams", Limit::Fixed(MAX_DP_RANKS as usize), &PLAIN),
        many::<v1::KvCacheGroup>(30, "groups", Limit::Together, &PLAIN),
    ],
};

static EXTRA_KEYS: Shape = Shape { fields: &[many::<v1::ExtraKey>(1, "keys", Limit::Together, &PLAIN)] };

static EVENT: Shape = Shape {
    fields: &[
        numbers(4, "token_ids"),
        many::<v1::BlockExtraKeys>(10, "extra_keys", Limit::Fixed(MAX_BLOCKS_PER_EVENT), &EXTRA_KEYS),
    ],
};

static PUBLISH: Shape = Shape { fields: &[many::<v1::PublishEvent>(6, "events", Limit::Together, &EVENT)] };

const fn once(number: u32, name: &'static str, inner: &'static Shape) -> Field {
    Field { number, name, limit: Limit::Once, bytes: 0, inner }
}

const fn many<T>(number: u32, name: &'static str, limit: Limit, inner: &'static Shape) -> Field {
    Field { number, name, limit, bytes: size_of::<T>(), inner }
}

const fn numbers(number: u32, name: &'static str) -> Field {
    Field { number, name, limit: Limit::Numbers, bytes: size_of::<u32>(), inner: &PLAIN }
}

const fn texts(number: u32, name: &'static str, limit: Limit) -> Field {
    Field { number, name, limit, bytes: TEXT_BYTES, inner: &PLAIN }
}

const fn entries(number: u32, name: &'static str, limit: Limit) -> Field {
    Field { number, name, limit, bytes: ENTRY_BYTES, inner: &PLAIN }
}

/// What the messages of one call hold, and how much of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) shape: &'static Shape,
    /// Bytes of one message.
    pub(super) message: usize,
    /// How deep a field may lie to be refused by its count: a batch's or a stream's question is answered with an error
    /// of its own, and does not fail the others.
    pub(super) counted: usize,
    batch: usize,
    candidates: usize,
    together: usize,
}

impl Bounds {
    /// By the call's name, see `Method`.
    pub(super) fn of(call: &str, limits: &ApiLimits) -> Self {
        let small = limits.body_bytes.min(SMALL_BYTES);
        let (shape, message) = match call {
            "match" => (&MATCH, limits.body_bytes),
            "match_batch" => (&BATCH, limits.body_bytes),
            "match_stream" => (&STREAMED, limits.body_bytes),
            "explain" => (&EXPLAIN, limits.body_bytes),
            "publish" => (&PUBLISH, limits.body_bytes),
            "watch" => (&WATCH, limits.body_bytes),
            "llmd_get_pod_scores" => (&POD_SCORES, limits.body_bytes),
            "register" => (&REGISTER, small),
            _ => (&PLAIN, small),
        };
        let counted = match call {
            "match_stream" => 0,
            "match_batch" => 1,
            _ => usize::MAX,
        };
        let (batch, candidates, together) = (limits.batch, limits.candidates, together(limits));
        Self { shape, message, counted, batch, candidates, together }
    }

    /// Whether a message may have so many of a field.
    pub(super) fn count(&self, field: &Field, found: usize) -> Result<(), ApiError> {
        let (most, key) = match field.limit {
            Limit::Once | Limit::Numbers | Limit::Together => return Ok(()),
            Limit::Batch => (self.batch, " (max_batch)"),
            Limit::Candidates => (self.candidates, " (max_candidates)"),
            Limit::Fixed(most) => (most, ""),
        };
        if found <= most {
            return Ok(());
        }
        let message = format!("more than {most} of them, the limit is {most}{key}");
        Err(ApiError::of_field(Kind::TooLarge, field.name, message))
    }

    /// Adds one of a field to what all parts of a message take.
    pub(super) fn add(&self, field: &Field, taken: &mut usize) -> Result<(), ApiError> {
        self.grow(field.bytes, taken)
    }

    /// Adds what packed numbers take beyond these bytes of them.
    pub(super) fn add_numbers(&self, bytes: &[u8], taken: &mut usize) -> Result<(), ApiError> {
        // The last byte of each has no high bit.
        let numbers = count(bytes, |byte| byte < 0x80).saturating_mul(size_of::<u32>());
        self.grow(numbers.saturating_sub(bytes.len()), taken)
    }

    fn grow(&self, bytes: usize, taken: &mut usize) -> Result<(), ApiError> {
        *taken = taken.saturating_add(bytes);
        if *taken <= self.together { Ok(()) } else { Err(too_much(self.together)) }
    }

    /// Whether a message may be so long.
    pub(super) fn length(&self, bytes: usize) -> Result<(), ApiError> {
        if bytes <= self.message { Ok(()) } else { Err(too_long(bytes, self.message)) }
    }
}

/// What all parts of one message may take: as much as the longest message, or what a small one needs anyway.
fn together(limits: &ApiLimits) -> usize {
    limits.body_bytes.max(SMALL_BYTES)
}

fn too_much(limit: usize) -> ApiError {
    let message = format!(
        "the message's parts take more than {limit} bytes when decoded, which is the limit (max_body_bytes); send \
         fewer in one call"
    );
    ApiError::new(Kind::TooLarge, message)
}

fn too_long(bytes: usize, limit: usize) -> ApiError {
    let message = format!("the message has {bytes} bytes, the limit is {limit} ({})", reason(limit));
    ApiError::new(Kind::TooLarge, message)
}

/// Why a message or a body may have so many bytes.
pub(super) fn reason(limit: usize) -> &'static str {
    if limit == SMALL_BYTES { "that of calls without prompts or events" } else { "max_body_bytes" }
}

/// Largest JSON body of a call that carries neither prompts nor events.
pub(super) fn small_body(limits: &ApiLimits) -> usize {
    limits.body_bytes.min(SMALL_BYTES)
}

/// Whether a JSON body can be read without taking much more memory than it is long. What begins in it is counted and
/// taken for the largest part there is: each object and list begins with a bracket, each text has two quotes. A
/// bracket within a text counts too, which no usual message has many of.
pub(crate) fn check_json(body: &[u8], limits: &ApiLimits) -> Result<(), ApiError> {
    let limit = together(limits);
    // A body that is too short for it need not be counted.
    if body.len().saturating_mul(LARGEST_BYTES) <= limit {
        return Ok(());
    }
    let parts = count(body, |byte| byte == b'{' || byte == b'[').saturating_mul(LARGEST_BYTES);
    let texts = (count(body, |byte| byte == b'"') / 2).saturating_mul(TEXT_BYTES);
    // Numbers stand between commas, and take at most eight bytes; what they took as text they do not add.
    let numbers =
        count(body, |byte| byte == b',').saturating_mul(size_of::<u64>()).saturating_sub(body.len());
    if parts.saturating_add(texts).saturating_add(numbers) <= limit { Ok(()) } else { Err(too_much(limit)) }
}

/// In stretches that one byte can count, which the compiler makes many at a time of.
fn count(body: &[u8], wanted: impl Fn(u8) -> bool) -> usize {
    let stretch = |bytes: &[u8]| bytes.iter().map(|byte| u8::from(wanted(*byte))).sum::<u8>();
    body.chunks(255).map(|bytes| usize::from(stretch(bytes))).sum()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::Config;

    #[test]
    fn json_of_very_many_parts_is_refused_and_of_many_numbers_is_not() {
        let limits = Config::defaults().limits;
        for part in ["{},", "[],", "\"\","] {
            let list = |count: usize| format!("{{\"requests\":[{}", part.repeat(count));
            check_json(list(100).as_bytes(), &limits).unwrap();
            let refused = check_json(list(4 << 20).as_bytes(), &limits).unwrap_err();
            assert!(refused.to_message().message.contains("when decoded"), "{part}");
        }
        check_json("1234,".repeat(4 << 20).as_bytes(), &limits).unwrap();
        check_json("0,".repeat(32 << 20).as_bytes(), &limits).unwrap_err();
    }

    #[test]
    fn only_calls_with_prompts_events_or_many_ids_may_be_long() {
        let limits = Config::defaults().limits;
        for call in ["match", "match_batch", "match_stream", "explain", "publish", "watch"] {
            assert_eq!(Bounds::of(call, &limits).message, limits.body_bytes, "{call}");
        }
        for call in ["register", "unregister", "list_workers", "hand_over", "other"] {
            assert_eq!(Bounds::of(call, &limits).message, 1 << 20, "{call}");
        }
    }
}
