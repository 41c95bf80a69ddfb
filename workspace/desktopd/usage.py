"""How long nobody has used or watched this desktop: counted in one place, before every route.

A request with the token starts the clock anew as it comes and as it ends, and an open one (a
WebSocket that watches, a terminal, a wait) is use for as long as it is open. Asking for the health
is not, nor is a picture for a page that shows many desktops (``passive``): else to look after a
desktop would keep it. Programs that run by themselves are no use either.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from starlette.datastructures import QueryParams
from starlette.types import ASGIApp, Receive, Scope, Send


class Usage:
    """The clock; ``now`` tells seconds that nobody can set."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._open = 0
        self._last = now()

    @contextmanager
    def used(self) -> Iterator[None]:
        """It is used as long as the block runs."""
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1
            self._last = self._now()

    @property
    def idle_seconds(self) -> float:
        """Since the last use; 0 while it is used."""
        return 0.0 if self._open else max(0.0, self._now() - self._last)


class Counted:
    """An application whose requests are counted as use."""

    def __init__(self, app: ASGIApp, usage: Usage) -> None:
        self._app = app
        self._usage = usage

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or _is_passive(scope):
            return await self._app(scope, receive, send)
        with self._usage.used():
            await self._app(scope, receive, send)


def _is_passive(scope: Scope) -> bool:
    if scope["path"] == "/screenshot":
        return QueryParams(scope["query_string"]).get("passive", "") in ("1", "true")
    return bool(scope["path"] == "/health")
