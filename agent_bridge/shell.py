"""The shell tools: shell_run starts a command and waits a while, shell_poll reads on.

A command is never ended by the tool that started it: what outlives the wait becomes a job to
poll, so nothing is lost to a client's timeout. Output is cut to what a model can take, with the
offset to read on from.
"""

from __future__ import annotations

import time
from typing import Annotated, Literal

from mcp.types import ContentBlock, TextContent
from pydantic import Field

from agent_bridge.caller import Caller
from agent_bridge.inputs import OnDesktop
from workspace.desktop import Desktop
from workspace.models import Job

MAX_WAIT_SECONDS = 45
MAX_CHARACTERS = 20_000
_STDERR_CHARACTERS = 6_000
_BEYOND = 1 << 50  # an offset that no output reaches: waiting from there is for the end alone
Wait = Annotated[float, Field(ge=0, le=MAX_WAIT_SECONDS)]
Offset = Annotated[int, Field(ge=0)]


class ShellRun(OnDesktop):
    """The arguments of shell_run."""

    command: Annotated[str, Field(min_length=1, max_length=100_000, description="run by bash")]
    timeout_seconds: Annotated[
        Wait, Field(description="how long to wait for its end; 0 starts it in the background")
    ] = 30
    cwd: str = "/home/user"


class ShellPoll(OnDesktop):
    """The arguments of shell_poll."""

    job_id: Annotated[str, Field(min_length=1, max_length=100)]
    wait_seconds: Annotated[Wait, Field(description="how long to wait for its end")] = 10
    stdout_from: Annotated[Offset, Field(description="offset to read on from")] = 0
    stderr_from: Offset = 0
    signal: Annotated[
        Literal["INT", "TERM", "KILL", "HUP"] | None, Field(description="sent to it first")
    ] = None


async def shell_run(caller: Caller, asked: ShellRun) -> list[ContentBlock]:
    desktop = caller.carrel.desktop(asked.desktop_id)
    # At the end of its input from the start: a program that reads it would wait for ever.
    job = await desktop.start(asked.command, cwd=asked.cwd, stdin="")
    if asked.timeout_seconds > 0:
        job = await _wait(desktop, job.id, asked.timeout_seconds)
    return [TextContent(type="text", text=report(job))]


async def _wait(
    desktop: Desktop, job_id: str, seconds: float, stdout_from: int = 0, stderr_from: int = 0
) -> Job:
    """The job once it ends or the time is over; a poll answers as soon as its page is full."""
    deadline = time.monotonic() + seconds
    job = await desktop.poll(
        job_id, wait_seconds=seconds, stdout_from=stdout_from, stderr_from=stderr_from
    )
    left = deadline - time.monotonic()
    if job.state == "exited" or left <= 0:
        return job
    later = await desktop.poll(job_id, wait_seconds=left, stdout_from=_BEYOND, stderr_from=_BEYOND)
    return job.model_copy(update={"state": later.state, "exit_code": later.exit_code})


async def shell_poll(caller: Caller, asked: ShellPoll) -> list[ContentBlock]:
    desktop = caller.carrel.desktop(asked.desktop_id)
    if asked.signal is not None:
        await desktop.signal(asked.job_id, asked.signal)
    job = await _wait(
        desktop, asked.job_id, asked.wait_seconds, asked.stdout_from, asked.stderr_from
    )
    return [TextContent(type="text", text=report(job))]


def report(job: Job) -> str:
    """A job as a model reads it: how it stands, its output, and how to read on."""
    stderr, stderr_next = clip(job.stderr, job.stderr_next, _STDERR_CHARACTERS)
    stdout, stdout_next = clip(job.stdout, job.stdout_next, MAX_CHARACTERS - len(stderr))
    is_cut = (stdout_next, stderr_next) != (job.stdout_next, job.stderr_next)
    poll = f"shell_poll with job_id {job.id}, stdout_from {stdout_next}, stderr_from {stderr_next}"
    if job.state == "exited":
        lines = [f"Exit code {job.exit_code}."]
        if is_cut:
            lines.append(f"There is more output: {poll}.")
    else:
        lines = [f"Still running as job {job.id}. To read on: {poll}."]
    if job.lost_bytes:
        lines.append(f"{job.lost_bytes} bytes of older output were dropped.")
    if stdout:
        lines.append(f"stdout:\n{stdout}")
    if stderr:
        lines.append(f"stderr:\n{stderr}")
    return "\n".join(lines)


def clip(text: str, following: int, limit: int) -> tuple[str, int]:
    """At most ``limit`` characters of an output, and the offset in bytes of what comes next.

    ``following`` is the offset after the whole text. An offset is exact for UTF-8; after bytes
    that are not, it may repeat or skip a few of them.
    """
    if len(text) <= limit:
        return text, following
    return text[:limit], max(0, following - len(text[limit:].encode(errors="replace")))
