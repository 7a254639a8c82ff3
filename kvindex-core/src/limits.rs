//! Every maximum in one place, each with its reason. Edges check them; the index asserts them.

/// Longest name (worker, model, tenant, LoRA, label) in bytes: Kubernetes names end at 253.
pub const MAX_NAME_BYTES: usize = 256;

/// Longest cache salt in bytes. Salts are hashed and dropped, so that only what no one would call a salt is refused.
pub const MAX_SALT_BYTES: usize = 4096;

/// Largest block size in tokens. Engines use 1 to 256; this leaves room without letting one block eat a
/// whole prompt.
pub const MAX_BLOCK_SIZE: u32 = 4096;

/// Most blocks in one stored run. A 10-million-token prefill in one-token pages still fits; anything longer
/// is a broken frame.
pub const MAX_BLOCKS_PER_EVENT: usize = 1 << 20;

/// Most tokens in one query: ten times the longest context windows in use.
pub const MAX_PROMPT_TOKENS: usize = 4 << 20;

/// Most data-parallel ranks of one worker.
pub const MAX_DP_RANKS: u32 = 1024;

/// Most blocks in one run of the index. Bounds the work of editing a run's holder segments and the reach of
/// one binary search; a 100,000-token prompt in 16-token blocks still takes two runs.
pub const MAX_RUN_BLOCKS: usize = 4096;

/// Most (tier, group) pairs of one stream. Tier names come off the wire, so something must bound them; the most
/// elaborate hybrid models have a dozen groups on four tiers.
pub const MAX_OWNERS_PER_STREAM: usize = 256;

/// Most namespaces in one index: adapter names are made up by whoever announces blocks, and a namespace stays.
pub const MAX_NAMESPACES: usize = 1 << 18;

/// Most namespaces of one tenant, so that none can use up what all share. More adapters than anyone serves from one
/// fleet; as the index's limits it must be the same on every replica.
pub const MAX_NAMESPACES_PER_TENANT: usize = MAX_NAMESPACES / 16;

/// What an [`Index`](crate::Index) may grow to. The same limits must be set on every replica, because they
/// decide outcomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexLimits {
    /// Most (block, owner) entries; stores beyond it are refused and counted, and the stream is marked.
    /// The default holds a thousand engines of 20,000 blocks with room to spare.
    pub max_entries: usize,
    /// Most blocks of one owner that may wait for an unknown parent; beyond it a block is still known by its
    /// engine hash but will not be joined.
    pub max_orphans_per_owner: usize,
    /// Removals that the journal remembers for `explain`, over all workers: 32 bytes each.
    pub journal_removals: usize,
    /// Gaps, clears and generations that the journal remembers for each stream.
    pub journal_incidents_per_stream: usize,
}

impl Default for IndexLimits {
    fn default() -> Self {
        Self {
            max_entries: 64_000_000,
            max_orphans_per_owner: 65_536,
            journal_removals: 65_536,
            journal_incidents_per_stream: 64,
        }
    }
}
