"""The files that pages have the browser save, as the browser tells of them.

Where they lie is the browser's own choice (``~/Downloads``), as for a person. One that would fill
the home folder past its limit, or the disk, is cancelled and says so: a desktop whose home is too
full is ended.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from workspace import browsing as b
from workspace.desktopd.files import Files
from workspace.errors import FileMissing

if TYPE_CHECKING:
    from playwright.async_api import CDPSession

logger = logging.getLogger(__name__)

MAX_KEPT = 200
SPARE_BYTES = 64 << 20
_CANCEL_SECONDS = 2.0


class Downloads:
    """Those of one desktop. ``note`` is told when one begins and ends."""

    def __init__(self, files: Files, note: Callable[[str], None]) -> None:
        self._files = files
        self._note = note
        self._known: OrderedDict[str, b.Download] = OrderedDict()
        self._by_guid: dict[str, str] = {}
        self._room: dict[str, int] = {}
        self._next = 1
        self._cdp: CDPSession | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def follow(self, cdp: CDPSession) -> None:
        """Follow those of a browser from now on."""
        self._cdp = cdp
        cdp.on("Browser.downloadWillBegin", self._on_begin)
        cdp.on("Browser.downloadProgress", self._on_progress)
        await cdp.send(
            "Browser.setDownloadBehavior", {"behavior": "default", "eventsEnabled": True}
        )

    def listed(self) -> list[b.Download]:
        """The last of them, oldest first."""
        return list(self._known.values())

    async def cancel(self, id_: str, why: str = "it was asked for") -> b.Download:
        """
        Raises:
            FileMissing: there is no such download.
        """
        known = self._known.get(id_)
        if known is None:
            raise FileMissing(f"There is no download {id_!r}.", hint="List the downloads.")
        guid = next((guid for guid, each in self._by_guid.items() if each == id_), None)
        if known.state == "running" and guid is not None and self._cdp is not None:
            self._change(id_, state="cancelled", why=why)
            with suppress(Exception):  # it may be over
                cancelling = self._cdp.send("Browser.cancelDownload", {"guid": guid})
                await asyncio.wait_for(cancelling, _CANCEL_SECONDS)
        return self._known[id_]

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()

    def _on_begin(self, told: dict[str, Any]) -> None:  # Any: CDP's JSON
        id_, self._next = f"d{self._next}", self._next + 1
        name = os.path.basename(str(told.get("suggestedFilename", "")))[:255] or "download"
        self._known[id_] = b.Download(
            id=id_, name=name, url=str(told.get("url", ""))[:2000], state="running"
        )
        self._by_guid[str(told.get("guid"))] = id_
        while len(self._known) > MAX_KEPT:
            gone, _ = self._known.popitem(last=False)
            self._by_guid = {guid: each for guid, each in self._by_guid.items() if each != gone}
            self._room.pop(gone, None)
        self._note(f"A download has begun: {id_}, {name!r}.")
        self._start(self._measure(id_))

    def _on_progress(self, told: dict[str, Any]) -> None:  # Any: as above
        id_ = self._by_guid.get(str(told.get("guid")))
        known = self._known.get(id_ or "")
        if id_ is None or known is None:
            return
        received, total = _whole(told.get("receivedBytes")), _whole(told.get("totalBytes"))
        self._change(id_, received_bytes=received, total_bytes=total or known.total_bytes)
        state = told.get("state")
        if state == "completed":
            path = told.get("filePath")
            self._change(id_, state="completed", path=path if isinstance(path, str) else None)
            self._note(f"Download {id_} is complete: {self._known[id_].path}.")
        elif state == "canceled" and known.state == "running":
            self._change(id_, state="cancelled", why=known.why or "the browser or a person did")
            self._note(f"Download {id_} was cancelled.")
        elif known.state == "running":
            self._start(self._check(id_))

    async def _measure(self, id_: str) -> None:
        self._room[id_] = await self._files.room("download") - SPARE_BYTES
        await self._check(id_)

    async def _check(self, id_: str) -> None:
        known, room = self._known.get(id_), self._room.get(id_)
        if known is None or room is None or known.state != "running":
            return
        running = sum(
            each.received_bytes for each in self._known.values() if each.state == "running"
        )
        size = max(known.total_bytes or 0, running)
        if size > room:
            why = f"{size >> 20} MiB do not fit: there is room for {max(0, room) >> 20} MiB"
            self._note(f"Download {id_} was cancelled: {why}.")
            await self.cancel(id_, why)

    def _start(self, work: Any) -> None:  # Any: a coroutine
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _change(self, id_: str, **changes: object) -> None:
        self._known[id_] = self._known[id_].model_copy(update=changes)


def _whole(value: object) -> int:
    return int(value) if isinstance(value, int | float) and 0 <= value < 1 << 60 else 0
