"""Where the nodes are, and how they are reached."""

from __future__ import annotations

import ipaddress
import json
import os
import threading
import time
from dataclasses import dataclass
from typing import Any, Optional, Sequence, Union

import grpc

#: Between two looks at the token's file.
_REREAD_S = 5.0

#: The channel's own work: each call goes to the next node that is connected.
_SERVICE_CONFIG: dict[str, Any] = {"loadBalancingConfig": [{"round_robin": {}}]}


@dataclass(frozen=True)
class Settings:
    """Where the nodes are, and how long to wait for them."""

    #: `10.0.0.1:9590`, several addresses of one family, or one name, which stands for all its addresses.
    servers: Union[str, Sequence[str]] = "127.0.0.1:9590"
    #: Seconds that a routing call may take: an index that answers later costs the user more than it saves.
    routing_timeout: float = 0.020
    #: Seconds that an admin call may take.
    admin_timeout: float = 5.0
    #: Sent with every call, for nodes that ask for one.
    token: Optional[str] = None
    #: The same from a file, which is read again every few seconds.
    token_file: Optional[str] = None
    #: The CA that must have signed the nodes' certificates, as PEM; with it calls are encrypted.
    ca: Optional[bytes] = None
    #: The certificate that this client shows and its private key, as PEM.
    client_certificate: Optional[tuple[bytes, bytes]] = None
    #: The name that the nodes' certificates carry; needed for several addresses.
    server_name: Optional[str] = None
    #: Largest answer taken in, in bytes; answers list every worker.
    max_answer_bytes: int = 64 << 20

    def target(self) -> str:
        """The servers as gRPC names them."""
        servers = [self.servers] if isinstance(self.servers, str) else list(self.servers)
        if not servers:
            raise ValueError("servers: none is named; one must be, such as 127.0.0.1:9590")
        families = {_family(server) for server in servers}
        if families == {4}:
            return "ipv4:" + ",".join(servers)
        if families == {6}:
            return "ipv6:" + ",".join(servers)
        if len(servers) == 1:
            return "dns:///" + servers[0]
        raise ValueError(
            f"servers: {servers} are names, or addresses of two families; several must be addresses of one family, "
            "or one name that stands for all of them"
        )

    def options(self) -> list[tuple[str, Any]]:
        """How the channel works."""
        options: list[tuple[str, Any]] = [
            ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
            ("grpc.enable_retries", 1),
            ("grpc.max_receive_message_length", self.max_answer_bytes),
            # A node that vanished without a word is noticed.
            ("grpc.keepalive_time_ms", 10_000),
            ("grpc.keepalive_timeout_ms", 5_000),
            # A node that is back is found soon.
            ("grpc.initial_reconnect_backoff_ms", 200),
            ("grpc.max_reconnect_backoff_ms", 5_000),
            ("grpc.dns_min_time_between_resolutions_ms", 5_000),
        ]
        if not isinstance(self.servers, str):
            # All of them joined, which gRPC would send, is no authority, and nodes end such calls.
            options.append(("grpc.default_authority", self.server_name or self.servers[0]))
        if self.server_name is not None:
            options.append(("grpc.ssl_target_name_override", self.server_name))
        return options

    def credentials(self) -> Optional[grpc.ChannelCredentials]:
        """What the handshake needs; None where nothing is encrypted."""
        if self.ca is None:
            if self.client_certificate is not None or self.server_name is not None:
                raise ValueError("ca: needed with client_certificate and server_name")
            return None
        certificate, key = self.client_certificate or (None, None)
        return grpc.ssl_channel_credentials(self.ca, key, certificate)


class Token:
    """The token as it goes with calls.

    A file is read when the client is made, and then again now and then by a thread of its own: no call and no event loop
    waits for it, and until it is read the token before goes along.
    """

    def __init__(self, settings: Settings) -> None:
        self._path = settings.token_file
        self._lock = threading.Lock()
        self._read_at = time.monotonic()
        self._reading = False
        self._text = settings.token.strip() if settings.token is not None else None
        if self._path is not None:
            self._text = _read(self._path)

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What every call carries."""
        if self._path is not None and self._is_due():
            reading = threading.Thread(target=self._reread, args=(self._path,), name="kvindex-token", daemon=True)
            try:
                reading.start()
            except RuntimeError:
                # No thread can be had now; a later call tries again.
                self._done()
        text = self._text
        return () if text is None else (("authorization", f"Bearer {text}"),)

    def _is_due(self) -> bool:
        with self._lock:
            if self._reading or time.monotonic() - self._read_at < _REREAD_S:
                return False
            self._reading = True
            return True

    def _reread(self, path: str) -> None:
        try:
            # A file that is being written may be empty for a moment.
            self._text = _read(path) or self._text
        except (OSError, UnicodeDecodeError):
            # The token before may still be valid.
            pass
        finally:
            self._done()

    def _done(self) -> None:
        with self._lock:
            self._read_at, self._reading = time.monotonic(), False


def _read(path: str) -> Optional[str]:
    with open(os.fspath(path), encoding="ascii") as file:
        return file.read().strip() or None


def _family(server: str) -> Optional[int]:
    host, _, port = server.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"servers: {server!r} must look like 127.0.0.1:9590, [::1]:9590 or index:9590")
    try:
        return ipaddress.ip_address(host.strip("[]")).version
    except ValueError:
        return None
