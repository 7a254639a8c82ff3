"""Calls that met a node that went away are made again, at another one, and not too often.

gRPC has this too (`retryPolicy`), but in 1.85 a call whose connection is lost waits for its deadline with it.
"""

from __future__ import annotations

import threading
import time
from typing import Optional

import grpc

#: How often a call is made at most.
ATTEMPTS = 3
#: What a call earns: for every ten, one may be made again.
_SHARE = 0.1
#: So many may be made again at once, and before there were others.
_RESERVE = 10.0


class Retries:
    """A bucket that ordinary calls fill and repeated ones empty."""

    def __init__(self) -> None:
        self._left = _RESERVE
        self._lock = threading.Lock()

    def earn(self) -> None:
        """An ordinary call is made."""
        with self._lock:
            self._left = min(self._left + _SHARE, _RESERVE)

    def may_retry(self, error: grpc.RpcError, attempt: int, until: float) -> bool:
        """Whether the call may be made once more, which is then paid for."""
        code: Optional[grpc.StatusCode] = error.code() if hasattr(error, "code") else None
        if code is not grpc.StatusCode.UNAVAILABLE or attempt >= ATTEMPTS or time.monotonic() >= until:
            return False
        with self._lock:
            if self._left < 1.0:
                return False
            self._left -= 1.0
            return True
