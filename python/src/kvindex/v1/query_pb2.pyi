from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TrustState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TRUST_STATE_UNSPECIFIED: _ClassVar[TrustState]
    TRUST_STATE_LIVE: _ClassVar[TrustState]
    TRUST_STATE_SUSPECT: _ClassVar[TrustState]
    TRUST_STATE_REBUILDING: _ClassVar[TrustState]
    TRUST_STATE_PENDING: _ClassVar[TrustState]
TRUST_STATE_UNSPECIFIED: TrustState
TRUST_STATE_LIVE: TrustState
TRUST_STATE_SUSPECT: TrustState
TRUST_STATE_REBUILDING: TrustState
TRUST_STATE_PENDING: TrustState

class Prompt(_message.Message):
    __slots__ = ("model", "tenant", "lora_name", "cache_salt", "token_ids", "token_ids_le", "sequence_hashes", "engine_block_hashes", "block_size", "items")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    LORA_NAME_FIELD_NUMBER: _ClassVar[int]
    CACHE_SALT_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_LE_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_HASHES_FIELD_NUMBER: _ClassVar[int]
    ENGINE_BLOCK_HASHES_FIELD_NUMBER: _ClassVar[int]
    BLOCK_SIZE_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    model: str
    tenant: str
    lora_name: str
    cache_salt: str
    token_ids: _containers.RepeatedScalarFieldContainer[int]
    token_ids_le: bytes
    sequence_hashes: _containers.RepeatedScalarFieldContainer[int]
    engine_block_hashes: _containers.RepeatedScalarFieldContainer[int]
    block_size: int
    items: _containers.RepeatedCompositeFieldContainer[PromptItem]
    def __init__(self, model: _Optional[str] = ..., tenant: _Optional[str] = ..., lora_name: _Optional[str] = ..., cache_salt: _Optional[str] = ..., token_ids: _Optional[_Iterable[int]] = ..., token_ids_le: _Optional[bytes] = ..., sequence_hashes: _Optional[_Iterable[int]] = ..., engine_block_hashes: _Optional[_Iterable[int]] = ..., block_size: _Optional[int] = ..., items: _Optional[_Iterable[_Union[PromptItem, _Mapping]]] = ...) -> None: ...

class PromptItem(_message.Message):
    __slots__ = ("identifier", "offset", "length")
    IDENTIFIER_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    identifier: str
    offset: int
    length: int
    def __init__(self, identifier: _Optional[str] = ..., offset: _Optional[int] = ..., length: _Optional[int] = ...) -> None: ...

class MatchRequest(_message.Message):
    __slots__ = ("prompt", "candidates", "role", "pd_group", "labels", "tier", "top_k", "min_matched_blocks", "group_rollup", "consistency", "report_applied")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    PD_GROUP_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    MIN_MATCHED_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    GROUP_ROLLUP_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    REPORT_APPLIED_FIELD_NUMBER: _ClassVar[int]
    prompt: Prompt
    candidates: _containers.RepeatedScalarFieldContainer[str]
    role: str
    pd_group: str
    labels: _containers.ScalarMap[str, str]
    tier: str
    top_k: int
    min_matched_blocks: int
    group_rollup: bool
    consistency: str
    report_applied: bool
    def __init__(self, prompt: _Optional[_Union[Prompt, _Mapping]] = ..., candidates: _Optional[_Iterable[str]] = ..., role: _Optional[str] = ..., pd_group: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., tier: _Optional[str] = ..., top_k: _Optional[int] = ..., min_matched_blocks: _Optional[int] = ..., group_rollup: bool = ..., consistency: _Optional[str] = ..., report_applied: bool = ...) -> None: ...

class MatchResponse(_message.Message):
    __slots__ = ("workers", "prompt_tokens", "groups", "timing", "freshness")
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    FRESHNESS_FIELD_NUMBER: _ClassVar[int]
    workers: _containers.RepeatedCompositeFieldContainer[WorkerMatch]
    prompt_tokens: int
    groups: _containers.RepeatedCompositeFieldContainer[GroupMatch]
    timing: Timing
    freshness: Freshness
    def __init__(self, workers: _Optional[_Iterable[_Union[WorkerMatch, _Mapping]]] = ..., prompt_tokens: _Optional[int] = ..., groups: _Optional[_Iterable[_Union[GroupMatch, _Mapping]]] = ..., timing: _Optional[_Union[Timing, _Mapping]] = ..., freshness: _Optional[_Union[Freshness, _Mapping]] = ...) -> None: ...

