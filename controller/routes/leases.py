"""Leases: a desktop's actor asks whether it is still wanted, and until when.

Not for people: the token of each is its sandbox's own (:meth:`controller.auth.Auth.lease_secret`),
and the gate let nobody else through. An error other than 410 says nothing of the desktop: the actor
asks again, another controller where there is one.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal

import anyio
from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, Field

from controller.routes import parts
from workspace.egress import Connections
from workspace.models import WORKSPACE_ID
from workspace.proxy.tally import MAX_LINES

DESKTOP = "desktop"  # who connected: its programs, whoever had them do so
router = APIRouter(prefix="/v1/leases", tags=["leases"], include_in_schema=False)


class LeaseRenewal(BaseModel):
    """How it is."""

    state: Literal["starting", "ready", "paused"]
    remaining_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class LeaseTerm(BaseModel):
    """How long it may live from now on; None: as long as it was told before."""

    ttl_seconds: float | None


class Told(BaseModel):
    """What came of a desktop's connections."""

    connections: Annotated[list[Connections], Field(max_length=MAX_LINES)]


@router.post("/{sandbox}/connections")
async def connections(
    request: Request, sandbox: Annotated[str, Path(pattern=WORKSPACE_ID)], body: Told
) -> LeaseTerm:
    """Write it into the log of the workspace that has the sandbox; of a warm one, of none."""
    own = parts(request)
    workspace_id = await own.lifecycle.of_sandbox(sandbox)
    more = {} if workspace_id is not None else {"sandbox": sandbox}
    async with anyio.create_task_group() as tasks:
        for line in body.connections:
            told = {name: value for name, value in line.model_dump().items() if value != ""}
            record = partial(own.events.record, "egress", actor=DESKTOP, workspace_id=workspace_id)
            tasks.start_soon(partial(record, **told, **more))
    return LeaseTerm(ttl_seconds=None)


@router.post("/{sandbox}")
async def renew(
    request: Request,
    sandbox: Annotated[str, Path(pattern=WORKSPACE_ID)],
    body: LeaseRenewal,
) -> LeaseTerm:
    """Renew it. 410 when nobody wants it: it has to end at once."""
    return LeaseTerm(ttl_seconds=await parts(request).lifecycle.lease(sandbox))
