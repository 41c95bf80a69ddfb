"""What came of a desktop's connections, told together so that no storm of them floods the log.

Filled by the proxy's thread and emptied by another. Of one kind (host, port, verdict, reason) there
is one line, however often it came; past :data:`MAX_KINDS` kinds the rest share one line each by
their verdict. What is handed out at a time, and how often, bounds the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Sequence

from workspace.egress import Connections, EgressUse

MAX_KINDS = 100
MAX_LINES = 20  # at a time

_Kind = tuple[str, int, str, str, str]


class Tally:
    """One desktop's; who empties it made it, on its own loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._some = asyncio.Event()
        self._lock = threading.Lock()
        self._kinds: dict[_Kind, list[int]] = {}
        self.open = 0
        self._allowed = self._refused = self._up = self._down = 0

    @property
    def bytes(self) -> int:
        return self._up + self._down

    def moved(self, up: int, down: int) -> None:
        """Bytes of a connection that is open; for the limit, at once."""
        self._up += up
        self._down += down

    def note(
        self,
        host: str,
        port: int,
        verdict: str,
        reason: str = "",
        *,
        up: int = 0,
        down: int = 0,
        secret: str = "",
    ) -> None:
        """A connection has ended, or a request was refused."""
        kind = (_clean(host), port, verdict, _clean(reason), secret)
        self._add(kind, (1, up, down))
        if verdict == "refused":
            self._refused += 1
        else:
            self._allowed += 1

    def _add(self, kind: _Kind, more: tuple[int, int, int]) -> None:
        with self._lock:
            if kind not in self._kinds and len(self._kinds) >= MAX_KINDS:
                kind = ("*", 0, kind[2], "too many to tell each", "")
            counts = self._kinds.setdefault(kind, [0, 0, 0])
            for index, each in enumerate(more):
                counts[index] += each
        with contextlib.suppress(RuntimeError):  # its loop has ended: nobody waits any more
            self._loop.call_soon_threadsafe(self._some.set)

    async def until_some(self) -> None:
        """Until there is something to tell."""
        while True:
            self._some.clear()
            with self._lock:
                if self._kinds:
                    return
            await self._some.wait()

    def give_back(self, lines: Sequence[Connections]) -> None:
        """What was taken and could not be told."""
        for line in lines:
            kind = (line.host, line.port, line.verdict, line.reason, line.secret)
            self._add(kind, (line.count, line.bytes_up, line.bytes_down))

    def take(self) -> Sequence[Connections]:
        """The next lines, each of which is told once; the kinds that came most often first."""
        with self._lock:
            most = sorted(self._kinds, key=lambda kind: -self._kinds[kind][0])[:MAX_LINES]
            taken = [(kind, self._kinds.pop(kind)) for kind in most]
        return [
            Connections.model_validate(
                {
                    "host": host,
                    "port": port,
                    "verdict": verdict,
                    "reason": reason,
                    "count": count,
                    "bytes_up": up,
                    "bytes_down": down,
                    "secret": secret,
                }
            )
            for (host, port, verdict, reason, secret), (count, up, down) in taken
        ]

    @property
    def use(self) -> EgressUse:
        return EgressUse(
            open=self.open,
            allowed=self._allowed,
            refused=self._refused,
            bytes_up=self._up,
            bytes_down=self._down,
        )


def _clean(text: str) -> str:
    """What a sandbox made us say: bounded, and printable."""
    return "".join(c if c.isprintable() else "?" for c in text[:300])
