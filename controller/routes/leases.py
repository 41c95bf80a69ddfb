"""Leases: a desktop's actor asks whether it is still wanted, and until when.

Not for people: the token of each is its sandbox's own (:meth:`controller.auth.Auth.lease_secret`),
and the gate let nobody else through. An error other than 410 says nothing of the desktop: the actor
asks again, another controller where there is one.
"""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, Field

from controller.routes import parts
from workspace.models import WORKSPACE_ID

router = APIRouter(prefix="/v1/leases", tags=["leases"], include_in_schema=False)


class LeaseRenewal(BaseModel):
    """How it is."""

    state: Literal["starting", "ready", "paused"]
    remaining_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class LeaseTerm(BaseModel):
    """How long it may live from now on; None: as long as it was told before."""

    ttl_seconds: float | None


@router.post("/{sandbox}")
async def renew(
    request: Request,
    sandbox: Annotated[str, Path(pattern=WORKSPACE_ID)],
    body: LeaseRenewal,
) -> LeaseTerm:
    """Renew it. 410 when nobody wants it: it has to end at once."""
    return LeaseTerm(ttl_seconds=await parts(request).lifecycle.lease(sandbox))
