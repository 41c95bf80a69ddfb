"""Agents' requests for a person."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request

from controller.answers import OF_DESKTOP
from controller.routes import Id, caller, parts
from controller.streams import until_gone
from workspace.control import AnswerHuman, AskHuman, HumanRequest, HumanRequestList
from workspace.models import WaitSeconds

router = APIRouter(prefix="/v1", tags=["control"])


@router.get("/requests")
async def waiting(
    request: Request, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> HumanRequestList:
    """Those of the caller's tenant (of all, for an admin) that wait for a person, oldest first."""
    who = caller(request)
    tenant = None if who.role == "admin" else who.tenant
    found = await parts(request).requests.waiting(limit, tenant=tenant)
    return HumanRequestList(requests=found)


@router.post("/workspaces/{workspace_id}/requests", status_code=201, responses=OF_DESKTOP)
async def ask(request: Request, workspace_id: Id, body: AskHuman) -> HumanRequest:
    """Ask for a person. The agent's input waits until that is answered, or its time is over."""
    return await parts(request).requests.ask(workspace_id, body, actor=caller(request).name)


@router.get("/workspaces/{workspace_id}/requests/{ticket}", responses=OF_DESKTOP)
async def get(
    request: Request,
    workspace_id: Id,
    ticket: str,
    wait_seconds: Annotated[WaitSeconds, Query(description="until it is over, at most")] = 0,
) -> HumanRequest:
    """What has come of it: open, taken by somebody, done, declined or expired."""
    getting = parts(request).requests.get(workspace_id, ticket, wait_seconds=wait_seconds)
    return await until_gone(request.receive, getting)


@router.post("/workspaces/{workspace_id}/requests/{ticket}", responses=OF_DESKTOP)
async def answer(
    request: Request, workspace_id: Id, ticket: str, body: AnswerHuman
) -> HumanRequest:
    """Say as a person that it is done, or will not be; your control is handed back first."""
    requests = parts(request).requests
    return await requests.answer(workspace_id, ticket, body, actor=caller(request).name)
