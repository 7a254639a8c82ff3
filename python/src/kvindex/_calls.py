"""Every call's path and messages, in one table for both clients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable

from .v1 import cluster_pb2, ingest_pb2, query_pb2

_QUERY = "/kvindex.v1.QueryService/"
_INGEST = "/kvindex.v1.IngestService/"
_CLUSTER = "/kvindex.v1.ClusterService/"


@dataclass(frozen=True)
class Call:
    """One call."""

    path: str
    serialize: Callable[[Any], bytes]
    parse: Callable[[bytes], Any]
    #: Whether it may be made twice: it changes nothing, or the second time is no other than the first.
    repeatable: bool = True


MATCH = Call(_QUERY + "Match", query_pb2.MatchRequest.SerializeToString, query_pb2.MatchResponse.FromString)
MATCH_BATCH = Call(
    _QUERY + "MatchBatch",
    query_pb2.MatchBatchRequest.SerializeToString,
    query_pb2.MatchBatchResponse.FromString,
)
EXPLAIN = Call(_QUERY + "Explain", query_pb2.ExplainRequest.SerializeToString, query_pb2.ExplainResponse.FromString)
LIST_WORKERS = Call(
    _QUERY + "ListWorkers",
    query_pb2.ListWorkersRequest.SerializeToString,
    query_pb2.ListWorkersResponse.FromString,
)
WATCH = Call(_QUERY + "Watch", query_pb2.WatchRequest.SerializeToString, query_pb2.WatchEvent.FromString)
REGISTER = Call(
    _INGEST + "Register",
    ingest_pb2.RegisterRequest.SerializeToString,
    ingest_pb2.RegisterResponse.FromString,
)
UNREGISTER = Call(
    _INGEST + "Unregister",
    ingest_pb2.UnregisterRequest.SerializeToString,
    ingest_pb2.UnregisterResponse.FromString,
    # Its second answer would be another one.
    repeatable=False,
)
PUBLISH = Call(_INGEST + "Publish", ingest_pb2.PublishRequest.SerializeToString, ingest_pb2.PublishResponse.FromString)
CLUSTER_STATUS = Call(
    _CLUSTER + "ClusterStatus",
    cluster_pb2.ClusterStatusRequest.SerializeToString,
    cluster_pb2.ClusterStatusResponse.FromString,
)