class Freshness(_message.Message):
    __slots__ = ("age_ms", "entries_behind", "applied")
    AGE_MS_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_BEHIND_FIELD_NUMBER: _ClassVar[int]
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    age_ms: int
    entries_behind: int
    applied: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, age_ms: _Optional[int] = ..., entries_behind: _Optional[int] = ..., applied: _Optional[_Iterable[int]] = ...) -> None: ...

class WorkerMatch(_message.Message):
    __slots__ = ("worker_id", "address", "pod", "service", "role", "pd_group", "model", "dp_rank", "block_size", "matched_blocks", "matched_tokens", "uncached_tokens", "tiers", "trust", "ambiguous", "labels", "doubts")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    POD_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    PD_GROUP_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DP_RANK_FIELD_NUMBER: _ClassVar[int]
    BLOCK_SIZE_FIELD_NUMBER: _ClassVar[int]
    MATCHED_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    MATCHED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    UNCACHED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TIERS_FIELD_NUMBER: _ClassVar[int]
    TRUST_FIELD_NUMBER: _ClassVar[int]
    AMBIGUOUS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    DOUBTS_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    address: str
    pod: Pod
    service: str
    role: str
    pd_group: str
    model: str
    dp_rank: int
    block_size: int
    matched_blocks: int
    matched_tokens: int
    uncached_tokens: int
    tiers: _containers.RepeatedCompositeFieldContainer[TierMatch]
    trust: Trust
    ambiguous: bool
    labels: _containers.ScalarMap[str, str]
    doubts: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, worker_id: _Optional[str] = ..., address: _Optional[str] = ..., pod: _Optional[_Union[Pod, _Mapping]] = ..., service: _Optional[str] = ..., role: _Optional[str] = ..., pd_group: _Optional[str] = ..., model: _Optional[str] = ..., dp_rank: _Optional[int] = ..., block_size: _Optional[int] = ..., matched_blocks: _Optional[int] = ..., matched_tokens: _Optional[int] = ..., uncached_tokens: _Optional[int] = ..., tiers: _Optional[_Iterable[_Union[TierMatch, _Mapping]]] = ..., trust: _Optional[_Union[Trust, _Mapping]] = ..., ambiguous: bool = ..., labels: _Optional[_Mapping[str, str]] = ..., doubts: _Optional[_Iterable[str]] = ...) -> None: ...

class KvCacheGroup(_message.Message):
    __slots__ = ("group_idx", "kind", "block_size", "sliding_window")
    GROUP_IDX_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    BLOCK_SIZE_FIELD_NUMBER: _ClassVar[int]
    SLIDING_WINDOW_FIELD_NUMBER: _ClassVar[int]
    group_idx: int
    kind: str
    block_size: int
    sliding_window: int
    def __init__(self, group_idx: _Optional[int] = ..., kind: _Optional[str] = ..., block_size: _Optional[int] = ..., sliding_window: _Optional[int] = ...) -> None: ...

class HashProfile(_message.Message):
    __slots__ = ("algorithm", "hash_seed", "none_hash")
    ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    HASH_SEED_FIELD_NUMBER: _ClassVar[int]
    NONE_HASH_FIELD_NUMBER: _ClassVar[int]
    algorithm: str
    hash_seed: str
    none_hash: str
    def __init__(self, algorithm: _Optional[str] = ..., hash_seed: _Optional[str] = ..., none_hash: _Optional[str] = ...) -> None: ...

class Pod(_message.Message):
    __slots__ = ("namespace", "name", "uid")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    name: str
    uid: str
    def __init__(self, namespace: _Optional[str] = ..., name: _Optional[str] = ..., uid: _Optional[str] = ...) -> None: ...

