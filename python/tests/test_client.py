"""The package against real nodes, and against nodes that are gone or silent.

Run with `python/check`, or with KVINDEX_BIN naming the `kvindex` binary: `python -m unittest discover python/tests`.
"""

import asyncio
import os
import re
import socket
import subprocess
import tempfile
import threading
import time
import unittest
from array import array
from pathlib import Path
from typing import Any
from unittest import mock

from kvindex import AsyncClient, CallError, Client, Known, Settings, Unknown, prompt_of_tokens, question, v1

BLOCK = 16
#: How long anything may take on a busy machine.
SOON = 30.0
#: SHA-256 of `abc`.
ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


class Node:
    """A node as a process, on a port of the system's choice."""

    def __init__(self, *more: str) -> None:
        command = [os.environ["KVINDEX_BIN"], "serve", "--listen", "127.0.0.1:0", *more]
        self.log = tempfile.TemporaryFile("w+")
        # Nothing here is about overload, and a busy machine has enough of it.
        settings = {**os.environ, "KVINDEX_MAX_QUERY_WAIT_US": "10000000"}
        self.process = subprocess.Popen(command, stdout=self.log, stderr=subprocess.STDOUT, env=settings)
        self.address = self._address()

    def _address(self) -> str:
        until = time.monotonic() + SOON
        while time.monotonic() < until:
            self.log.seek(0)
            plain = re.sub(r"\x1b\[[0-9;]*m", "", self.log.read())
            found = re.search(r"127\.0\.0\.1:([1-9]\d*)", plain)
            if found:
                return found.group(0)
            time.sleep(0.05)
        self.log.seek(0)
        raise AssertionError(f"the node does not start: {self.log.read()}")

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.log.close()


def silent() -> socket.socket:
    """Takes connections and never answers."""
    return socket.create_server(("127.0.0.1", 0), backlog=16)


def nowhere() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


def stored(worker_id: str, blocks: int) -> v1.PublishRequest:
    event = v1.PublishEvent(
        type="stored",
        block_hashes=range(100, 100 + blocks),
        token_ids=range(blocks * BLOCK),
        block_size=BLOCK,
    )
    return v1.PublishRequest(worker_id=worker_id, generation=1, seq=0, events=[event])


class WithANode(unittest.TestCase):
    def setUp(self) -> None:
        self.node = Node()
        self.addCleanup(self.node.stop)
        self.client = Client(self.node.address, routing_timeout=SOON, admin_timeout=SOON)
        self.addCleanup(self.client.close)
        for worker, blocks in (("a", 1), ("b", 3)):
            self.assertEqual(self.client.register(v1.RegisterRequest(worker_id=worker, model="llama")), "created")
            self.assertEqual(self.client.publish(stored(worker, blocks)).applied_seq, 0)

    def test_tokens_and_hashes_find_the_longest_prefix(self) -> None:
        tokens = range(64)
        for form in (tokens, list(tokens), array("I", tokens).tobytes()):
            answer = self.client.match_tokens("llama", form)
            assert isinstance(answer, Known), answer
            self.assertEqual([(w.worker_id, w.matched_blocks) for w in answer.workers], [("b", 3), ("a", 1)])
        by_engine = self.client.match_hashes("llama", BLOCK, engine=[100, 101])
        self.assertEqual([w.matched_blocks for w in by_engine.workers], [2, 1])
        salted = self.client.match_tokens("llama", tokens, cache_salt="s")
        self.assertEqual([w.matched_blocks for w in salted.workers], [0, 0])
        best = self.client.match(question(prompt_of_tokens("llama", tokens), top_k=1))
        self.assertEqual([w.worker_id for w in best.workers], ["b"])

    def test_a_batch_answers_each_question_by_itself(self) -> None:
        good = question(prompt_of_tokens("llama", range(32)))
        bad = question(prompt_of_tokens("", range(32)))
        answers = self.client.match_batch([good, bad, good])
        self.assertEqual([bool(answer) for answer in answers], [True, False, True])
        assert isinstance(answers[1], Unknown)
        self.assertEqual(answers[1].code, "invalid_argument")
        self.assertIn("model", answers[1].reason)

    def test_admin_calls_answer_and_raise(self) -> None:
        self.assertEqual([worker.worker_id for worker in self.client.list_workers()], ["a", "b"])
        explained = self.client.explain(prompt_of_tokens("llama", range(64)))
        self.assertEqual([(w.matched.worker_id, w.reason) for w in explained.workers][0], ("b", "never_stored"))
        with self.assertRaises(CallError) as raised:
            self.client.register(v1.RegisterRequest(worker_id="a", model="llama", role="decode"))
        self.assertEqual((raised.exception.code, raised.exception.retryable), ("already_exists", False))
        with self.assertRaises(CallError) as raised:
            self.client.cluster_status()
        self.assertEqual(raised.exception.code, "failed_precondition")
        self.assertTrue(self.client.unregister("a"))
        self.assertFalse(self.client.unregister("a"))

    def test_a_watch_tells_changes(self) -> None:
        events = self.client.watch()
        begun = threading.Event()

        def change() -> None:
            # A watch sees what happens after it began, and beginning is not told.
            while not begun.wait(0.1):
                self.client.unregister("c")
                self.client.register(v1.RegisterRequest(worker_id="c", model="llama"))

        changing = threading.Thread(target=change)
        changing.start()
        try:
            self.assertEqual(next(events).worker_id, "c")
        finally:
            begun.set()
            changing.join()
        events.close()

    def test_asyncio_asks_the_same(self) -> None:
        async def ask() -> None:
            async with AsyncClient(self.node.address, routing_timeout=SOON) as client:
                answers = await asyncio.gather(*(client.match_tokens("llama", range(64)) for _ in range(20)))
                self.assertTrue(all(answer.workers[0].worker_id == "b" for answer in answers), answers)
                self.assertEqual(len(await client.list_workers()), 2)
                self.assertFalse(await client.match_tokens("", [1]))
                with self.assertRaises(CallError):
                    await client.publish(v1.PublishRequest(worker_id="nobody"))
                batch = await client.match_batch([question(prompt_of_tokens("llama", range(16)))])
                self.assertEqual([bool(answer) for answer in batch], [True])

        asyncio.run(ask())

    def test_a_killed_node_costs_no_answer_while_there_is_another(self) -> None:
        other = Node()
        self.addCleanup(other.stop)
        with Client([self.node.address, other.address], routing_timeout=SOON) as client:
            for _ in range(20):
                self.assertTrue(client.match_tokens("llama", [1]))
            self.node.process.kill()
            answers = [client.match_tokens("llama", [1]) for _ in range(100)]
            self.assertTrue(all(answers), [answer for answer in answers if not answer])
            other.process.kill()
            other.process.wait()
            self.assertFalse(client.match_tokens("llama", [1]))


