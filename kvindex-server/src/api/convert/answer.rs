//! Answers as messages.

use kvindex_core::{GroupKind, Reason, TierMatch, WorkerMatch};
use kvindex_proto::v1;

use crate::node::{Explained, FeedEvent, Found, GroupBest, HotPrefix, HotTenant, ListedWorker, TrustedMatch};
use crate::trust::Trust;
use crate::workers::WorkerDefinition;

/// An answer to a match.
pub(crate) fn match_response(found: Found, decode_us: u64) -> v1::MatchResponse {
    let timing = v1::Timing { decode_us, hash_us: found.hash_us, walk_us: found.walk_us };
    let tokens = found.prompt_tokens;
    let group = |group: GroupBest| v1::GroupMatch {
        pd_group: group.pd_group,
        prefill: group.prefill.map(|best| worker_match(best, tokens)),
        decode: group.decode.map(|best| worker_match(best, tokens)),
    };
    v1::MatchResponse {
        freshness: None,
        workers: found.workers.into_iter().map(|worker| worker_match(worker, tokens)).collect(),
        prompt_tokens: tokens as u64,
        groups: found.groups.into_iter().map(group).collect(),
        timing: Some(timing),
    }
}

/// An answer to an explain.
pub(crate) fn explain_response(explained: Explained, decode_us: u64) -> v1::ExplainResponse {
    let timing = v1::Timing { decode_us, hash_us: explained.hash_us, walk_us: explained.walk_us };
    let tokens = explained.prompt_tokens;
    let worker = |(worker, trust): (kvindex_core::WorkerExplanation, Trust)| {
        let (at_ms, seq, tier) = when(&worker.reason);
        v1::WorkerExplanation {
            prompt_blocks: worker.prompt_blocks as u64,
            broke_at: worker.broke_at.map(|block| block as u64),
            held_beyond: worker.held_beyond as u64,
            reason: word(&worker.reason).into(),
            detail: worker.reason.to_string(),
            at_ms,
            seq,
            tier,
            matched: Some(worker_match(TrustedMatch { matched: worker.matched, trust }, tokens)),
        }
    };
    v1::ExplainResponse {
        workers: explained.workers.into_iter().map(worker).collect(),
        prompt_tokens: tokens as u64,
        timing: Some(timing),
    }
}

/// What is asked for most of all these tenants together, most first.
pub(crate) fn hot_response(
    tenants: &[HotTenant],
    model: Option<&str>,
    limit: usize,
) -> v1::HotPrefixesResponse {
    let questions_per_s = tenants.iter().map(|tenant| tenant.per_s).sum();
    let all =
        tenants.iter().flat_map(|of| of.prefixes.iter().map(move |prefix| (of.tenant.as_str(), prefix)));
    let asked = all.filter(|(_, prefix)| model.is_none_or(|model| *model == *prefix.model));
    let mut hottest: Vec<(&str, &HotPrefix)> = asked.collect();
    // Stable: of equals, the order of their tenants and in these stays.
    hottest.sort_by(|(_, a), (_, b)| b.per_s.total_cmp(&a.per_s));
    // Before anything is copied: very many may be counted, and few are told.
    hottest.truncate(limit);
    let told = hottest.into_iter().map(|(tenant, prefix)| v1::HotPrefix {
        tenant: tenant.to_owned(),
        model: prefix.model.as_ref().to_owned(),
        lora_name: prefix.lora.as_deref().map(str::to_owned),
        block_size: prefix.block_size,
        blocks: prefix.blocks as u64,
        tokens: prefix.blocks as u64 * u64::from(prefix.block_size),
        sequence_hash: prefix.hash.0,
        share: prefix.share,
        per_s: prefix.per_s,
        held_by: prefix.held_by as u64,
    });
    let prefixes = told.collect();
    v1::HotPrefixesResponse { prefixes, questions_per_s }
}

fn word(reason: &Reason) -> &'static str {
    match reason {
        Reason::Complete => "complete",
        Reason::NeverStored => "never_stored",
        Reason::Removed { .. } => "removed",
        Reason::Evicted { .. } => "evicted",
        Reason::Cleared { .. } => "cleared",
        Reason::LostInGap { .. } => "lost_in_gap",
        Reason::OtherNamespace { .. } => "other_namespace",
        Reason::GenerationChanged { .. } => "generation_changed",
        Reason::GroupLacks { .. } => "group_lacks",
        Reason::NothingHeard => "nothing_heard",
        Reason::BeforeJournal { .. } => "before_journal",
    }
}

/// When a reason came about, by which batch, on which tier.
fn when(reason: &Reason) -> (Option<u64>, Option<u64>, Option<String>) {
    match reason {
        Reason::Removed { tier, at_ms, batch } => (Some(*at_ms), Some(batch.0), Some(tier.name().to_owned())),
        Reason::Cleared { at_ms, batch } => (Some(*at_ms), Some(batch.0), None),
        Reason::LostInGap { at_ms, first, .. } => (Some(*at_ms), Some(first.0), None),
        Reason::Evicted { at_ms } | Reason::GenerationChanged { at_ms } => (Some(*at_ms), None, None),
        Reason::Complete
        | Reason::NeverStored
        | Reason::OtherNamespace { .. }
        | Reason::GroupLacks { .. }
        | Reason::NothingHeard
        | Reason::BeforeJournal { .. } => (None, None, None),
    }
}

