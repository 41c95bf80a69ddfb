"""Recordings of the screen."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from os import PathLike

import anyio

from workspace.calls.wire import Wire, parse
from workspace.models import Recording, RecordingRequest
from workspace.transport import asked

STOP_SECONDS = 20.0  # for the recorder to end its file
KEEP_SECONDS = 600.0  # and for all of it to be kept


class RecordingCalls:
    """A desktop's recording, of which there is one at a time."""

    _wire: Wire

    async def start_recording(
        self, *, fps: int = 15, max_seconds: float = 600, max_mib: int = 256
    ) -> Recording:
        """Record the screen as an MP4, until it is stopped or reaches a limit.

        Raises:
            Conflict: one runs already. Unsupported: the desktop has no ffmpeg. DiskFull.
        """
        wanted = asked(RecordingRequest, fps=fps, max_seconds=max_seconds, max_mib=max_mib)
        return self._told(await self._wire.call("POST", "/recording", json=wanted.model_dump()))

    async def recording(self) -> Recording:
        """The recording that runs, or the last one; NotFound if there is none."""
        return self._told(await self._wire.call("GET", "/recording"))

    async def stop_recording(self, *, keep: bool = False) -> Recording:
        """End the recording; its file is complete then.

        With ``keep`` the controller keeps it as an artifact (``Recording.artifact`` is its id),
        which outlives the desktop.

        Raises:
            TooLarge, DiskFull, Unavailable: it cannot be kept; in the desktop it stays as it is.
        """
        params = {"keep": "true"} if keep else {}
        seconds = KEEP_SECONDS if keep else STOP_SECONDS
        return self._told(
            await self._wire.call("POST", "/recording/stop", params=params, seconds=seconds)
        )

    @staticmethod
    def _told(body: bytes) -> Recording:
        return parse(Recording.model_validate_json, body)

    def open_recording(self) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The file's bytes as they come: ``async with desktop.open_recording() as chunks``."""
        return self._film()

    @asynccontextmanager
    async def _film(self) -> AsyncIterator[AsyncIterator[bytes]]:
        async with self._wire.stream("GET", "/recording/file") as response:
            yield response.aiter_bytes()

    async def save_recording(self, path: str | PathLike[str]) -> int:
        """Stop the recording if it runs, and write it to a file here; its size in bytes."""
        await self.stop_recording()
        size = 0
        async with self.open_recording() as chunks, await anyio.open_file(path, "wb") as file:
            async for chunk in chunks:
                size += await file.write(chunk)
        return size

    async def remove_recording(self) -> None:
        """End the recording if it runs, and remove its file from the desktop."""
        await self._wire.call("DELETE", "/recording", seconds=STOP_SECONDS)