class WithoutANode(unittest.TestCase):
    def test_a_prompt_that_cannot_be_one_raises_nothing(self) -> None:
        bad: list[Any] = [[-1], [2**32], [1.5], [None], "words", None]
        with Client(nowhere(), routing_timeout=0.1) as client:
            for tokens in bad:
                answer = client.match_tokens("llama", tokens)
                assert isinstance(answer, Unknown), (tokens, answer)
            self.assertFalse(client.match_tokens("\ud800", [1]))
            self.assertFalse(client.match_hashes("llama", 16, engine=[b"\x01" * 8]))
            wrong: list[Any] = [None, "words"]
            self.assertEqual([bool(one) for one in client.match_batch(wrong)], [False, False])

    def test_routing_calls_fail_open_in_time(self) -> None:
        held = silent()
        self.addCleanup(held.close)
        for address in (nowhere(), f"127.0.0.1:{held.getsockname()[1]}"):
            with Client(address, routing_timeout=0.1) as client:
                began = time.monotonic()
                answer = client.match_tokens("llama", [1, 2, 3])
                self.assertLess(time.monotonic() - began, 5)
                assert isinstance(answer, Unknown), answer
                self.assertIn(answer.code, ("unavailable", "deadline_exceeded"))
                self.assertFalse(answer)
                self.assertEqual(list(answer.workers), [])
                batch = [question(prompt_of_tokens("llama", [1]))] * 3
                self.assertEqual([bool(one) for one in client.match_batch(batch)], [False] * 3)
            self.assertFalse(client.match_tokens("llama", [1]), "closed")

    def test_asyncio_fails_open_too(self) -> None:
        async def ask() -> None:
            async with AsyncClient(nowhere(), routing_timeout=0.1) as client:
                self.assertFalse(await client.match_tokens("llama", [1]))
                with self.assertRaises(CallError) as raised:
                    await client.list_workers()
                self.assertTrue(raised.exception.retryable)

        asyncio.run(ask())

    def test_closing_ends_calls_under_way_without_cancelling_their_tasks(self) -> None:
        """Found by a review: whoever waited for a call when the client was closed got a CancelledError."""
        held = silent()
        self.addCleanup(held.close)

        async def watch(client: AsyncClient) -> None:
            async for _ in client.watch():
                pass

        async def ask() -> None:
            client = AsyncClient(f"127.0.0.1:{held.getsockname()[1]}", routing_timeout=SOON, admin_timeout=SOON)
            routing = asyncio.create_task(client.match_tokens("llama", [1]))
            admin = [asyncio.create_task(client.list_workers()), asyncio.create_task(watch(client))]
            cancelled = asyncio.create_task(client.match_tokens("llama", [1]))
            await asyncio.sleep(0.3)
            cancelled.cancel()
            await client.close()
            answer = await asyncio.wait_for(routing, SOON)
            assert isinstance(answer, Unknown), answer
            self.assertEqual(answer.code, "cancelled")
            for task in admin:
                with self.assertRaises(CallError):
                    await asyncio.wait_for(task, SOON)
            with self.assertRaises(asyncio.CancelledError):
                await cancelled

        asyncio.run(ask())

    def test_where_tasks_do_not_tell_a_cancelled_call_cancels(self) -> None:
        """Found by a review: before Python 3.11 a task that was cancelled while its client closed went on, for ever."""

        async def ask() -> None:
            client = AsyncClient(nowhere(), routing_timeout=SOON)

            async def route() -> None:
                while True:
                    await client.match_tokens("llama", [1])
                    await asyncio.sleep(0)

            task = asyncio.create_task(route())
            await asyncio.sleep(0.05)
            with mock.patch("kvindex._aio.asyncio.current_task", return_value=object()):
                task.cancel()
                await client.close()
                done, _ = await asyncio.wait([task], timeout=SOON)
            self.assertTrue(task in done and task.cancelled())

        asyncio.run(ask())

    def test_admin_calls_of_a_closed_client_raise_what_admin_calls_raise(self) -> None:
        """Found by a review: they raised whatever the library beneath raises."""
        client = Client(nowhere())
        client.close()
        self.assertFalse(client.match_tokens("llama", [1]))
        for call in (client.list_workers, lambda: next(client.watch())):
            with self.assertRaises(CallError) as raised:
                call()
            self.assertEqual((raised.exception.code, raised.exception.retryable), ("cancelled", False))
        with Client(nowhere(), admin_timeout=0.1) as client:
            wrong: Any = "no request"
            with self.assertRaises(CallError):
                client.register(wrong)

        async def ask() -> None:
            client = AsyncClient(nowhere())
            await client.close()
            self.assertFalse(await client.match_tokens("llama", [1]))
            with self.assertRaises(CallError):
                await client.list_workers()
            with self.assertRaises(CallError):
                await client.watch().__anext__()

        asyncio.run(ask())

    def test_a_token_file_that_cannot_be_read_now_holds_up_nobody(self) -> None:
        """Found by a review: the file was read again on the event loop."""
        with tempfile.TemporaryDirectory() as folder, mock.patch("kvindex._settings._REREAD_S", 0.0):
            file = Path(folder, "token")
            file.write_text("abc")

            async def ask() -> float:
                async with AsyncClient(nowhere(), token_file=str(file), routing_timeout=0.1) as client:
                    file.unlink()
                    # Whoever opens it waits for somebody who writes.
                    os.mkfifo(file)
                    began = time.monotonic()
                    self.assertFalse(await client.match_tokens("llama", [1]))
                    return time.monotonic() - began

            # Ends the test, and the thread that waits, whatever happens.
            writes = threading.Timer(5.0, file.write_text, ["def"])
            writes.daemon = True
            writes.start()
            try:
                self.assertLess(asyncio.run(ask()), 4.0)
            finally:
                writes.join(10.0)
            self.assertFalse(writes.is_alive(), "the file was not read again")

    def test_settings_that_cannot_work_are_refused_at_once(self) -> None:
        for servers, part in ((["a:1", "b:2"], "one name"), ("index", "must look like"), ([], "none is named")):
            with self.assertRaisesRegex(ValueError, part):
                Client(servers)
        with self.assertRaisesRegex(ValueError, "ca: needed"):
            Client("127.0.0.1:1", server_name="index")
        self.assertEqual(Settings(["[::1]:1", "[::2]:1"]).target(), "ipv6:[::1]:1,[::2]:1")
        self.assertEqual(Settings("index.svc:9590").target(), "dns:///index.svc:9590")
        with self.assertRaises(OSError):
            Client("127.0.0.1:1", token_file="/nonexistent")


class WithTokens(unittest.TestCase):
    def test_a_token_goes_along_and_is_read_again(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            access, file = Path(folder, "access.toml"), Path(folder, "token")
            access.write_text(
                f'[[tokens]]\nname = "router"\nsha256 = "{ABC}"\nrights = ["read"]\ntenants = ["*"]\n'
            )
            config = Path(folder, "kvindex.toml")
            config.write_text(f'access_file = "{access}"\n')
            node = Node("--config", str(config))
            self.addCleanup(node.stop)
            with Client(node.address, routing_timeout=SOON, token="abc\n") as client:
                self.assertTrue(client.match_tokens("llama", [1]))
            file.write_text("wrong\n")
            with Client(node.address, routing_timeout=SOON, token_file=str(file)) as client:
                refused = client.match_tokens("llama", [1])
                assert isinstance(refused, Unknown), refused
                self.assertEqual(refused.code, "unauthenticated")
                file.write_text("abc\n")
                until = time.monotonic() + SOON
                while not client.match_tokens("llama", [1]):
                    self.assertLess(time.monotonic(), until, "the new token is not taken")
                    time.sleep(0.1)


if __name__ == "__main__":
    unittest.main()
