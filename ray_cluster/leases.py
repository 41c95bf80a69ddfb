"""Leases: a desktop's actor asks the controllers, over HTTP, whether it is still wanted.

Not through Ray, whose word says nothing of what the controllers know: a node that Ray has given up
may go on running desktops beside their successors, and a claim's one call to its actor may be lost.
So each actor asks every :attr:`Lease.renew_seconds`, whichever controller answers:

- it is wanted: the answer may say until when, by the controllers' belief, and the actor takes that
  over (see :class:`Belief`);
- it is not (410 with a controller's own error): the sandbox ends at once, as ``lease_refused``;
- nothing, or nothing that only a controller says: it lives on until that has lasted
  :attr:`Lease.grace_seconds` on the monotonic clock, and ends then, as ``lease_lost``. The grace is
  longer than any failover, so that one that comes back finds its desktops.

The controllers' secret never leaves them: an actor is given the token of its own sandbox alone. The
client is a few lines over asyncio, because every desktop pays for what its actor imports; what
comes is limited in size and in time.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import random
import time
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

PATH, CONNECTIONS = "/v1/leases/", "/connections"
# 10,000 desktops then ask 333 times a second: a fifth of one core of a controller.
RENEW_SECONDS = 30.0
GRACE_SECONDS = 300.0
ASK_SECONDS = 5.0  # one controller
_JITTER = 0.2  # of the time between, so that what started together does not ask together
_MAX_ANSWER_BYTES = 16 << 10
_REFUSED = "workspace_ended"  # the code of the errors that mean it

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Lease:
    """Who is asked, and how often. ``secret`` signs the tokens; all controllers have the same.

    A URL ``file:///path`` is one that this file of the actor's node holds when it is asked: a
    controller of the same machine may come back on another port.
    """

    urls: Sequence[str]
    secret: bytes
    grace_seconds: float = GRACE_SECONDS
    renew_seconds: float = RENEW_SECONDS

    def __repr__(self) -> str:  # never the secret
        return f"Lease(urls={list(self.urls)})"

    def terms(self, sandbox: str) -> dict[str, Any]:  # Any: JSON values
        """What the actor of a sandbox is given: plain JSON, without the secret."""
        return {
            "urls": list(self.urls),
            "token": token(self.secret, sandbox),
            "grace_seconds": self.grace_seconds,
            "renew_seconds": self.renew_seconds,
        }


def token(secret: bytes, sandbox: str) -> str:
    """What proves that its holder is that sandbox's actor."""
    mac = hmac.digest(secret, b"lease " + sandbox.encode(), "sha256")
    return urlsafe_b64encode(mac).decode().rstrip("=")


class Renewed(NamedTuple):
    """It is wanted, for so long by the controllers' belief; None: for as long as it has."""

    ttl_seconds: float | None


class Refused(NamedTuple):
    """It is not wanted any more."""

    message: str


class Silent(NamedTuple):
    """No controller answered, or none that could tell."""

    why: str


Answer = Renewed | Refused | Silent


class Belief:
    """When the controllers' belief of a deadline is taken over.

    A call to the actor may have moved the deadline while the controllers still tell the one before.
    A later deadline does no harm and is taken over at once. An earlier one is, only if no call came
    since the answer before this one: by then every controller knew of it.
    """

    def __init__(self) -> None:
        self._last_changes = -1

    def counts(self, ttl_seconds: float, *, remaining: float, changes: int) -> bool:
        """``changes``: how many calls have moved the deadline until now."""
        is_quiet = changes == self._last_changes
        self._last_changes = changes
        return ttl_seconds >= remaining or is_quiet


