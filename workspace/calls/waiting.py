"""Waiting for things: each method is one call, answered as soon as it is so.

All of them raise :class:`~workspace.errors.TimedOut` after ``seconds`` (50 at most), with a hint
that says what there was instead. What is so already is answered at once.
"""

from __future__ import annotations

from workspace import waits as w
from workspace.actions import Region
from workspace.calls.wire import Wire, parse
from workspace.errors import DesktopLost
from workspace.models import FileInfo
from workspace.transport import asked


class WaitCalls:
    """What can be waited for in a desktop, beside ``wait_for_window``."""

    _wire: Wire

    async def wait_for(self, wanted: w.Wait) -> w.Waited:
        """Wait for any of :mod:`workspace.waits`."""
        body = await self._wire.call(
            "POST",
            "/wait",
            content=wanted.model_dump_json(exclude_none=True),
            headers={"Content-Type": "application/json"},
            seconds=wanted.seconds,
        )
        return parse(w.Waited.model_validate_json, body)

    async def wait_for_text(self, text: str, *, seconds: float = 15) -> w.Waited:
        """Until some program shows a text; ``element`` and ``region`` say where."""
        return await self.wait_for(asked(w.TextAppears, text=text, seconds=seconds))

    async def wait_for_text_gone(self, text: str, *, seconds: float = 15) -> None:
        """Until no program shows a text."""
        await self.wait_for(asked(w.TextGone, text=text, seconds=seconds))

    async def wait_for_change(
        self, region: Region | None = None, *, seconds: float = 15
    ) -> Region | None:
        """Until a part of the screen, or all of it, looks other than now; where it does."""
        wanted = asked(w.RegionChanges, region=region, seconds=seconds)
        return (await self.wait_for(wanted)).region

    async def wait_for_rest(
        self, region: Region | None = None, *, stable_ms: int = 500, seconds: float = 15
    ) -> None:
        """Until a part of the screen, or all of it, has looked the same for ``stable_ms``."""
        await self.wait_for(
            asked(w.RegionStable, region=region, stable_ms=stable_ms, seconds=seconds)
        )

    async def wait_for_window_closed(
        self, *, title: str | None = None, window_class: str | None = None, seconds: float = 15
    ) -> None:
        """Until no window has those texts in its title and class."""
        await self.wait_for(
            asked(w.WindowCloses, title=title, window_class=window_class, seconds=seconds)
        )

    async def wait_for_file(
        self, path: str, *, stable_ms: int = 0, seconds: float = 15
    ) -> FileInfo:
        """Until a file is there and has not changed for ``stable_ms``.

        The last part of ``path`` may be a pattern, for the newest file that fits it.
        """
        found = await self.wait_for(
            asked(w.FileExists, path=path, stable_ms=stable_ms, seconds=seconds)
        )
        if found.file is None:
            raise DesktopLost("The desktop answered what no desktop says.")
        return found.file

    async def wait_for_port(self, port: int, *, seconds: float = 15) -> None:
        """Until a program listens on a TCP port of the desktop."""
        await self.wait_for(asked(w.PortListens, port=port, seconds=seconds))

    async def wait_for_exit(
        self,
        *,
        job: str | None = None,
        pid: int | None = None,
        name: str | None = None,
        seconds: float = 15,
    ) -> int | None:
        """Until a job, a process, or all processes of a name have ended; a job's exit code."""
        wanted = asked(w.ProcessEnds, job=job, pid=pid, name=name, seconds=seconds)
        return (await self.wait_for(wanted)).exit_code
