"""Waiting for processes to end, by their descriptors (pidfd_open(2)): nothing is polled.

A process that is not there has ended already. A name is that of the program or of its file, as
``ps`` shows it; all processes of that name have to end, also those that start meanwhile.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from workspace import waits as w
from workspace.desktopd.programs import from_os_error
from workspace.desktopd.shell import Shell
from workspace.errors import InvalidRequest, TimedOut

_MAX_TOLD = 20


async def end(shell: Shell, wanted: w.ProcessEnds) -> w.Waited:
    """Return once it has ended; with a job's exit code."""
    deadline = asyncio.get_running_loop().time() + wanted.seconds
    if wanted.job is not None:
        child = shell.child(wanted.job)
        try:
            await asyncio.wait_for(child.exited.wait(), wanted.seconds)
        except asyncio.TimeoutError:
            raise _timed_out(f"The job {wanted.job}", [child.pid], wanted.seconds) from None
        return w.Waited(exit_code=child.exit_code)
    if wanted.pid is not None:
        if not await _ended(wanted.pid, deadline):
            raise _timed_out(f"The process {wanted.pid}", [wanted.pid], wanted.seconds)
        return w.Waited()
    assert wanted.name is not None, "one of the three is given"
    while pids := named(wanted.name):
        if not await _ended(pids[0], deadline):
            what = f"{len(pids)} of the name {wanted.name!r}"
            raise _timed_out(what, named(wanted.name), wanted.seconds)
    return w.Waited()


async def _ended(pid: int, deadline: float) -> bool:
    """Whether the process has ended by then."""
    loop = asyncio.get_running_loop()
    is_over = asyncio.Event()
    try:
        with _descriptor(pid) as fd:
            loop.add_reader(fd, is_over.set)
            try:
                await asyncio.wait_for(is_over.wait(), max(0.0, deadline - loop.time()))
            except asyncio.TimeoutError:
                return False
            finally:
                loop.remove_reader(fd)
    except ProcessLookupError:
        pass
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            raise InvalidRequest(
                f"{pid} is a thread, not a process.", hint="Name its process."
            ) from error
        raise from_os_error(error, f"The process {pid}") from error
    return True


@contextmanager
def _descriptor(pid: int) -> Iterator[int]:
    fd = os.pidfd_open(pid)
    try:
        yield fd
    finally:
        os.close(fd)


def named(name: str) -> list[int]:
    """The living processes of that name."""
    return [int(e) for e in os.listdir("/proc") if e.isdigit() and name in _names(e)]


def _names(pid: str) -> set[str]:
    """What a process goes by; nothing if it has ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            stat = file.read()
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            first = file.read(4096).split(b"\0")[0]
    except OSError:
        return set()
    state = stat.rpartition(b")")[2].split()[:1]
    if state in ([b"Z"], [b"X"]):
        return set()
    comm = stat.partition(b"(")[2].rpartition(b")")[0]
    whole = os.path.basename(first)
    return {os.fsdecode(each) for each in (comm, whole) if each}


def _timed_out(what: str, pids: list[int], seconds: float) -> TimedOut:
    running = [f"{pid} ({_command(pid)})" for pid in pids[:_MAX_TOLD]]
    return TimedOut(
        f"{what} did not end within {seconds:g} s.",
        hint=f"Still there: {', '.join(running)}.",
    )


def _command(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            command = file.read(200)
    except OSError:
        return "ending"
    return command.replace(b"\0", b" ").decode("utf-8", "replace").strip() or "no command line"
