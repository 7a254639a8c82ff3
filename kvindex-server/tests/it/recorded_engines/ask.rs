//! A recorded query put to the index, each way an engine can be asked, and what the engine itself would say.

use kvindex_core::{
    Doubts, EngineBlockHash, Filter, Index, Matches, Prompt, PromptItem, Query, Scratch, StreamId, Tokens,
    find_matches,
};
use kvindex_recording::{Answer, EngineHeader, EngineKind, Header, Version};

use super::replay::MODEL;

/// From this release on, SGLang's events name the adapter; before, naming one would match nothing.
const SGLANG_NAMES_LORA: Version = Version { major: 0, minor: 5, patch: 22 };

/// How a prompt is put to the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// By token ids, with what else is part of the prompt's identity.
    Tokens,
    /// By the engine's own block hashes.
    Hashes,
}

/// Which copies count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    /// Those in device memory: what the engine's `get_computed_blocks` (SGLang: `match_prefix`) answers.
    Device,
    /// Those on the host tier alone.
    Host,
    /// Those on either tier: what the engine need not compute.
    Both,
}

impl View {
    /// Views of a case: only engines with a CPU tier have more than one.
    pub(super) fn of(answer: &Answer) -> &'static [Self] {
        if answer.present_cpu.is_some() { &[Self::Device, Self::Host, Self::Both] } else { &[Self::Device] }
    }

    /// The query's tier filter. Engines with one tier are asked without one, as a router would.
    fn tier(self, answer: &Answer) -> Option<&'static str> {
        match self {
            Self::Device => answer.present_cpu.is_some().then_some("device"),
            Self::Host => Some("host"),
            Self::Both => None,
        }
    }

    /// Tokens that the engine itself could serve. Of the CPU tier the truth has only which blocks lie there (in
    /// chunked cases: which are usable), so what it can serve is the run of these that starts with the prompt.
    pub(super) fn expected(self, answer: &Answer, engine: &EngineHeader) -> usize {
        let unit = engine.hash_block_size() as usize;
        let on_host = answer.present_cpu.as_deref().unwrap_or("").bytes().map(|bit| bit == b'1');
        match self {
            Self::Device => answer.expected_tokens() as usize,
            Self::Host => answer.host_prefix().unwrap() as usize * unit,
            Self::Both => {
                let on_device = answer.present[0].bytes().map(|bit| bit == b'1');
                unit * on_device.zip(on_host).take_while(|(device, host)| *device || *host).count()
            }
        }
    }
}

/// What the index says of one engine.
#[derive(Debug, Clone, Copy)]
pub(super) struct Said {
    pub(super) tokens: usize,
    pub(super) doubts: Doubts,
}

/// One recorded query about one engine.
pub(super) struct Asked<'a> {
    pub(super) header: &'a Header,
    pub(super) engine: usize,
    pub(super) query: &'a kvindex_recording::Query,
}

impl Asked<'_> {
    /// What `index` says of this engine; `None` where the recording has no hashes to ask by.
    pub(super) fn ask(
        &self,
        (way, view): (Way, View),
        index: &Index,
        stream: &StreamId,
        scratch: &mut Scratch,
    ) -> Option<Said> {
        let found = self.matches((way, view), index, stream, scratch)?;
        let said = found.workers.iter().find(|w| w.dp_rank == stream.dp_rank);
        let said = said.map(|w| Said { tokens: w.matched_tokens, doubts: w.doubts });
        Some(said.unwrap_or(Said { tokens: 0, doubts: Doubts::default() }))
    }

    /// The whole answer about this engine's worker.
    pub(super) fn matches(
        &self,
        (way, view): (Way, View),
        index: &Index,
        stream: &StreamId,
        scratch: &mut Scratch,
    ) -> Option<Matches> {
        let item = |m: &kvindex_recording::MmItem| (m.identifier.clone(), m.offset, m.length);
        let items: Vec<_> = self.query.mm.iter().map(item).collect();
        let items: Vec<PromptItem<'_>> = items
            .iter()
            .map(|(identifier, offset, length)| PromptItem {
                identifier,
                offset: u64::from(*offset),
                length: u64::from(*length),
            })
            .collect();
        let size = self.header.engines[self.engine].hash_block_size();
        let hashes = self.query.block_hashes_for(size).unwrap_or(&[]);
        let hashes: Vec<EngineBlockHash> = hashes.iter().map(|hash| EngineBlockHash(*hash)).collect();
        let (prompt, block_size) = match way {
            Way::Tokens => {
                let (tokens, salt) = (Tokens::Ids(&self.query.tokens), self.query.salt.as_deref());
                (Prompt::Tokens { tokens, salt, items: &items }, None)
            }
            Way::Hashes => {
                self.query.block_hashes_for(size)?;
                (Prompt::EngineHashes(&hashes), Some(size))
            }
        };
        let worker = [stream.worker.as_str()];
        let tier = view.tier(&self.query.engines[self.engine]);
        let filter = Filter { candidates: &worker, tier, ..Filter::default() };
        let lora = self.lora().filter(|_| way == Way::Tokens);
        let query = Query { lora, prompt, block_size, filter, ..Query::tokens(MODEL, &[]) };
        Some(find_matches(&index.reader(), &query, scratch).unwrap())
    }

    /// The adapter's name, as far as this engine's events give it.
    fn lora(&self) -> Option<&str> {
        match self.header.engine {
            EngineKind::Vllm => self.query.lora.as_ref().map(|lora| lora.name.as_str()),
            EngineKind::Sglang => {
                let key =
                    self.query.extra_key.as_ref().filter(|_| self.header.version >= SGLANG_NAMES_LORA)?;
                self.header.engines[self.engine].lora_names.get(key).map(String::as_str)
            }
        }
    }
}
