"""The Docker API over its unix socket, as Docker and Podman serve it.

The dozen calls that a desktop needs are plain JSON over HTTP, so the standard library is enough:
the ``docker`` package takes 6 MiB in each process that loads it, and there are two for each desktop
(its actor and its supervisor, which has no packages at all). Paths carry no version: either engine
takes that as its newest, and nothing is asked whose meaning has changed since 2020.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

SECONDS = 30.0
LIBPOD = "/v4.0.0/libpod"  # what Podman answers beside Docker's API
MAX_BYTES = 16 << 20
_MAX_WORDS, _PIECE_BYTES = 2000, 4096


class Away(OSError):
    """The engine does not answer, or not in HTTP."""


class Answer(NamedTuple):
    """What was answered; ``body`` is None where that was not JSON."""

    status: int
    body: Any  # Any: JSON values
    raw: bytes = b""
    server: str = ""  # the engine's name and version

    @property
    def is_done(self) -> bool:
        return self.status < 300 or self.status == 304  # 304: it was so already

    @property
    def message(self) -> str:
        """The engine's own words."""
        if isinstance(self.body, dict):
            for name in ("message", "cause"):
                if self.body.get(name):
                    return str(self.body[name])[:_MAX_WORDS]
        return self.raw[:_MAX_WORDS].decode(errors="replace").strip() or f"status {self.status}"


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str, seconds: float) -> None:
        super().__init__("engine", timeout=seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Later:
    """An answer that comes some time: ``fileno`` is readable when something of it has come."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection

    def fileno(self) -> int:
        return int(self._connection.sock.fileno())

    def piece(self) -> bytes:
        """What has come of it, its head too: engines send that long before the rest."""
        try:
            return self._connection.sock.recv(_PIECE_BYTES)
        except OSError:
            return b""

    def answer(self) -> Answer:
        """All of it.

        Raises:
            Away.
        """
        try:
            return _answer(self._connection)
        finally:
            self.close()

    def close(self) -> None:
        self._connection.close()


class Engine:
    """One engine, by the path of its socket; each call is a connection of its own, and blocks."""

    def __init__(self, path: str) -> None:
        self.path = path

    def who(self) -> tuple[str, int]:
        """Its name and version, and whose its socket is.

        Raises:
            Away.
        """
        answer = self.ask("GET", "/_ping")
        try:
            return answer.server, os.stat(self.path).st_uid
        except OSError as error:
            raise _away(self.path, error) from error

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        query: dict[str, str] | None = None,
        seconds: float = SECONDS,
    ) -> Answer:
        """
        Raises:
            Away: there is no answer, within that many seconds of silence.
        """
        return self.begin(method, path, body, query=query, seconds=seconds).answer()

    def begin(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        query: dict[str, str] | None = None,
        seconds: float = SECONDS,
    ) -> Later:
        """Ask, and take the answer once it has come.

        Raises:
            Away.
        """
        connection = _Connection(self.path, seconds)
        target = quote(path) + (f"?{urlencode(query)}" if query else "")
        data, headers = None, {"Host": "engine"}
        if body is not None:
            data, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
        try:
            connection.request(method, target, data, headers)
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise _away(self.path, error) from error
        return Later(connection)


def _answer(connection: _Connection) -> Answer:
    try:
        response = connection.getresponse()
        raw = response.read(MAX_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise _away(connection._path, error) from error
    try:
        body = json.loads(raw) if raw.lstrip()[:1] in (b"{", b"[") else None
    except (ValueError, RecursionError):
        body = None
    return Answer(response.status, body, raw, response.getheader("Server") or "")


def _away(path: str, error: Exception) -> Away:
    if isinstance(error, TimeoutError):
        return Away(f"{path} does not answer in time")
    return Away(f"{path} does not answer: {getattr(error, 'strerror', None) or error!r}")


def log_text(raw: bytes) -> str:
    """The lines of a container's log, which come in frames of eight bytes and their text."""
    text, at = bytearray(), 0
    while at + 8 <= len(raw) and raw[at] in (0, 1, 2) and raw[at + 1 : at + 4] == b"\0\0\0":
        size = int.from_bytes(raw[at + 4 : at + 8], "big")
        text += raw[at + 8 : at + 8 + size]
        at += 8 + size
    return bytes(text or raw).decode(errors="replace")
