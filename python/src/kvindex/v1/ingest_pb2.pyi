from kvindex.v1 import query_pb2 as _query_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RegisterRequest(_message.Message):
    __slots__ = ("worker_id", "model", "tenant", "engine", "engine_version", "address", "pod", "service", "role", "pd_group", "labels", "copies", "gap_policy", "streams", "endpoint", "replay_endpoint", "topic", "data_parallel_size", "replace", "hash_profile", "groups", "cleared", "hidden_identity", "offload_chunk")
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
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    REPLAY_ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    DATA_PARALLEL_SIZE_FIELD_NUMBER: _ClassVar[int]
    REPLACE_FIELD_NUMBER: _ClassVar[int]
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
    pod: _query_pb2.Pod
    service: str
    role: str
    pd_group: str
    labels: _containers.ScalarMap[str, str]
    copies: str
    gap_policy: str
    streams: _containers.RepeatedCompositeFieldContainer[StreamSource]
    endpoint: str
    replay_endpoint: str
    topic: str
    data_parallel_size: int
    replace: bool
    hash_profile: _query_pb2.HashProfile
    groups: _containers.RepeatedCompositeFieldContainer[_query_pb2.KvCacheGroup]
    cleared: str
    hidden_identity: str
    offload_chunk: int
    def __init__(self, worker_id: _Optional[str] = ..., model: _Optional[str] = ..., tenant: _Optional[str] = ..., engine: _Optional[str] = ..., engine_version: _Optional[str] = ..., address: _Optional[str] = ..., pod: _Optional[_Union[_query_pb2.Pod, _Mapping]] = ..., service: _Optional[str] = ..., role: _Optional[str] = ..., pd_group: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., copies: _Optional[str] = ..., gap_policy: _Optional[str] = ..., streams: _Optional[_Iterable[_Union[StreamSource, _Mapping]]] = ..., endpoint: _Optional[str] = ..., replay_endpoint: _Optional[str] = ..., topic: _Optional[str] = ..., data_parallel_size: _Optional[int] = ..., replace: bool = ..., hash_profile: _Optional[_Union[_query_pb2.HashProfile, _Mapping]] = ..., groups: _Optional[_Iterable[_Union[_query_pb2.KvCacheGroup, _Mapping]]] = ..., cleared: _Optional[str] = ..., hidden_identity: _Optional[str] = ..., offload_chunk: _Optional[int] = ...) -> None: ...

class StreamSource(_message.Message):
    __slots__ = ("dp_rank", "endpoint", "replay_endpoint", "topic")
    DP_RANK_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    REPLAY_ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    dp_rank: int
    endpoint: str
    replay_endpoint: str
    topic: str
    def __init__(self, dp_rank: _Optional[int] = ..., endpoint: _Optional[str] = ..., replay_endpoint: _Optional[str] = ..., topic: _Optional[str] = ...) -> None: ...

class RegisterResponse(_message.Message):
    __slots__ = ("outcome",)
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    outcome: str
    def __init__(self, outcome: _Optional[str] = ...) -> None: ...

class UnregisterRequest(_message.Message):
    __slots__ = ("worker_id",)
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    def __init__(self, worker_id: _Optional[str] = ...) -> None: ...

class UnregisterResponse(_message.Message):
    __slots__ = ("removed",)
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    removed: bool
    def __init__(self, removed: bool = ...) -> None: ...

class PublishRequest(_message.Message):
    __slots__ = ("worker_id", "dp_rank", "generation", "seq", "payload", "events")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    DP_RANK_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    dp_rank: int
    generation: int
    seq: int
    payload: bytes
    events: _containers.RepeatedCompositeFieldContainer[PublishEvent]
    def __init__(self, worker_id: _Optional[str] = ..., dp_rank: _Optional[int] = ..., generation: _Optional[int] = ..., seq: _Optional[int] = ..., payload: _Optional[bytes] = ..., events: _Optional[_Iterable[_Union[PublishEvent, _Mapping]]] = ...) -> None: ...

class PublishEvent(_message.Message):
    __slots__ = ("type", "block_hashes", "parent_block_hash", "token_ids", "token_ids_le", "block_size", "medium", "lora_name", "cache_salt", "extra_keys", "group_idx", "kv_cache_spec_kind", "kv_cache_spec_sliding_window")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    BLOCK_HASHES_FIELD_NUMBER: _ClassVar[int]
    PARENT_BLOCK_HASH_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_LE_FIELD_NUMBER: _ClassVar[int]
    BLOCK_SIZE_FIELD_NUMBER: _ClassVar[int]
    MEDIUM_FIELD_NUMBER: _ClassVar[int]
    LORA_NAME_FIELD_NUMBER: _ClassVar[int]
    CACHE_SALT_FIELD_NUMBER: _ClassVar[int]
    EXTRA_KEYS_FIELD_NUMBER: _ClassVar[int]
    GROUP_IDX_FIELD_NUMBER: _ClassVar[int]
    KV_CACHE_SPEC_KIND_FIELD_NUMBER: _ClassVar[int]
    KV_CACHE_SPEC_SLIDING_WINDOW_FIELD_NUMBER: _ClassVar[int]
    type: str
    block_hashes: _containers.RepeatedScalarFieldContainer[int]
    parent_block_hash: int
    token_ids: _containers.RepeatedScalarFieldContainer[int]
    token_ids_le: bytes
    block_size: int
    medium: str
    lora_name: str
    cache_salt: str
    extra_keys: _containers.RepeatedCompositeFieldContainer[BlockExtraKeys]
    group_idx: int
    kv_cache_spec_kind: str
    kv_cache_spec_sliding_window: int
    def __init__(self, type: _Optional[str] = ..., block_hashes: _Optional[_Iterable[int]] = ..., parent_block_hash: _Optional[int] = ..., token_ids: _Optional[_Iterable[int]] = ..., token_ids_le: _Optional[bytes] = ..., block_size: _Optional[int] = ..., medium: _Optional[str] = ..., lora_name: _Optional[str] = ..., cache_salt: _Optional[str] = ..., extra_keys: _Optional[_Iterable[_Union[BlockExtraKeys, _Mapping]]] = ..., group_idx: _Optional[int] = ..., kv_cache_spec_kind: _Optional[str] = ..., kv_cache_spec_sliding_window: _Optional[int] = ...) -> None: ...

class BlockExtraKeys(_message.Message):
    __slots__ = ("keys",)
    KEYS_FIELD_NUMBER: _ClassVar[int]
    keys: _containers.RepeatedCompositeFieldContainer[ExtraKey]
    def __init__(self, keys: _Optional[_Iterable[_Union[ExtraKey, _Mapping]]] = ...) -> None: ...

class ExtraKey(_message.Message):
    __slots__ = ("text", "identifier", "offset", "digest")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    IDENTIFIER_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    text: str
    identifier: str
    offset: int
    digest: bytes
    def __init__(self, text: _Optional[str] = ..., identifier: _Optional[str] = ..., offset: _Optional[int] = ..., digest: _Optional[bytes] = ...) -> None: ...

class PublishResponse(_message.Message):
    __slots__ = ("applied_seq", "duplicate")
    APPLIED_SEQ_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_FIELD_NUMBER: _ClassVar[int]
    applied_seq: int
    duplicate: bool
    def __init__(self, applied_seq: _Optional[int] = ..., duplicate: bool = ...) -> None: ...
