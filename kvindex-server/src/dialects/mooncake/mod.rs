//! Mooncake's indexer: the JSON of its documents, or the JSON of its conductor, and the conductor's MessagePack.
//! Sources and what differs knowingly: docs/dialects.md.

pub(super) mod conductor;
pub(super) mod listing;
pub(super) mod rank;
pub(super) mod rfc;

use kvindex_proto::v1;

use super::asker::{Asker, Found};
use super::fields::Fields;
use super::fold::{Instances, fold};
use super::reader::Tokens;
use super::refusal::Refusal;
use super::{Call, Route};
use kvindex_core::limits::MAX_BLOCK_SIZE;

/// Its calls, in whichever form.
pub(super) const ROUTES: [Route; 6] = [
    ("POST", "/query", Call::question("mooncake_query")),
    ("POST", "/query_by_hash", Call::question("mooncake_query_by_hash")),
    ("POST", "/register", Call::change("mooncake_register")),
    ("POST", "/unregister", Call::change("mooncake_unregister")),
    ("GET", "/services", Call::question("mooncake_services")),
    ("GET", "/global_view", Call::question("mooncake_global_view")),
];

/// A question as both JSON forms ask it.
pub(super) struct Question {
    prompt: v1::Prompt,
    /// The one instance that is asked about.
    pub(super) instance: Option<String>,
    is_empty: bool,
}

impl Question {
    /// Everything but the prompt itself.
    fn of(fields: &Fields) -> Result<Self, Refusal> {
        let text = |name| Ok::<_, Refusal>(fields.text(name)?.map(str::to_owned));
        let prompt = v1::Prompt {
            model: fields.required_text("model")?.to_owned(),
            tenant: text("tenant_id")?.unwrap_or_default(),
            lora_name: text("lora_name")?,
            cache_salt: text("cache_salt")?,
            block_size: fields.required_number("block_size", &(1..=MAX_BLOCK_SIZE.into()))?,
            ..v1::Prompt::default()
        };
        let instance = text("instance_id")?.filter(|instance| !instance.is_empty());
        Ok(Self { prompt, instance, is_empty: false })
    }

    /// By token ids.
    pub(super) fn by_tokens(fields: &mut Fields, limit: usize) -> Result<Self, Refusal> {
        let mut question = Self::of(fields)?;
        let tokens = fields.tokens("token_ids", limit)?;
        question.is_empty = tokens.is_empty();
        match tokens {
            Tokens::Ids(ids) => question.prompt.token_ids = ids,
            Tokens::Le(bytes) => question.prompt.token_ids_le = bytes,
        }
        Ok(question)
    }

    /// By rolling sequence hashes, which are ours.
    pub(super) fn by_hashes(fields: &mut Fields, limit: usize) -> Result<Self, Refusal> {
        let mut question = Self::of(fields)?;
        let hashes = fields.hashes("seq_hashes", limit, false)?;
        let hashes = match hashes {
            None => fields.hashes("block_hash", limit, false)?,
            hashes => hashes,
        };
        question.prompt.sequence_hashes =
            hashes.ok_or_else(|| Refusal::of("seq_hashes", "missing", "is required"))?;
        question.is_empty = question.prompt.sequence_hashes.is_empty();
        Ok(question)
    }

    /// Its answer, by instance.
    pub(super) async fn ask(self, asker: &Asker<'_>) -> Result<(Found, Instances, Option<String>), Refusal> {
        let block_size = self.prompt.block_size;
        let found = asker.ask(self.prompt, self.is_empty).await?;
        let mut instances = fold(&found.workers, Some(block_size));
        if let Some(only) = &self.instance {
            instances.retain(|name, _| name == only);
        }
        Ok((found, instances, self.instance))
    }
}
