"""The wire to one desktop: paths below its prefix, answers limited in size and parsed into models.

On failure: :class:`~workspace.errors.DesktopLost` (the connection broke, or what came is nothing
that a desktop says), :class:`~workspace.errors.TimedOut`, or the error that was answered. Nothing
is retried.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar
from urllib.parse import quote

import httpx

from workspace import transport
from workspace.errors import DesktopLost

# How long past the work it was asked for a desktop may take to answer.
GRACE_SECONDS = 15.0
T = TypeVar("T")


class Wire:
    """``http`` below ``prefix``; ``options`` are httpx's own, ``seconds`` what the work takes."""

    # Any, below: httpx's own request options.
    def __init__(self, http: Callable[[], httpx.AsyncClient], prefix: str = "") -> None:
        """``http`` is called once, by the first request: a client takes long to make."""
        self._make = http
        self._made: httpx.AsyncClient | None = None
        self._prefix = prefix

    @property
    def _http(self) -> httpx.AsyncClient:
        if self._made is None:
            self._made = self._make()
        return self._made

    async def aclose(self) -> None:
        """Close its client, if there ever was one."""
        if self._made is not None:
            await self._made.aclose()

    async def call(self, method: str, path: str, *, seconds: float = 0, **options: Any) -> bytes:
        """The answer's body."""
        return (await self.answer(method, path, seconds=seconds, **options))[1]

    async def answer(
        self, method: str, path: str, *, seconds: float = 0, **options: Any
    ) -> tuple[httpx.Response, bytes]:
        """The answer's head, and its body."""
        timeout = transport.timeout(seconds + GRACE_SECONDS)
        return await transport.answer(
            self._http, method, self._prefix + path, timeout=timeout, **options
        )

    def stream(
        self, method: str, path: str, **options: Any
    ) -> AbstractAsyncContextManager[httpx.Response]:
        """An answer whose body is still to be read."""
        timeout = transport.timeout(GRACE_SECONDS)
        return transport.stream(self._http, method, self._prefix + path, timeout=timeout, **options)


def parse(read: Callable[[bytes], T], body: bytes) -> T:
    """What ``read`` makes of an answer.

    Raises:
        DesktopLost: it is none that a desktop gives.
    """
    try:
        return read(body)
    except ValueError as error:  # not its text: that repeats what the desktop said
        raise DesktopLost("The desktop answered what no desktop says.") from error


def segment(text: str) -> str:
    """``text`` as one part of a path."""
    # Dots too: as ".." it would be another path.
    return quote(text, safe="").replace(".", "%2E")
