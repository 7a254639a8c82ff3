from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ClusterStatusRequest(_message.Message):
    __slots__ = ("digests",)
    DIGESTS_FIELD_NUMBER: _ClassVar[int]
    digests: bool
    def __init__(self, digests: bool = ...) -> None: ...

class ClusterStatusResponse(_message.Message):
    __slots__ = ("cluster_id", "node_id", "nodes", "shards", "waits_for")
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    WAITS_FOR_FIELD_NUMBER: _ClassVar[int]
    cluster_id: str
    node_id: int
    nodes: _containers.RepeatedCompositeFieldContainer[ClusterNode]
    shards: _containers.RepeatedCompositeFieldContainer[ShardState]
    waits_for: str
    def __init__(self, cluster_id: _Optional[str] = ..., node_id: _Optional[int] = ..., nodes: _Optional[_Iterable[_Union[ClusterNode, _Mapping]]] = ..., shards: _Optional[_Iterable[_Union[ShardState, _Mapping]]] = ..., waits_for: _Optional[str] = ...) -> None: ...

class ClusterNode(_message.Message):
    __slots__ = ("node_id", "peer_address", "address", "voter")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    PEER_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    VOTER_FIELD_NUMBER: _ClassVar[int]
    node_id: int
    peer_address: str
    address: str
    voter: bool
    def __init__(self, node_id: _Optional[int] = ..., peer_address: _Optional[str] = ..., address: _Optional[str] = ..., voter: bool = ...) -> None: ...

class ShardState(_message.Message):
    __slots__ = ("shard", "role", "leader", "term", "applied", "entries_behind", "age_ms", "last", "snapshot", "members", "changing", "stopped", "digest")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    LEADER_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_BEHIND_FIELD_NUMBER: _ClassVar[int]
    AGE_MS_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    CHANGING_FIELD_NUMBER: _ClassVar[int]
    STOPPED_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    shard: int
    role: str
    leader: int
    term: int
    applied: int
    entries_behind: int
    age_ms: int
    last: int
    snapshot: int
    members: _containers.RepeatedCompositeFieldContainer[ShardMember]
    changing: bool
    stopped: str
    digest: int
    def __init__(self, shard: _Optional[int] = ..., role: _Optional[str] = ..., leader: _Optional[int] = ..., term: _Optional[int] = ..., applied: _Optional[int] = ..., entries_behind: _Optional[int] = ..., age_ms: _Optional[int] = ..., last: _Optional[int] = ..., snapshot: _Optional[int] = ..., members: _Optional[_Iterable[_Union[ShardMember, _Mapping]]] = ..., changing: bool = ..., stopped: _Optional[str] = ..., digest: _Optional[int] = ...) -> None: ...

class ShardMember(_message.Message):
    __slots__ = ("node_id", "voter", "matched")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    VOTER_FIELD_NUMBER: _ClassVar[int]
    MATCHED_FIELD_NUMBER: _ClassVar[int]
    node_id: int
    voter: bool
    matched: int
    def __init__(self, node_id: _Optional[int] = ..., voter: bool = ..., matched: _Optional[int] = ...) -> None: ...

class RemoveNodeRequest(_message.Message):
    __slots__ = ("node_id", "force")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    node_id: int
    force: bool
    def __init__(self, node_id: _Optional[int] = ..., force: bool = ...) -> None: ...

class SetVoterRequest(_message.Message):
    __slots__ = ("node_id", "voter")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    VOTER_FIELD_NUMBER: _ClassVar[int]
    node_id: int
    voter: bool
    def __init__(self, node_id: _Optional[int] = ..., voter: bool = ...) -> None: ...

class HandOverRequest(_message.Message):
    __slots__ = ("shard", "node_id")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    shard: int
    node_id: int
    def __init__(self, shard: _Optional[int] = ..., node_id: _Optional[int] = ...) -> None: ...

class ClusterChangeResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
