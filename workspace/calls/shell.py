"""Commands: run to their end, or as jobs in the background."""

from __future__ import annotations

from pydantic import TypeAdapter

from workspace.calls.wire import Wire, parse, segment
from workspace.models import Environment, Job, ProcessRequest, ProcessResult, Signal
from workspace.transport import asked

STDIN_SECONDS = 30.0  # how long the daemon waits for a command that reads nothing
_JOBS = TypeAdapter(list[Job])


class ShellCalls:
    """What is run in a desktop."""

    _wire: Wire

    async def run(
        self,
        command: str | list[str],
        *,
        timeout_seconds: float = 30,
        cwd: str = "/home/user",
        environment: Environment | None = None,
        stdin: str | None = None,
    ) -> ProcessResult:
        """Run a command to its end.

        Raises:
            CommandTimedOut: it was ended after ``timeout_seconds``; ``details`` hold the
                ``stdout`` and ``stderr`` that it had written.
        """
        request = asked(
            ProcessRequest,
            command=command,
            timeout_seconds=timeout_seconds,
            cwd=cwd,
            environment=environment or {},
            stdin=stdin,
        )
        return parse(ProcessResult.model_validate_json, await self._start(request))

    async def start(
        self,
        command: str | list[str],
        *,
        cwd: str = "/home/user",
        environment: Environment | None = None,
        stdin: str | None = None,
    ) -> Job:
        """Start a command in the background; poll it with :meth:`poll`."""
        request = asked(
            ProcessRequest,
            command=command,
            background=True,
            cwd=cwd,
            environment=environment or {},
            stdin=stdin,
        )
        return parse(Job.model_validate_json, await self._start(request))

    async def _start(self, request: ProcessRequest) -> bytes:
        return await self._wire.call(
            "POST",
            "/processes",
            json=request.model_dump(exclude_defaults=True),
            seconds=0 if request.background else request.timeout_seconds,
        )

    async def jobs(self) -> list[Job]:
        """The background commands, without their output."""
        return parse(_JOBS.validate_json, await self._wire.call("GET", "/processes"))

    async def poll(
        self, job: str, *, wait_seconds: float = 0, stdout_from: int = 0, stderr_from: int = 0
    ) -> Job:
        """A job and its output from those offsets on, once it ends or ``wait_seconds`` pass."""
        params = {
            "wait_seconds": wait_seconds,
            "stdout_from": stdout_from,
            "stderr_from": stderr_from,
        }
        body = await self._wire.call(
            "GET", f"/processes/{segment(job)}", params=params, seconds=wait_seconds
        )
        return parse(Job.model_validate_json, body)

    async def send_stdin(self, job: str, data: bytes, *, close: bool = False) -> None:
        await self._wire.call(
            "POST",
            f"/processes/{segment(job)}/stdin",
            content=data,
            params={"close": str(close).lower()},
            seconds=STDIN_SECONDS,
        )

    async def signal(self, job: str, signal: str = "TERM") -> None:
        """Signal a job and all that it started in its process group."""
        body = asked(Signal.model_validate, {"signal": signal})
        await self._wire.call("POST", f"/processes/{segment(job)}/signal", json=body.model_dump())

    async def forget(self, job: str) -> None:
        """Kill a job if it still runs, and drop its output."""
        await self._wire.call("DELETE", f"/processes/{segment(job)}")

    async def set_environment(self, environment: Environment) -> None:
        """Variables for every program started from now on."""
        await self._wire.call("PUT", "/environment", json=dict(environment))
