"""What came of a desktop's connections, told together so that no storm of them floods the log.

Filled by the proxy's thread and emptied by another. Of one kind (host, port, verdict, reason) there
is one line, however often it came; past :data:`MAX_KINDS` kinds the rest share one line each by
their verdict. What is handed out at a time, and how often, bounds the log.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from workspace.egress import Connections, EgressUse

MAX_KINDS = 100
MAX_LINES = 20  # at a time

_Kind = tuple[str, int, str, str, str]


class Tally:
    """One desktop's. ``arrived`` is called when there is something to tell, by any thread."""

    def __init__(self, arrived: Callable[[], None] = lambda: None) -> None:
        self._arrived = arrived
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
        with self._lock:
            if kind not in self._kinds and len(self._kinds) >= MAX_KINDS:
                kind = ("*", 0, verdict, "too many to tell each", "")
            counts = self._kinds.setdefault(kind, [0, 0, 0])
            for index, more in enumerate((1, up, down)):
                counts[index] += more
            if verdict == "refused":
                self._refused += 1
            else:
                self._allowed += 1
        self._arrived()

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