fn worker_match(found: TrustedMatch, prompt_tokens: usize) -> v1::WorkerMatch {
    let WorkerMatch { worker, dp_rank, block_size, matched_blocks, matched_tokens, tiers, doubts, .. } =
        found.matched;
    let tier = |tier: TierMatch| v1::TierMatch {
        blocks: tier.blocks as u64,
        prefix_blocks: tier.prefix_blocks as u64,
        prefix_tokens: tier.prefix_blocks as u64 * u64::from(block_size),
        tier: tier.tier.name().to_owned(),
    };
    v1::WorkerMatch {
        worker_id: worker.id.as_str().to_owned(),
        address: worker.address.clone(),
        pod: worker.pod.as_ref().map(pod),
        service: worker.service.clone(),
        role: worker.role.clone(),
        pd_group: worker.pd_group.clone(),
        model: worker.model.clone(),
        dp_rank: dp_rank.0,
        block_size,
        matched_blocks: matched_blocks as u64,
        matched_tokens: matched_tokens as u64,
        uncached_tokens: prompt_tokens.saturating_sub(matched_tokens) as u64,
        tiers: tiers.into_iter().map(tier).collect(),
        trust: Some(trust(&found.trust)),
        ambiguous: !doubts.is_empty(),
        labels: worker.labels.clone(),
        doubts: doubts.iter().map(|doubt| doubt.name().to_owned()).collect(),
    }
}

fn pod(pod: &kvindex_core::PodRef) -> v1::Pod {
    v1::Pod { namespace: pod.namespace.clone(), name: pod.name.clone(), uid: pod.uid.clone() }
}

fn trust(trust: &Trust) -> v1::Trust {
    v1::Trust {
        state: v1::TrustState::from(trust.state).into(),
        generation: trust.generation.0,
        applied_seq: trust.applied.map(|seq| seq.0),
        lag_ms: trust.lag_ms,
        reason: trust.reason.to_owned(),
    }
}

fn group(group: &kvindex_core::GroupSpec) -> v1::KvCacheGroup {
    let kind = match group.kind {
        GroupKind::Full => "full_attention",
        GroupKind::SlidingWindow => "sliding_window",
        GroupKind::Mamba => "mamba",
        GroupKind::Other => "other",
    };
    v1::KvCacheGroup {
        group_idx: u32::from(group.group.0),
        kind: kind.into(),
        block_size: group.block_size,
        sliding_window: group.sliding_window.unwrap_or(0),
    }
}

/// A known worker.
pub(crate) fn worker(listed: ListedWorker) -> v1::Worker {
    let WorkerDefinition { spec, gap_policy, hash_profile, .. } = listed.definition;
    let stream = |stream: crate::node::ListedStream| v1::WorkerStream {
        dp_rank: stream.dp_rank.0,
        endpoint: stream.source.as_ref().map(|source| source.endpoint.clone()),
        replay_endpoint: stream.source.as_ref().and_then(|source| source.replay_endpoint.clone()),
        topic: stream.source.map(|source| source.topic).unwrap_or_default(),
        trust: Some(trust(&stream.trust)),
        blocks: stream.blocks as u64,
        hash_check: stream.hash_check.name().into(),
    };
    v1::Worker {
        worker_id: spec.id.as_str().to_owned(),
        engine: match spec.engine {
            kvindex_core::EngineKind::Vllm => "vllm",
            kvindex_core::EngineKind::Sglang => "sglang",
        }
        .into(),
        copies: match spec.copies {
            kvindex_core::CopyPolicy::Count => "count",
            kvindex_core::CopyPolicy::Set => "set",
        }
        .into(),
        gap_policy: match gap_policy {
            kvindex_core::GapPolicy::Purge => "purge",
            kvindex_core::GapPolicy::KeepAsSuspect => "keep_as_suspect",
        }
        .into(),
        groups: spec.groups.iter().map(group).collect(),
        cleared: match spec.cleared {
            kvindex_core::ClearPolicy::Device => "device",
            kvindex_core::ClearPolicy::AllTiers => "all_tiers",
        }
        .into(),
        hidden_identity: match spec.hidden_identity {
            kvindex_core::HiddenIdentity::Possible => "possible",
            kvindex_core::HiddenIdentity::Unused => "unused",
        }
        .into(),
        offload_chunk: spec.offload_chunk.unwrap_or(0),
        hash_profile: hash_profile.map(|profile| v1::HashProfile {
            algorithm: profile.algorithm,
            hash_seed: profile.hash_seed,
            none_hash: profile.none_hash,
        }),
        pod: spec.pod.as_ref().map(pod),
        model: spec.model,
        tenant: spec.tenant,
        engine_version: spec.engine_version,
        address: spec.address,
        service: spec.service,
        role: spec.role,
        pd_group: spec.pd_group,
        labels: spec.labels,
        streams: listed.streams.into_iter().map(stream).collect(),
    }
}

/// A change of the index.
pub(crate) fn watch_event(event: &FeedEvent) -> v1::WatchEvent {
    v1::WatchEvent {
        worker_id: event.worker.as_str().to_owned(),
        dp_rank: event.dp_rank.0,
        generation: event.generation.0,
        seq: event.seq.map(|seq| seq.0),
        at_ms: event.at_ms,
        kind: event.kind.name().into(),
        tier: event.tier.as_ref().map(|tier| tier.name().to_owned()).unwrap_or_default(),
        lora_name: event.lora.as_deref().map(str::to_owned),
        block_size: event.block_size,
        sequence_hashes: event.blocks.iter().map(|hash| hash.0).collect(),
        count: event.count,
        group_idx: u32::from(event.group.0),
    }
}