class Renewal:
    """Asks until the lease is over. The clock, the waits and the asking are given by tests."""

    def __init__(
        self,
        ask: Callable[[], Awaitable[Answer]],
        take: Callable[[float], None],
        *,
        grace_seconds: float,
        renew_seconds: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._ask = ask
        self._take = take
        self._grace = grace_seconds
        self._renew = renew_seconds
        self._clock = clock
        self._sleep = sleep
        self._jitter = jitter

    async def run(self) -> tuple[Literal["lease_refused", "lease_lost"], str]:
        """Renew it until it cannot be any more; why."""
        heard_at = self._clock()
        wait = self._renew * self._jitter()  # the first of many that were started together
        while True:
            left = heard_at + self._grace - self._clock()
            await self._sleep(max(0.0, min(wait, left)))
            try:
                answer = await self._ask()
            except Exception as error:  # a defect of ours is no reason to live on for ever
                log.exception("renewing a lease")
                answer = Silent(repr(error))
            wait = self._renew * (1 + _JITTER * (2 * self._jitter() - 1))
            if isinstance(answer, Refused):
                return "lease_refused", answer.message
            if isinstance(answer, Renewed):
                heard_at = self._clock()
                if answer.ttl_seconds is not None:
                    self._take(answer.ttl_seconds)
                continue
            silence = self._clock() - heard_at
            log.warning("no controller has answered for %.0f s: %s", silence, answer.why)
            if silence >= self._grace:
                message = f"No controller answered for {silence:.0f} seconds: {answer.why}"
                return "lease_lost", message


class Controllers:
    """The controllers of a lease: the one that answered last is asked first."""

    def __init__(self, urls: Sequence[str], sandbox: str, token: str) -> None:
        self._urls = list(urls)
        self._sandbox = sandbox
        self._token = token

    async def ask(self, state: str, remaining_seconds: float) -> Answer:
        """Tell one of them how it is, and hear what it says. Takes ASK_SECONDS for each at most."""
        said = {"state": state, "remaining_seconds": round(remaining_seconds, 3)}
        return await self._say("", json.dumps(said).encode())

    async def tell_connections(self, lines: bytes) -> bool:
        """What came of its connections, as JSON; whether that was heard."""
        return not isinstance(await self._say(CONNECTIONS, lines), Silent)

    async def _say(self, path: str, body: bytes) -> Answer:
        why = "there is none to ask"
        for url in tuple(self._urls):
            try:
                posting = self._post(_address(url), path, body)
                answer = await asyncio.wait_for(posting, ASK_SECONDS)
            except asyncio.TimeoutError:
                why = f"{url} took longer than {ASK_SECONDS:.0f} s"
                continue
            except (OSError, ValueError, EOFError, asyncio.LimitOverrunError) as error:
                why = f"{url}: {error}"
                continue
            if not isinstance(answer, Silent):
                self._urls.remove(url)
                self._urls.insert(0, url)
                return answer
            why = f"{url}: {answer.why}"
        return Silent(why[:500])

    async def _post(self, url: str, path: str, body: bytes) -> Answer:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("that is no http address")
        is_tls = parts.scheme == "https"
        reader, writer = await asyncio.open_connection(
            parts.hostname,
            parts.port or (443 if is_tls else 80),
            ssl=True if is_tls else None,
            limit=_MAX_ANSWER_BYTES,
        )
        try:
            # HTTP/1.0: its answer has one length, or ends with the connection; it has no chunks.
            writer.write(
                f"POST {parts.path.rstrip('/')}{PATH}{self._sandbox}{path} HTTP/1.0\r\n"
                f"Host: {parts.netloc}\r\n"
                f"Authorization: Bearer {self._token}\r\n"
                "Content-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\n\r\n".encode("latin-1")
                + body
            )
            await writer.drain()
            head = await reader.readuntil(b"\r\n\r\n")
            return judge(*await _read(head, reader))
        finally:
            writer.transport.abort()


def _address(url: str) -> str:
    """``url``, or what the file says that it names; OSError and ValueError if it says nothing."""
    if not url.startswith("file://"):
        return url
    with open(url.removeprefix("file://"), "rb") as file:
        return file.read(1000).decode("ascii").strip()


async def _read(head: bytes, reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Status and body: of the length that is said, else to the end."""
    first, *lines = head.decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    if not version.startswith("HTTP/1.") or not rest[:3].isdecimal():
        raise ValueError("what it says is not HTTP")
    length = -1
    for line in lines:
        name, _, value = line.partition(":")
        if name.lower() == "content-length" and value.strip().isdecimal():
            length = int(value)
    if length > _MAX_ANSWER_BYTES:
        raise ValueError("its answer is too long")
    body = await (reader.readexactly(length) if length >= 0 else reader.read(_MAX_ANSWER_BYTES))
    return int(rest[:3]), body


def judge(status: int, body: bytes) -> Answer:
    """What an answer means; what no controller would say means nothing."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        return Silent(f"status {status}, and not a controller's words")
    if status == 410 and said.get("code") == _REFUSED:
        return Refused(str(said.get("message", ""))[:1000] or "Nobody wants it any more.")
    if status == 200 and "ttl_seconds" in said:
        ttl = said["ttl_seconds"]
        is_time = isinstance(ttl, int | float) and not isinstance(ttl, bool) and 0 <= ttl < 1e9
        if ttl is None or is_time:
            return Renewed(None if ttl is None else float(ttl))
    return Silent(f"status {status}: {str(said.get('message', said))[:200]}")
