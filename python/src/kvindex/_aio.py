"""The client for asyncio: the same calls as `Client`, awaited."""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import Any, AsyncIterator, Iterable, Optional, Sequence, Union

import grpc
import grpc.aio

from . import _calls
from ._answer import Answer, CallError, Known, Unknown, call_error, closed, of_result, unknown
from ._question import Tokens, prompt_of_hashes, prompt_of_tokens, question
from ._retries import Retries
from ._settings import Settings, Token
from .v1 import cluster_pb2, ingest_pb2, query_pb2


class AsyncClient:
    """Connections to one node, or to several of a cluster. Make one in each event loop and share it there."""

    def __init__(self, servers: Union[str, Sequence[str], Settings] = "127.0.0.1:9590", **more: Any) -> None:
        """`AsyncClient("10.0.0.1:9590")`, with the fields of `Settings` as keywords; or `AsyncClient(Settings(...))`."""
        self.settings = servers if isinstance(servers, Settings) else Settings(servers=servers, **more)
        self._token = Token(self.settings)
        self._closed = False
        self._retries = Retries()
        target, options, credentials = self.settings.target(), self.settings.options(), self.settings.credentials()
        if credentials is None:
            self._channel = grpc.aio.insecure_channel(target, options)
        else:
            self._channel = grpc.aio.secure_channel(target, credentials, options)

    async def match_tokens(self, model: str, tokens: Tokens, **more: Any) -> Answer:
        """Which workers hold how long a prefix of these tokens. `more`: of `prompt_of_tokens`."""
        try:
            request = question(prompt_of_tokens(model, tokens, **more))
        except Exception as error:  # noqa: BLE001: a prompt that cannot be one is no reason to raise either
            return unknown(error)
        return await self.match(request)

    async def match_hashes(self, model: str, block_size: int, **more: Any) -> Answer:
        """The same by hashes: `sequence=` or `engine=`, as `prompt_of_hashes` takes them."""
        try:
            request = question(prompt_of_hashes(model, block_size, **more))
        except Exception as error:  # noqa: BLE001
            return unknown(error)
        return await self.match(request)

    async def match(self, request: query_pb2.MatchRequest) -> Answer:
        """The same with everything that a question can have; see `question`."""
        try:
            return Known(await self._call(_calls.MATCH, request, self.settings.routing_timeout))
        except Exception as error:  # noqa: BLE001: whatever it is, the user's request goes on
            return unknown(error)

    async def match_batch(self, requests: Sequence[query_pb2.MatchRequest]) -> list[Answer]:
        """Many questions in one call; as many answers, in the same order."""
        try:
            batch = query_pb2.MatchBatchRequest(requests=requests)
            response = await self._call(_calls.MATCH_BATCH, batch, self.settings.routing_timeout)
        except Exception as error:  # noqa: BLE001
            return [unknown(error)] * len(requests)
        if len(response.results) != len(requests):
            message = f"{len(response.results)} answers to {len(requests)} questions"
            return [Unknown("internal", message)] * len(requests)
        return [of_result(result) for result in response.results]

    async def explain(self, prompt: query_pb2.Prompt, **more: Any) -> query_pb2.ExplainResponse:
        """Where each worker's match ends, and why. `more`: fields of `ExplainRequest`."""
        request = query_pb2.ExplainRequest(prompt=prompt, **more)
        response: query_pb2.ExplainResponse = await self._admin(_calls.EXPLAIN, request)
        return response

    async def list_workers(self, *, model: Optional[str] = None, tenant: Optional[str] = None) -> list[query_pb2.Worker]:
        """The registered workers with their streams."""
        request = query_pb2.ListWorkersRequest(model=model, tenant=tenant)
        return list((await self._admin(_calls.LIST_WORKERS, request)).workers)

    async def register(self, worker: ingest_pb2.RegisterRequest) -> str:
        """Makes a worker known: `created`, `unchanged` or `replaced`."""
        return str((await self._admin(_calls.REGISTER, worker)).outcome)

    async def unregister(self, worker_id: str) -> bool:
        """Forgets a worker and all its blocks; says whether it was known."""
        return bool((await self._admin(_calls.UNREGISTER, ingest_pb2.UnregisterRequest(worker_id=worker_id))).removed)

    async def publish(self, batch: ingest_pb2.PublishRequest) -> ingest_pb2.PublishResponse:
        """Hands in one event batch of an engine that has no ZeroMQ publisher; may be repeated."""
        response: ingest_pb2.PublishResponse = await self._admin(_calls.PUBLISH, batch)
        return response

    async def watch(
        self, worker_ids: Iterable[str] = (), model: Optional[str] = None
    ) -> AsyncIterator[query_pb2.WatchEvent]:
        """Changes as they happen, until the node ends: then some may be missed until the next watch begins."""
        request = query_pb2.WatchRequest(worker_ids=worker_ids, model=model)
        call = _calls.WATCH
        if self._closed:
            raise closed()
        stream = self._channel.unary_stream(call.path, call.serialize, call.parse)
        events: Any = stream(request, metadata=self._token.metadata())
        try:
            async for event in events:
                yield event
        except asyncio.CancelledError:
            if self._closed and not _is_cancelled():
                raise closed() from None
            raise
        except grpc.RpcError as error:
            raise call_error(error) from error
        finally:
            events.cancel()

    async def cluster_status(self, digests: bool = False) -> cluster_pb2.ClusterStatusResponse:
        """The cluster as the asked node sees it."""
        request = cluster_pb2.ClusterStatusRequest(digests=digests)
        response: cluster_pb2.ClusterStatusResponse = await self._admin(_calls.CLUSTER_STATUS, request)
        return response

    async def close(self) -> None:
        """Closes the connections. Calls under way end with it, routing calls with `Unknown`, as do those after it."""
        self._closed = True
        await self._channel.close(None)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        await self.close()

    async def _call(self, call: _calls.Call, request: Any, timeout: float) -> Any:
        unary = self._channel.unary_unary(call.path, call.serialize, call.parse)
        if self._closed:
            raise closed()
        until, attempt = time.monotonic() + timeout, 1
        self._retries.earn()
        while True:
            left = max(until - time.monotonic(), 0.0)
            try:
                return await unary(request, timeout=left, metadata=self._token.metadata())
            except asyncio.CancelledError:
                # As gRPC ends calls of a channel that is closed: nobody cancelled the caller.
                if self._closed and not _is_cancelled():
                    raise closed() from None
                raise
            except grpc.RpcError as error:
                if not call.repeatable or not self._retries.may_retry(error, attempt, until):
                    raise
            attempt += 1

    async def _admin(self, call: _calls.Call, request: Any) -> Any:
        try:
            return await self._call(call, request, self.settings.admin_timeout)
        except CallError:
            raise
        except Exception as error:  # noqa: BLE001: whoever calls catches one kind
            raise call_error(error) from error


def _is_cancelled() -> bool:
    """Whether somebody cancelled the task that this runs in, or, before Python 3.11, may have: tasks do not tell there."""
    cancelling = getattr(asyncio.current_task(), "cancelling", None)
    return cancelling is None or cancelling() > 0