class TierMatch(_message.Message):
    __slots__ = ("tier", "blocks", "prefix_blocks", "prefix_tokens")
    TIER_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    PREFIX_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    PREFIX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    tier: str
    blocks: int
    prefix_blocks: int
    prefix_tokens: int
    def __init__(self, tier: _Optional[str] = ..., blocks: _Optional[int] = ..., prefix_blocks: _Optional[int] = ..., prefix_tokens: _Optional[int] = ...) -> None: ...

class Trust(_message.Message):
    __slots__ = ("state", "generation", "applied_seq", "lag_ms", "reason")
    STATE_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    APPLIED_SEQ_FIELD_NUMBER: _ClassVar[int]
    LAG_MS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    state: TrustState
    generation: int
    applied_seq: int
    lag_ms: int
    reason: str
    def __init__(self, state: _Optional[_Union[TrustState, str]] = ..., generation: _Optional[int] = ..., applied_seq: _Optional[int] = ..., lag_ms: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class GroupMatch(_message.Message):
    __slots__ = ("pd_group", "prefill", "decode")
    PD_GROUP_FIELD_NUMBER: _ClassVar[int]
    PREFILL_FIELD_NUMBER: _ClassVar[int]
    DECODE_FIELD_NUMBER: _ClassVar[int]
    pd_group: str
    prefill: WorkerMatch
    decode: WorkerMatch
    def __init__(self, pd_group: _Optional[str] = ..., prefill: _Optional[_Union[WorkerMatch, _Mapping]] = ..., decode: _Optional[_Union[WorkerMatch, _Mapping]] = ...) -> None: ...

class Timing(_message.Message):
    __slots__ = ("decode_us", "hash_us", "walk_us")
    DECODE_US_FIELD_NUMBER: _ClassVar[int]
    HASH_US_FIELD_NUMBER: _ClassVar[int]
    WALK_US_FIELD_NUMBER: _ClassVar[int]
    decode_us: int
    hash_us: int
    walk_us: int
    def __init__(self, decode_us: _Optional[int] = ..., hash_us: _Optional[int] = ..., walk_us: _Optional[int] = ...) -> None: ...

class MatchBatchRequest(_message.Message):
    __slots__ = ("requests",)
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[MatchRequest]
    def __init__(self, requests: _Optional[_Iterable[_Union[MatchRequest, _Mapping]]] = ...) -> None: ...

class MatchBatchResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[MatchResult]
    def __init__(self, results: _Optional[_Iterable[_Union[MatchResult, _Mapping]]] = ...) -> None: ...

class MatchResult(_message.Message):
    __slots__ = ("response", "error")
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    response: MatchResponse
    error: Error
    def __init__(self, response: _Optional[_Union[MatchResponse, _Mapping]] = ..., error: _Optional[_Union[Error, _Mapping]] = ...) -> None: ...

class Error(_message.Message):
    __slots__ = ("code", "message", "field")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    field: str
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ..., field: _Optional[str] = ...) -> None: ...

class MatchStreamRequest(_message.Message):
    __slots__ = ("id", "request")
    ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    id: int
    request: MatchRequest
    def __init__(self, id: _Optional[int] = ..., request: _Optional[_Union[MatchRequest, _Mapping]] = ...) -> None: ...

