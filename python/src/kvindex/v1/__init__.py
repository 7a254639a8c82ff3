"""The messages, generated from the protocol files by `python/generate`; here under one roof."""

from .cluster_pb2 import *  # noqa: F403
from .ingest_pb2 import *  # noqa: F403
from .query_pb2 import *  # noqa: F403
