"""Commands: run to their end, or in the background as jobs that can be polled, fed and signalled.

A command that is waited for dies with its caller: cancelling :meth:`Shell.run` kills its group.
What it left in the background on purpose (``chromium &``) lives on. Output is kept within limits
and the rest is counted, never an error. Everything ends with the daemon.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shlex
import signal
import subprocess
from collections.abc import AsyncIterator, Callable
from typing import Literal

from workspace.desktopd.buffers import HeadTail, Ring
from workspace.desktopd.children import Child, drain, write_all
from workspace.desktopd.programs import Programs
from workspace.errors import CommandTimedOut, Conflict, NoCapacity, ProcessNotFound, TimedOut
from workspace.models import Job, ProcessRequest, ProcessResult

MAX_JOBS = 200
MAX_FOREGROUND = 64
MAX_WAIT_SECONDS = 50.0
RING_BYTES = 4 << 20
ALL_RINGS_BYTES = 64 << 20
PAGE_BYTES = 1 << 20
STDIN_SECONDS = 30.0
# How long after a command's end to wait for what still flows through its pipes.
GRACE_SECONDS = 0.2

StreamName = Literal["stdout", "stderr"]
_STREAMS: tuple[StreamName, StreamName] = ("stdout", "stderr")
_MakeRoom = Callable[[], None]


class _Run:
    """A started command with its three pipes."""

    def __init__(
        self,
        programs: Programs,
        request: ProcessRequest,
        sinks: tuple[Callable[[bytes], None], Callable[[bytes], None]],
        *,
        keeps_stdin: bool,
    ) -> None:
        has_stdin = keeps_stdin or request.stdin is not None
        ours: list[int] = []
        theirs: list[int] = []
        try:
            for reads in (True, False, False) if has_stdin else (False, False):
                read_end, write_end = os.pipe()
                ours.append(write_end if reads else read_end)
                theirs.append(read_end if reads else write_end)
            self.child = programs.start(
                request.command,
                cwd=request.cwd if "cwd" in request.model_fields_set else None,
                environment=request.environment,
                stdin=theirs[0] if has_stdin else subprocess.DEVNULL,
                stdout=theirs[-2],
                stderr=theirs[-1],
            )
        except BaseException:
            for fd in ours:
                os.close(fd)
            raise
        finally:
            for fd in theirs:
                os.close(fd)
        self._ended = [drain(ours[-2], sinks[0]), drain(ours[-1], sinks[1])]
        self._stdin: int | None = ours[0] if has_stdin else None
        self._writing = asyncio.Lock()
        if self._stdin is not None:
            os.set_blocking(self._stdin, False)

    async def wait(self) -> int:
        """The exit code, once what the command wrote has been read."""
        await self.child.exited.wait()
        reading = [asyncio.ensure_future(event.wait()) for event in self._ended]
        try:
            # A program left in the background may hold the pipes for ever. They stay open and
            # are read on, or its next line would end it.
            await asyncio.wait(reading, timeout=GRACE_SECONDS)
        finally:
            for task in reading:
                task.cancel()
        await self.close_stdin()
        assert self.child.exit_code is not None, "it has exited"
        return self.child.exit_code

    async def write(self, data: bytes) -> None:
        async with self._writing:
            if self._stdin is None:
                raise Conflict("The command's standard input is closed.")
            try:
                await write_all(self._stdin, data, STDIN_SECONDS)
            except asyncio.TimeoutError:
                raise TimedOut("The command does not read its standard input.") from None
            except OSError as error:
                raise Conflict("The command's standard input is closed.") from error

    async def close_stdin(self) -> None:
        async with self._writing:
            if self._stdin is not None:
                os.close(self._stdin)
                self._stdin = None

    async def feed(self, text: str) -> None:
        """Write ``text`` and close; a command that does not read it is not at fault."""
        try:
            await self.write(text.encode())
        except (Conflict, TimedOut):
            pass
        await self.close_stdin()


class _Job:
    """A background command and the end of what it wrote."""

    def __init__(self, programs: Programs, request: ProcessRequest, made_room: _MakeRoom) -> None:
        self.id = secrets.token_hex(5)
        command = request.command
        self.command = (command if isinstance(command, str) else shlex.join(command))[:4096]
        self.exit_code: int | None = None
        self.rings: dict[StreamName, Ring] = {name: Ring(RING_BYTES) for name in _STREAMS}
        self._made_room = made_room
        self.version = 0  # how often something has changed
        self._changed = asyncio.Event()
        self.run = _Run(
            programs, request, (self._sink("stdout"), self._sink("stderr")), keeps_stdin=True
        )
        self.tasks = [asyncio.ensure_future(self._finish())]
        if request.stdin is not None:
            self.tasks.append(asyncio.ensure_future(self.run.feed(request.stdin)))

    def _sink(self, name: StreamName) -> Callable[[bytes], None]:
        def take(data: bytes) -> None:
            self.rings[name].append(data)
            self._made_room()
            self._notify()

        return take

    async def _finish(self) -> None:
        self.exit_code = await self.run.wait()
        self._notify()

    def _notify(self) -> None:
        self.version += 1
        self._changed.set()
        self._changed = asyncio.Event()

    @property
    def is_running(self) -> bool:
        return self.exit_code is None

    async def wait_until(self, is_met: Callable[[], bool], seconds: float) -> None:
        """Return when ``is_met`` says so after a change, or after ``seconds``."""

        async def loop() -> None:
            while not is_met():
                await self._changed.wait()

        try:
            await asyncio.wait_for(loop(), seconds)
        except asyncio.TimeoutError:
            pass

    async def wait_for_change(self, seen: int, seconds: float) -> None:
        """Return when more has happened than at version ``seen``, or after ``seconds``."""
        await self.wait_until(lambda: self.version != seen, seconds)

    def read(self, name: StreamName, offset: int) -> tuple[str, int, int]:
        return self.rings[name].read(offset, PAGE_BYTES, is_complete=not self.is_running)

    def describe(self) -> Job:
        return Job(
            id=self.id,
            command=self.command,
            state="running" if self.is_running else "exited",
            exit_code=self.exit_code,
            stdout_next=self.rings["stdout"].end,
            stderr_next=self.rings["stderr"].end,
        )

    async def end(self) -> None:
        """Kill it if it runs, and wait for its end."""
        if self.run.child.exit_code is None:
            await self.run.child.end()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.run.close_stdin()
        for ring in self.rings.values():
            ring.drop(len(ring))


class Shell:
    """All commands of one desktop."""

    def __init__(self, programs: Programs) -> None:
        self._programs = programs
        self._jobs: dict[str, _Job] = {}
        self._foreground = 0

    async def run(self, request: ProcessRequest) -> ProcessResult:
        """Run a command to its end.

        Raises:
            CommandTimedOut: its group was killed; ``details`` hold ``stdout`` and ``stderr``.
            NoCapacity: too many are running. And what ``Programs.start`` raises.
        """
        if self._foreground >= MAX_FOREGROUND:
            raise NoCapacity(
                f"{MAX_FOREGROUND} commands are running.", hint="Wait for one of them to end."
            )
        self._foreground += 1
        try:
            return await self._run(request)
        finally:
            self._foreground -= 1

    async def _run(self, request: ProcessRequest) -> ProcessResult:
        out, err = HeadTail(), HeadTail()
        run = _Run(self._programs, request, (out.append, err.append), keeps_stdin=False)
        feeding = asyncio.ensure_future(run.feed(request.stdin or ""))
        try:
            code = await asyncio.wait_for(run.wait(), request.timeout_seconds)
        except asyncio.TimeoutError:
            run.child.signal(signal.SIGKILL)
            await asyncio.wait_for(run.wait(), 5)
            raise CommandTimedOut(
                f"The command did not end within {request.timeout_seconds:g} s and was killed.",
                details={"stdout": out.text(), "stderr": err.text()},
            ) from None
        finally:
            run.child.signal(signal.SIGKILL)  # nothing, unless its caller went away
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)
            await run.close_stdin()
        return ProcessResult(
            exit_code=code,
            stdout=out.text(),
            stderr=err.text(),
            truncated=bool(out.dropped or err.dropped),
        )

    # Jobs.

    async def start(self, request: ProcessRequest) -> Job:
        """Start a background command.

        Raises:
            NoCapacity: as many as can be kept are running.
        """
        if len(self._jobs) >= MAX_JOBS:
            oldest = next((job for job in self._jobs.values() if not job.is_running), None)
            if oldest is None:
                raise NoCapacity(f"{MAX_JOBS} jobs are running.", hint="End one of them first.")
            await self.forget(oldest.id)
        job = _Job(self._programs, request, self._make_room)
        self._jobs[job.id] = job
        return job.describe()

    def _make_room(self) -> None:
        """Keep the output of all jobs together within limits: the oldest loses its own first."""
        excess = sum(len(r) for job in self._jobs.values() for r in job.rings.values())
        excess -= ALL_RINGS_BYTES
        for job in self._jobs.values():
            for ring in job.rings.values():
                if excess <= 0:
                    return
                before = len(ring)
                ring.drop(excess)
                excess -= before - len(ring)

    def _job(self, job_id: str) -> _Job:
        try:
            return self._jobs[job_id]
        except KeyError:
            raise ProcessNotFound(f"There is no job {job_id[:40]!r}.") from None

    def check(self, job_id: str) -> None:
        """Raises ProcessNotFound if there is no such job."""
        self._job(job_id)

    def child(self, job_id: str) -> Child:
        """A job's process; ProcessNotFound if there is no such job."""
        return self._job(job_id).run.child

    def jobs(self) -> list[Job]:
        """All jobs, the oldest first, without their output."""
        return [job.describe() for job in self._jobs.values()]

    async def poll(
        self, job_id: str, *, wait_seconds: float, stdout_from: int, stderr_from: int
    ) -> Job:
        """A job and its output from those offsets on, a page of each at most.

        Answers when the job has ended, a page is full, or ``wait_seconds`` have passed.
        """
        job = self._job(job_id)
        starts: dict[StreamName, int] = {"stdout": stdout_from, "stderr": stderr_from}

        def is_met() -> bool:
            full = any(job.rings[name].end - starts[name] >= PAGE_BYTES for name in _STREAMS)
            return full or not job.is_running

        if wait_seconds > 0:
            await job.wait_until(is_met, min(wait_seconds, MAX_WAIT_SECONDS))
        stdout, stdout_next, stdout_lost = job.read("stdout", stdout_from)
        stderr, stderr_next, stderr_lost = job.read("stderr", stderr_from)
        return job.describe().model_copy(
            update={
                "stdout": stdout,
                "stderr": stderr,
                "stdout_next": stdout_next,
                "stderr_next": stderr_next,
                "lost_bytes": stdout_lost + stderr_lost,
            }
        )

    async def stream(
        self, job_id: str, *, stdout_from: int, stderr_from: int
    ) -> AsyncIterator[dict[str, str | int | None]]:
        """The job's output as it comes, then its exit code: the frames of the WebSocket."""
        job = self._job(job_id)
        offsets: dict[StreamName, int] = {"stdout": stdout_from, "stderr": stderr_from}
        while True:
            seen, is_over = job.version, not job.is_running
            said_something = False
            for name in _STREAMS:
                data, after, lost = job.read(name, offsets[name])
                if data or lost:
                    frame: dict[str, str | int | None] = {
                        "stream": name,
                        "data": data,
                        "next": after,
                    }
                    if lost:
                        frame["lost_bytes"] = lost
                    offsets[name] = after
                    said_something = True
                    yield frame
            if said_something:
                continue
            if is_over:
                yield {"exit_code": job.exit_code}
                return
            await job.wait_for_change(seen, MAX_WAIT_SECONDS)

    async def write_stdin(self, job_id: str, chunks: AsyncIterator[bytes], *, close: bool) -> None:
        """Write to a job's standard input.

        Raises:
            Conflict: it is closed. TimedOut: the job does not read it.
        """
        run = self._job(job_id).run
        async for chunk in chunks:
            await run.write(chunk)
        if close:
            await run.close_stdin()

    def signal(self, job_id: str, name: str) -> None:
        """Signal a job's process group.

        Raises:
            Conflict: the job has ended.
        """
        job = self._job(job_id)
        if job.run.child.exit_code is not None:
            raise Conflict(f"The job {job_id} has ended.", hint="Poll it for its exit code.")
        job.run.child.signal(signal.Signals[f"SIG{name}"])

    async def forget(self, job_id: str) -> None:
        """Kill a job if it still runs, and drop its output."""
        job = self._job(job_id)
        await job.end()
        self._jobs.pop(job_id, None)

    async def aclose(self) -> None:
        """End every job."""
        await asyncio.gather(*(job.end() for job in self._jobs.values()), return_exceptions=True)
        self._jobs.clear()