class MatchStreamResponse(_message.Message):
    __slots__ = ("id", "response", "error")
    ID_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    id: int
    response: MatchResponse
    error: Error
    def __init__(self, id: _Optional[int] = ..., response: _Optional[_Union[MatchResponse, _Mapping]] = ..., error: _Optional[_Union[Error, _Mapping]] = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("prompt", "candidates", "role", "pd_group", "labels", "tier", "top_k", "consistency")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    PD_GROUP_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    prompt: Prompt
    candidates: _containers.RepeatedScalarFieldContainer[str]
    role: str
    pd_group: str
    labels: _containers.ScalarMap[str, str]
    tier: str
    top_k: int
    consistency: str
    def __init__(self, prompt: _Optional[_Union[Prompt, _Mapping]] = ..., candidates: _Optional[_Iterable[str]] = ..., role: _Optional[str] = ..., pd_group: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., tier: _Optional[str] = ..., top_k: _Optional[int] = ..., consistency: _Optional[str] = ...) -> None: ...

class ExplainResponse(_message.Message):
    __slots__ = ("workers", "prompt_tokens", "timing")
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    workers: _containers.RepeatedCompositeFieldContainer[WorkerExplanation]
    prompt_tokens: int
    timing: Timing
    def __init__(self, workers: _Optional[_Iterable[_Union[WorkerExplanation, _Mapping]]] = ..., prompt_tokens: _Optional[int] = ..., timing: _Optional[_Union[Timing, _Mapping]] = ...) -> None: ...

class WorkerExplanation(_message.Message):
    __slots__ = ("matched", "prompt_blocks", "broke_at", "held_beyond", "reason", "detail", "at_ms", "seq", "tier")
    MATCHED_FIELD_NUMBER: _ClassVar[int]
    PROMPT_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    BROKE_AT_FIELD_NUMBER: _ClassVar[int]
    HELD_BEYOND_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    AT_MS_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    matched: WorkerMatch
    prompt_blocks: int
    broke_at: int
    held_beyond: int
    reason: str
    detail: str
    at_ms: int
    seq: int
    tier: str
    def __init__(self, matched: _Optional[_Union[WorkerMatch, _Mapping]] = ..., prompt_blocks: _Optional[int] = ..., broke_at: _Optional[int] = ..., held_beyond: _Optional[int] = ..., reason: _Optional[str] = ..., detail: _Optional[str] = ..., at_ms: _Optional[int] = ..., seq: _Optional[int] = ..., tier: _Optional[str] = ...) -> None: ...

class ListWorkersRequest(_message.Message):
    __slots__ = ("model", "tenant")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    model: str
    tenant: str
    def __init__(self, model: _Optional[str] = ..., tenant: _Optional[str] = ...) -> None: ...

class ListWorkersResponse(_message.Message):
    __slots__ = ("workers",)
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    workers: _containers.RepeatedCompositeFieldContainer[Worker]
    def __init__(self, workers: _Optional[_Iterable[_Union[Worker, _Mapping]]] = ...) -> None: ...

class Worker(_message.Message):
    __slots__ = ("worker_id", "model", "tenant", "engine", "engine_version", "address", "pod", "service", "role", "pd_group", "labels", "copies", "gap_policy", "streams", "hash_profile", "groups", "cleared", "hidden_identity", "offload_chunk")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    ENGINE_VERSION_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    POD_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    PD_GROUP_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    COPIES_FIELD_NUMBER: _ClassVar[int]
    GAP_POLICY_FIELD_NUMBER: _ClassVar[int]
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    HASH_PROFILE_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    CLEARED_FIELD_NUMBER: _ClassVar[int]
    HIDDEN_IDENTITY_FIELD_NUMBER: _ClassVar[int]
    OFFLOAD_CHUNK_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    model: str
    tenant: str
    engine: str
    engine_version: str
    address: str
    pod: Pod
    service: str
    role: str
    pd_group: str
    labels: _containers.ScalarMap[str, str]
    copies: str
    gap_policy: str
    streams: _containers.RepeatedCompositeFieldContainer[WorkerStream]
    hash_profile: HashProfile
    groups: _containers.RepeatedCompositeFieldContainer[KvCacheGroup]
    cleared: str
    hidden_identity: str
    offload_chunk: int
    def __init__(self, worker_id: _Optional[str] = ..., model: _Optional[str] = ..., tenant: _Optional[str] = ..., engine: _Optional[str] = ..., engine_version: _Optional[str] = ..., address: _Optional[str] = ..., pod: _Optional[_Union[Pod, _Mapping]] = ..., service: _Optional[str] = ..., role: _Optional[str] = ..., pd_group: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., copies: _Optional[str] = ..., gap_policy: _Optional[str] = ..., streams: _Optional[_Iterable[_Union[WorkerStream, _Mapping]]] = ..., hash_profile: _Optional[_Union[HashProfile, _Mapping]] = ..., groups: _Optional[_Iterable[_Union[KvCacheGroup, _Mapping]]] = ..., cleared: _Optional[str] = ..., hidden_identity: _Optional[str] = ..., offload_chunk: _Optional[int] = ...) -> None: ...

class WorkerStream(_message.Message):
    __slots__ = ("dp_rank", "endpoint", "replay_endpoint", "topic", "trust", "blocks", "hash_check")
    DP_RANK_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    REPLAY_ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    TRUST_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    HASH_CHECK_FIELD_NUMBER: _ClassVar[int]
    dp_rank: int
    endpoint: str
    replay_endpoint: str
    topic: str
    trust: Trust
    blocks: int
    hash_check: str
    def __init__(self, dp_rank: _Optional[int] = ..., endpoint: _Optional[str] = ..., replay_endpoint: _Optional[str] = ..., topic: _Optional[str] = ..., trust: _Optional[_Union[Trust, _Mapping]] = ..., blocks: _Optional[int] = ..., hash_check: _Optional[str] = ...) -> None: ...

class HotPrefixesRequest(_message.Message):
    __slots__ = ("model", "tenant", "limit")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    model: str
    tenant: str
    limit: int
    def __init__(self, model: _Optional[str] = ..., tenant: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class HotPrefixesResponse(_message.Message):
    __slots__ = ("prefixes", "questions_per_s")
    PREFIXES_FIELD_NUMBER: _ClassVar[int]
    QUESTIONS_PER_S_FIELD_NUMBER: _ClassVar[int]
    prefixes: _containers.RepeatedCompositeFieldContainer[HotPrefix]
    questions_per_s: float
    def __init__(self, prefixes: _Optional[_Iterable[_Union[HotPrefix, _Mapping]]] = ..., questions_per_s: _Optional[float] = ...) -> None: ...

class HotPrefix(_message.Message):
    __slots__ = ("tenant", "model", "lora_name", "block_size", "blocks", "tokens", "sequence_hash", "share", "per_s", "held_by")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    LORA_NAME_FIELD_NUMBER: _ClassVar[int]
    BLOCK_SIZE_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_HASH_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    PER_S_FIELD_NUMBER: _ClassVar[int]
    HELD_BY_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    model: str
    lora_name: str
    block_size: int
    blocks: int
    tokens: int
    sequence_hash: int
    share: float
    per_s: float
    held_by: int
    def __init__(self, tenant: _Optional[str] = ..., model: _Optional[str] = ..., lora_name: _Optional[str] = ..., block_size: _Optional[int] = ..., blocks: _Optional[int] = ..., tokens: _Optional[int] = ..., sequence_hash: _Optional[int] = ..., share: _Optional[float] = ..., per_s: _Optional[float] = ..., held_by: _Optional[int] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("worker_ids", "model")
    WORKER_IDS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    worker_ids: _containers.RepeatedScalarFieldContainer[str]
    model: str
    def __init__(self, worker_ids: _Optional[_Iterable[str]] = ..., model: _Optional[str] = ...) -> None: ...

class WatchEvent(_message.Message):
    __slots__ = ("worker_id", "dp_rank", "generation", "seq", "at_ms", "kind", "tier", "lora_name", "block_size", "sequence_hashes", "count", "group_idx")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    DP_RANK_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    AT_MS_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    LORA_NAME_FIELD_NUMBER: _ClassVar[int]
    BLOCK_SIZE_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_HASHES_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    GROUP_IDX_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    dp_rank: int
    generation: int
    seq: int
    at_ms: int
    kind: str
    tier: str
    lora_name: str
    block_size: int
    sequence_hashes: _containers.RepeatedScalarFieldContainer[int]
    count: int
    group_idx: int
    def __init__(self, worker_id: _Optional[str] = ..., dp_rank: _Optional[int] = ..., generation: _Optional[int] = ..., seq: _Optional[int] = ..., at_ms: _Optional[int] = ..., kind: _Optional[str] = ..., tier: _Optional[str] = ..., lora_name: _Optional[str] = ..., block_size: _Optional[int] = ..., sequence_hashes: _Optional[_Iterable[int]] = ..., count: _Optional[int] = ..., group_idx: _Optional[int] = ...) -> None: ...
