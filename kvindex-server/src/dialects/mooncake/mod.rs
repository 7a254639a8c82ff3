//! Mooncake's indexer: the JSON of its documents, or the JSON of its conductor, and the conductor's MessagePack.
//! Sources and what differs knowingly: docs/dialects.md.

pub(super) mod conductor;
pub(super) mod listing;
pub(super) mod rank;
pub(super) mod rfc;

use kvindex_proto::v1;

use super::asker::{Asker, Found};
use super::fields::Fields;
use super::fold::{Instances, fold, instance, is_of_other};
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
#[derive(Debug)]
pub(super) struct Question {
    pub(super) prompt: v1::Prompt,
    /// The one instance that is asked about.
    instance: Option<String>,
    is_empty: bool,
}

/// What a question found.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) found: Found,
    pub(super) instances: Instances,
    /// The one instance that was asked about.
    pub(super) only: Option<String>,
}

impl Question {
    /// By token ids, or by rolling sequence hashes, which are ours.
    fn read(fields: &mut Fields, by_hash: bool, limit: usize) -> Result<Self, Refusal> {
        let text = |name| Ok::<_, Refusal>(fields.text(name)?.map(str::to_owned));
        let mut prompt = v1::Prompt {
            model: fields.required_text("model")?.to_owned(),
            tenant: text("tenant_id")?.unwrap_or_default(),
            lora_name: text("lora_name")?,
            cache_salt: text("cache_salt")?,
            block_size: fields.required_number("block_size", &(1..=MAX_BLOCK_SIZE.into()))?,
            ..v1::Prompt::default()
        };
        let instance = text("instance_id")?.filter(|instance| !instance.is_empty());
        let is_empty = if by_hash {
            let hashes = match fields.hashes("seq_hashes", limit, false)? {
                None => fields.hashes("block_hash", limit, false)?,
                hashes => hashes,
            };
            prompt.sequence_hashes =
                hashes.ok_or_else(|| Refusal::of("seq_hashes", "missing", "is required"))?;
            prompt.sequence_hashes.is_empty()
        } else {
            fields.move_tokens("token_ids", &mut prompt, limit)?
        };
        Ok(Self { prompt, instance, is_empty })
    }

    /// Its answer, by instance.
    pub(super) async fn ask(self, asker: &Asker) -> Result<Held, Refusal> {
        let (block_size, only) = (self.prompt.block_size, self.instance);
        let mut found = asker.ask(self.prompt, self.is_empty).await?;
        // Workers of another block size are listed without a match, because every worker of the model was asked.
        found.workers.retain(|worker| {
            !is_of_other(worker, block_size) && only.as_ref().is_none_or(|only| only == instance(worker))
        });
        let instances = fold(&found.workers);
        Ok(Held { found, instances, only })
    }
}
