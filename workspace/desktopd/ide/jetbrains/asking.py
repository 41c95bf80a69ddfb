"""One action of an agent as calls of the IDE's tools, in the time that the action has."""

from __future__ import annotations

import asyncio
from typing import Any

from workspace.desktopd.ide.jetbrains import tools
from workspace.desktopd.ide.jetbrains.places import text_of
from workspace.desktopd.ide.jetbrains.wire import Offer, Said, Wire
from workspace.desktopd.threads import in_thread
from workspace.errors import TimedOut

_MARGIN_SECONDS = 0.5  # that the IDE has to answer that its own time is over
_LEAST_SECONDS = 0.2


class Asking:
    """What an action may use: the tools that are there, the folder, and ``seconds``."""

    def __init__(self, wire: Wire, seconds: float, verbs: list[Any]) -> None:
        self.folder = wire.folder
        self._wire = wire
        self._verbs = verbs
        self._deadline = asyncio.get_running_loop().time() + seconds

    def left(self) -> float:
        """The seconds that are left.

        Raises:
            TimedOut: none.
        """
        left = self._deadline - asyncio.get_running_loop().time()
        if left <= 0:
            raise TimedOut("The IDE took longer than was allowed.", hint="Allow it more seconds.")
        return left

    def own_timeout(self) -> int:
        """The milliseconds that a tool is given which ends by itself: somewhat less."""
        return int(1000 * max(_LEAST_SECONDS, self.left() - _MARGIN_SECONDS))

    def has(self, *names: str) -> bool:
        return all(name in self._wire.peer.offers for name in names)

    def first(self, what: str, *names: str) -> Offer:
        """The first of these tools that the IDE has.

        Raises:
            Unsupported: it has none.
        """
        for name in names:
            if name in self._wire.peer.offers:
                return self._wire.peer.offers[name]
        raise tools.unsupported(f"{what} is not supported by this IDE.", self._verbs)

    def refuse(self, what: str) -> Exception:
        return tools.unsupported(what, self._verbs)

    async def call(self, tool: str, path: str | None = None, **more: Any) -> Said:
        """What a tool answers; parameters that it does not know are left out.

        Raises:
            CarrelError: it answered with an error, or not at all.
        """
        said = await self.attempt(tool, path, **more)
        if said.is_error:
            raise tools.failure(tool, said)
        return said

    async def attempt(self, tool: str, path: str | None = None, **more: Any) -> Said:
        """The same, errors of the tool's own among the answers."""
        offer = self._wire.peer.offers.get(tool, Offer(tool))
        arguments = tools.arguments(offer, self.folder, path, **more)
        return await self._wire.call(tool, arguments, self.left())

    async def text(self, path: str) -> str:
        """A file's text, from the disk."""
        return await in_thread(lambda: text_of(path, self.folder))
