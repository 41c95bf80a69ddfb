"""Waiting for a file: told of by inotify(7), and looked at again all the same every second.

What is watched is the nearest folder above the file that exists. A path whose last part has
wildcards stands for the newest file that it fits, hidden ones left out. Where inotify is not to be
had (the kernel's limits), the file is looked at more often instead.
"""

from __future__ import annotations

import asyncio
import ctypes
import fnmatch
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import NamedTuple

from workspace import waits as w
from workspace.desktopd.files import describe, shown
from workspace.desktopd.threads import in_thread
from workspace.errors import FileMissing, TimedOut
from workspace.models import FileInfo

_LOOK_SECONDS, _POLL_SECONDS = 1.0, 0.2  # with inotify, and without
_TURN_SECONDS = 0.02
_MAX_TOLD = 20
_MAX_NAMES = 100_000
_EVENT = struct.Struct("=iIII")  # the folder, what happened, a cookie, the length of a name
# IN_MODIFY, IN_ATTRIB, IN_CLOSE_WRITE, IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE,
# IN_DELETE_SELF, IN_MOVE_SELF, IN_ONLYDIR
_MASK = 0x2 | 0x4 | 0x8 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x800 | 0x01000000


class _Seen(NamedTuple):
    """A file as it was when it was looked at."""

    path: str
    size: int
    modified_ns: int


async def exists(folders: Folders, path: str, wanted: w.FileExists) -> FileInfo:
    """The file, once it is there and has not changed for ``stable_ms``."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + wanted.seconds
    stable_seconds = wanted.stable_ms / 1000
    has_pattern = any(sign in os.path.basename(path) for sign in "*?[")
    last: _Seen | None = None
    since = 0.0
    with folders.news() as news:
        while True:
            news.watch(_nearest_folder(path))
            # Here, since to wake a thread takes longer; but a folder may have very many files.
            seen = _look(path)
            if seen is None and has_pattern:
                seen = await in_thread(lambda: _newest(path))
            if seen != last:
                last, since = seen, clock()
                if seen is not None:  # it may have been still for long
                    since -= max(0.0, time.time() - seen.modified_ns / 1e9)
            due = since + stable_seconds if seen is not None else deadline
            if seen is not None and clock() >= due:
                with suppress(FileMissing):  # it has just gone: another look
                    return describe(seen.path)
            if clock() >= deadline:
                raise await in_thread(partial(_timed_out, path, seen, wanted))
            await news.next(min(due, deadline) - clock())


def _newest(path: str) -> _Seen | None:
    """The newest file that the pattern fits."""
    folder, pattern = os.path.split(path)
    fitting = [
        seen
        for name in _names(folder)
        if (pattern[0] == "." or name[0] != ".") and fnmatch.fnmatchcase(name, pattern)
        if (seen := _look(os.path.join(folder, name))) is not None
    ]
    return max(fitting, key=lambda seen: seen.modified_ns, default=None)


def _look(path: str) -> _Seen | None:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return _Seen(path, found.st_size, found.st_mtime_ns)


def _names(folder: str) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.name for _, entry in zip(range(_MAX_NAMES), entries, strict=False)]
    except OSError:
        return []


def _nearest_folder(path: str) -> str:
    folder = os.path.dirname(path)
    while not os.path.isdir(folder) and folder != "/":
        folder = os.path.dirname(folder)
    return folder


def _timed_out(path: str, seen: _Seen | None, wanted: w.FileExists) -> TimedOut:
    if seen is not None:
        return TimedOut(
            f"{shown(seen.path)} was not still for {wanted.stable_ms} ms within "
            f"{wanted.seconds:g} s.",
            hint=f"It has {seen.size} bytes and is still being written: allow more seconds.",
        )
    folder = _nearest_folder(path)
    there = [s for name in _names(folder) if (s := _look(os.path.join(folder, name))) is not None]
    there.sort(key=lambda seen: -seen.modified_ns)
    told = ", ".join(
        f"{shown(os.path.basename(each.path))[:100]!r} ({each.size} bytes)"
        for each in there[:_MAX_TOLD]
    )
    if len(there) > _MAX_TOLD:
        told += f" and {len(there) - _MAX_TOLD} more"
    is_near = folder == os.path.dirname(path)
    missing = "" if is_near else f"There is no folder {shown(os.path.dirname(path))}. "
    return TimedOut(
        f"There was no {shown(path)} within {wanted.seconds:g} s.",
        hint=f"{missing}{shown(folder)} holds, the newest first: {told or 'nothing'}.",
    )


class Folders:
    """Says that something has changed in folders, by inotify where it is to be had.

    One descriptor for all who wait, for as long as the daemon runs: to close one takes the kernel
    tens of milliseconds.
    """

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = -1
        self._news: dict[int, set[_News]] = {}  # by the number of a watched folder

    def close(self) -> None:
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    @contextmanager
    def news(self) -> Iterator[_News]:
        """The news for one who waits."""
        news = _News(self)
        try:
            yield news
        finally:
            self.leave(news)

    def join(self, news: _News, folder: str) -> int:
        """Tell ``news`` of that folder from now on; its number, or -1 if it cannot be watched."""
        if self._fd < 0:
            self._fd = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
            if self._fd >= 0:
                asyncio.get_running_loop().add_reader(self._fd, self._on_news)
        # A folder that is watched already has the same number, unless it is a new one of its name.
        found: int = self._libc.inotify_add_watch(self._fd, os.fsencode(folder), _MASK)
        if found >= 0:
            self._news.setdefault(found, set()).add(news)
        return found

    def leave(self, news: _News) -> None:
        """Tell ``news`` of its folder no more."""
        known = self._news.get(news.folder, set())
        known.discard(news)
        if news.folder in self._news and not known:
            del self._news[news.folder]
            self._libc.inotify_rm_watch(self._fd, news.folder)

    def _on_news(self) -> None:
        with suppress(BlockingIOError):
            data, at = os.read(self._fd, 65_536), 0
            while at < len(data):
                folder, _, _, length = _EVENT.unpack_from(data, at)
                at += _EVENT.size + length
                # -1: there were more than the kernel keeps.
                told = self._news.values() if folder < 0 else [self._news.get(folder, set())]
                for each in (news for some in told for news in some):
                    each.changed.set()


class _News:
    """What one who waits hears of one folder at a time."""

    def __init__(self, folders: Folders) -> None:
        self._folders = folders
        self._loop = asyncio.get_running_loop()
        self._ready_at = 0.0
        self.folder = -1
        self.changed = asyncio.Event()

    def watch(self, folder: str) -> None:
        """Hear of that folder from now on, and of no other."""
        self.changed.clear()
        found = self._folders.join(self, folder)
        if found != self.folder:
            self._folders.leave(self)
            self.folder = found

    async def next(self, seconds: float) -> None:
        """Return when something has changed, at the latest after ``seconds``."""
        look = _POLL_SECONDS if self.folder < 0 else _LOOK_SECONDS
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.changed.wait(), min(max(seconds, 0.0), look))
            # A file that is being written makes news without end.
            await asyncio.sleep(max(0.0, min(self._ready_at - self._loop.time(), seconds)))
        self._ready_at = self._loop.time() + _TURN_SECONDS
