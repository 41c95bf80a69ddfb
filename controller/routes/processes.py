"""Commands in a desktop: run to their end, or as jobs in the background."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Query, Request

from controller.answers import BYTES, OF_DESKTOP
from controller.routes import Id, desktop, recorded
from controller.streams import until_gone
from workspace.models import Environment, Job, ProcessRequest, ProcessResult, Signal

router = APIRouter(prefix="/v1/workspaces/{workspace_id}", tags=["processes"], responses=OF_DESKTOP)
TOLD = 500  # so many characters of a command are in the log
_EXAMPLES = {
    "run": {"value": {"command": "ls -l", "timeout_seconds": 30}},
    "background": {"value": {"command": ["sleep", "60"], "background": True}},
}
Offset = Annotated[int, Query(ge=0, description="bytes")]


@router.post("/processes")
async def run(
    request: Request,
    workspace_id: Id,
    body: Annotated[ProcessRequest, Body(openapi_examples=_EXAMPLES)],
) -> ProcessResult | Job:
    """Run a command to its end, or start it in the background as a job to poll."""
    target = await desktop(request, workspace_id)
    command = body.command if isinstance(body.command, str) else " ".join(body.command)

    async def play() -> ProcessResult | Job:
        async with recorded(request, workspace_id, "process", command=command[:TOLD]) as told:
            if body.background:
                job = await target.start(
                    body.command, cwd=body.cwd, environment=body.environment, stdin=body.stdin
                )
                told["job"] = job.id
                return job
            result = await target.run(
                body.command,
                timeout_seconds=body.timeout_seconds,
                cwd=body.cwd,
                environment=body.environment,
                stdin=body.stdin,
            )
            told["exit_code"] = result.exit_code
            return result

    return await until_gone(request.receive, play())


@router.get("/processes")
async def jobs(request: Request, workspace_id: Id) -> list[Job]:
    """The background commands, without their output."""
    return await (await desktop(request, workspace_id)).jobs()


@router.get("/processes/{job}")
async def poll(
    request: Request,
    workspace_id: Id,
    job: str,
    wait_seconds: Annotated[float, Query(ge=0, le=60)] = 0,
    stdout_from: Offset = 0,
    stderr_from: Offset = 0,
) -> Job:
    """A job and its output from those offsets on, once it ends or ``wait_seconds`` pass."""
    target = await desktop(request, workspace_id)
    polling = target.poll(
        job, wait_seconds=wait_seconds, stdout_from=stdout_from, stderr_from=stderr_from
    )
    return await until_gone(request.receive, polling)


@router.post("/processes/{job}/stdin", status_code=204, openapi_extra=BYTES)
async def stdin(request: Request, workspace_id: Id, job: str, close: bool = False) -> None:
    """Write the body's bytes to a job's standard input; ``close`` ends it."""
    target, data = await desktop(request, workspace_id), await request.body()
    async with recorded(request, workspace_id, "stdin", job=job, length=len(data)):
        await target.send_stdin(job, data, close=close)


@router.post("/processes/{job}/signal", status_code=204)
async def signal(request: Request, workspace_id: Id, job: str, body: Signal) -> None:
    """Signal a job and all that it started."""
    target = await desktop(request, workspace_id)
    async with recorded(request, workspace_id, "signal", job=job, signal=body.signal):
        await target.signal(job, body.signal)


@router.delete("/processes/{job}", status_code=204)
async def forget(request: Request, workspace_id: Id, job: str) -> None:
    """Kill a job if it still runs, and drop its output."""
    target = await desktop(request, workspace_id)
    async with recorded(request, workspace_id, "signal", job=job, signal="KILL"):
        await target.forget(job)


@router.put("/environment", status_code=204)
async def environment(request: Request, workspace_id: Id, body: Environment) -> None:
    """Variables for every program started from now on."""
    target = await desktop(request, workspace_id)
    async with recorded(request, workspace_id, "environment", names=sorted(body)):
        await target.set_environment(body)
