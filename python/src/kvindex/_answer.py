"""A routing answer, which is never an error, and an admin call's error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Sequence, Union

import grpc

from .v1 import query_pb2


@dataclass(frozen=True)
class Known:
    """The index answered."""

    response: query_pb2.MatchResponse

    @property
    def workers(self) -> Sequence[query_pb2.WorkerMatch]:
        """Best first."""
        return self.response.workers

    def __bool__(self) -> bool:
        return True


@dataclass(frozen=True)
class Unknown:
    """The index did not answer: route as if there were none."""

    #: `deadline_exceeded`, `unavailable`, or why the question was refused, such as `invalid_argument`.
    code: str
    #: For logs.
    reason: str

    @property
    def workers(self) -> Sequence[query_pb2.WorkerMatch]:
        """Nobody is known to hold anything."""
        return ()

    def __bool__(self) -> bool:
        return False


#: What a routing call gives.
Answer = Union[Known, Unknown]

_RETRYABLE = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
)


class CallError(Exception):
    """Why an admin call failed, whatever failed once it was one: the node, the way to it, or this client. Arguments that make
    no call, such as a text where a number belongs, raise what Python raises for them."""

    def __init__(self, code: str, message: str, retryable: bool) -> None:
        super().__init__(f"{code}: {message}")
        #: The gRPC code's name, such as `not_found`.
        self.code = code
        #: For people; begins with the offending field when there is one.
        self.message = message
        #: Whether the same call may succeed later: the node was away or full, not opposed.
        self.retryable = retryable


def closed() -> CallError:
    """What a call of a closed client raises."""
    return CallError("cancelled", "the client is closed", False)


def call_error(error: Exception) -> CallError:
    """What a failed call raises."""
    code, message = _parts(error)
    return CallError(_word(code), message, code in _RETRYABLE)


def unknown(error: Exception) -> Unknown:
    """What a failed routing call gives. Whatever went wrong: a router has no use for an exception here."""
    if isinstance(error, CallError):
        return Unknown(error.code, error.message)
    code, message = _parts(error)
    return Unknown(_word(code), message)


def of_result(result: query_pb2.MatchResult) -> Answer:
    """One question's part of a batch."""
    if result.HasField("response"):
        return Known(result.response)
    return Unknown(result.error.code or "unknown", result.error.message)


def _parts(error: Exception) -> tuple[Any, str]:
    if isinstance(error, grpc.RpcError) and hasattr(error, "code"):
        return error.code(), getattr(error, "details", lambda: "")() or ""
    return grpc.StatusCode.UNKNOWN, f"{type(error).__name__}: {error}"


def _word(code: Any) -> str:
    return str(code.name).lower() if isinstance(code, grpc.StatusCode) else "unknown"
