"""Asks a kvindex which engine holds how much of a prompt in its KV cache.

Two kinds of calls, with two contracts:

- Routing calls (`match_tokens`, `match_hashes`, `match`, `match_batch`) *fail open*: they end within a deadline, 20 ms
  unless set, with an `Answer`, which is `Unknown` when no node answers in time or the question is refused. They raise
  nothing: a user's request never fails because the index is down.
- Admin calls (`register`, `unregister`, `publish`, `list_workers`, `explain`, `watch`, `cluster_status`) raise
  `CallError`, which says whether another attempt may help.

`Client` is for threads, `AsyncClient` for asyncio.
"""

from . import v1
from ._aio import AsyncClient
from ._answer import Answer, CallError, Known, Unknown
from ._client import Client
from ._question import prompt_of_hashes, prompt_of_tokens, question
from ._settings import Settings

__all__ = [
    "Answer",
    "AsyncClient",
    "CallError",
    "Client",
    "Known",
    "Settings",
    "Unknown",
    "prompt_of_hashes",
    "prompt_of_tokens",
    "question",
    "v1",
]
