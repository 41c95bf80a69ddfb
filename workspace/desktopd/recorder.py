"""Recordings: what happens on the screen, as an MP4 that any player shows.

Frames go to one ffmpeg, at low priority, when the screen or the pointer has changed, ``fps`` a
second at most; while nothing changes there are none, and the one before lasts as long as it did.
The file is written in fragments, each when a frame comes a second or more after its first, and can
be played as far as it got, however the recorder ended. A screen that changes its size meanwhile is
fitted into the size of the start.

On failure: a disk that fills up, a limit that is reached or an ffmpeg that dies end the recording;
:attr:`Recording.reason` says which, and what was written stays. It lies hidden in the home folder,
under that folder's limit, until the next recording or its removal.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import shutil
import signal
import time
from contextlib import suppress
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from workspace.desktopd.children import Child, drain, write_all
from workspace.desktopd.files import Files, OpenFile
from workspace.desktopd.programs import Programs
from workspace.errors import Conflict, DesktopLost, DiskFull, NotFound, Unavailable, Unsupported
from workspace.models import Recording, RecordingRequest

if TYPE_CHECKING:
    from workspace.desktopd.x11.filming import Film

logger = logging.getLogger(__name__)

FOLDER = ".cache/carrel"
NAME = "recording.mp4"
MIN_ROOM_BYTES = 8 << 20  # with less than this it is not begun
_SPARE_BYTES = 4 << 20  # of the disk, that a recording leaves free
_WRITE_SECONDS = 20.0  # for ffmpeg to take a frame
_END_SECONDS = 15.0  # for ffmpeg to end its file
_CLOSE_SECONDS = 3.0  # for both, when the desktop ends
_SIZE_SECONDS = 1.0  # between two looks at how large it has become
_TAIL_BYTES = 2000
_F_SETPIPE_SZ = 1031  # fcntl.h; Python names it since 3.10, where the system has it
_PIPE_BYTES = 1 << 20  # what the kernel lets anybody have
# Moments are told in sixtieths of a second: finer than any fps here, and no level of H.264 that
# players refuse.
_MOMENTS = "60"
_EVEN_YUV = (
    "scale=out_color_matrix=bt709:out_range=tv,format=yuv420p,"
    "pad=width=ceil(iw/2)*2:height=ceil(ih/2)*2"
)


def _command(ffmpeg: str, size: tuple[int, int], path: str) -> list[str]:
    return [
        *("nice", "-n", "10", ffmpeg, "-hide_banner", "-nostdin", "-loglevel", "error", "-y"),
        *("-probesize", "32", "-analyzeduration", "0", "-f", "rawvideo", "-pix_fmt", "bgr0"),
        *("-video_size", f"{size[0]}x{size[1]}", "-framerate", _MOMENTS),
        *("-use_wallclock_as_timestamps", "1", "-i", "pipe:0", "-vf", _EVEN_YUV, "-vsync", "vfr"),
        # Nothing is held back for the frames to come: they may be minutes away.
        *("-c:v", "libx264", "-preset", "veryfast", "-tune", "zerolatency", "-threads", "1"),
        *("-crf", "23", "-force_key_frames", "expr:gte(t,n_forced*30)"),
        *("-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709"),
        *("-movflags", "+frag_keyframe+empty_moov+default_base_moof", "-frag_duration", "1000000"),
        *("-flush_packets", "1", "-f", "mp4", path),
    ]


class _Take:
    """One recording, from when it is made; ``over`` is set when its file is complete."""

    def __init__(
        self, film: Film, child: Child, stdin: int, path: str, room: int, request: RecordingRequest
    ) -> None:
        self._film = film
        self._child = child
        self._stdin = stdin
        self._path = path
        self._most_bytes = min(room, request.max_mib << 20)
        self._request = request
        self._frames = 0
        self._began = time.monotonic()
        self._began_at = datetime.now(timezone.utc)
        self._ended: float | None = None
        self._stopping = asyncio.Event()
        self._reason = ""
        self.said = bytearray()  # the end of what ffmpeg wrote
        self.task = asyncio.ensure_future(self._run())

    def describe(self) -> Recording:
        ended = time.monotonic() if self._ended is None else self._ended
        return Recording(
            state="recording" if not self.task.done() else "finished",
            reason=self._reason if self.task.done() else "",
            started_at=self._began_at,
            seconds=round(ended - self._began, 3),
            frames=self._frames,
            size=self._size(),
            width=self._film.size[0],
            height=self._film.size[1],
            fps=self._request.fps,
        )

    def _size(self) -> int:
        try:
            return os.stat(self._path).st_size
        except OSError:
            return 0

    async def stop(self) -> None:
        """End it, and wait for its file; doing so again does nothing."""
        self._stopping.set()
        await asyncio.shield(self.task)

    async def close(self) -> None:
        """End it soon, with what of its file is written by then: a busy encoder takes long."""
        self._stopping.set()
        done, _ = await asyncio.wait([self.task], timeout=_CLOSE_SECONDS)
        if not done:
            self._child.signal(signal.SIGKILL)
            await self.stop()

    async def _run(self) -> None:
        try:
            self._reason = await self._record()
        except (OSError, asyncio.TimeoutError):
            self._reason = "encoder_failed"  # it reads no more
        except DesktopLost:
            self._reason = "desktop_lost"
        finally:
            self._ended = time.monotonic()
            os.close(self._stdin)
            await self._wait_for_encoder()
            self._film.end()

    async def _record(self) -> str:
        """Pass frames on until it is to end; why it did."""
        loop = asyncio.get_running_loop()
        tick, looked = loop.time(), 0.0
        reason = ""
        while not reason:
            await self._pass_on()
            now = loop.time()
            tick = max(tick + 1 / self._request.fps, now)
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), tick - now)
            if now - looked > _SIZE_SECONDS:
                looked, reason = now, "max_size" if self._size() > self._most_bytes else ""
            if time.monotonic() - self._began > self._request.max_seconds:
                reason = "max_seconds"
            if self._stopping.is_set():
                reason = "stopped"
            if self._child.exit_code is not None:
                return "encoder_failed"
        self._film.again()  # so that the last frame lasts until now
        await self._pass_on()
        return reason

    async def _pass_on(self) -> None:
        try:
            frame = self._film.frame()
        except Unavailable:  # the screen is being resized
            return
        if frame is not None:
            await write_all(self._stdin, frame, _WRITE_SECONDS)
            self._frames += 1

    async def _wait_for_encoder(self) -> None:
        try:
            await asyncio.wait_for(self._child.exited.wait(), _END_SECONDS)
        except asyncio.TimeoutError:
            logger.error("ffmpeg did not end its file.")
            with suppress(asyncio.TimeoutError):
                await self._child.end()
        if self._child.exit_code:
            said = self.said.decode("utf-8", "replace").strip()
            logger.error("ffmpeg ended with %s: %s", self._child.exit_code, said)
            is_full = "No space left" in said or "quota exceeded" in said
            self._reason = "disk_full" if is_full else "encoder_failed"


class Recorder:
    """The recording of one desktop, one at a time; end it with ``aclose``."""

    def __init__(self, programs: Programs, files: Files) -> None:
        self._programs = programs
        self._files = files
        self._path = os.path.join(files.home, FOLDER, NAME)
        self._take: _Take | None = None
        self._turn = asyncio.Lock()

    async def start(self, film: Film, request: RecordingRequest) -> Recording:
        """Begin to record; the recording before is gone then.

        Raises:
            Conflict: one runs already. Unsupported: there is no ffmpeg. DiskFull: no room for it.
        """
        async with self._turn:
            if self._take is not None and not self._take.task.done():
                raise Conflict("The desktop is being recorded.", hint="Stop that recording first.")
            await self._remove()
            self._take = await self._begin(film, request)
            return self._take.describe()

    async def _begin(self, film: Film, request: RecordingRequest) -> _Take:
        ffmpeg = shutil.which("ffmpeg", path=self._programs.environment.get("PATH"))
        if ffmpeg is None:
            raise Unsupported(
                "This desktop has no ffmpeg to record with.",
                hint="Install the package ffmpeg on the node.",
            )
        room = await self._files.room(self._path) - _SPARE_BYTES
        if room < MIN_ROOM_BYTES:
            raise DiskFull("The home folder has no room for a recording.")
        stdin, ours = os.pipe()
        stderr, theirs = os.pipe()
        try:
            command = _command(ffmpeg, film.begin(), self._path)
            child = self._programs.start(command, stdin=stdin, stderr=theirs)
        except BaseException:
            os.close(ours)
            os.close(stderr)
            raise
        finally:
            os.close(stdin)
            os.close(theirs)
        os.set_blocking(ours, False)
        with suppress(OSError):  # fewer, larger writes; where it is forbidden it is slower
            fcntl.fcntl(ours, _F_SETPIPE_SZ, _PIPE_BYTES)
        take = _Take(film, child, ours, self._path, room, request)

        def hear(data: bytes) -> None:
            take.said += data
            del take.said[:-_TAIL_BYTES]

        drain(stderr, hear)
        return take

    def _current(self) -> _Take:
        if self._take is None:
            raise NotFound("There is no recording.", hint="Start one: POST .../recording.")
        return self._take

    def status(self) -> Recording:
        """The recording that runs, or the last; NotFound if there is none."""
        return self._current().describe()

    async def stop(self) -> Recording:
        """End the recording; one that has ended is told of again. NotFound if there is none."""
        take = self._current()
        await take.stop()
        return take.describe()

    async def open(self) -> OpenFile:
        """The recording's file.

        Raises:
            NotFound: there is none. Conflict: it is still being recorded.
        """
        if not self._current().task.done():
            raise Conflict("The desktop is still being recorded.", hint="Stop it first.")
        return await self._files.open(self._path)

    async def forget(self) -> None:
        """End the recording if it runs, and remove it. NotFound if there is none."""
        self._current()
        async with self._turn:
            await self._remove()

    async def _remove(self) -> None:
        take, self._take = self._take, None
        if take is not None:
            await take.stop()
            with suppress(NotFound):
                await self._files.remove(self._path, recursive=False)

    async def aclose(self) -> None:
        """End what runs, within seconds; its file stays as far as it got."""
        if self._take is not None:
            await self._take.close()
