"""Who has a desktop's mouse and keyboard: the agent, or one person."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request

from controller.answers import OF_DESKTOP
from controller.routes import Id, caller, parts
from controller.streams import until_gone
from workspace.control import Control, ControlRequest
from workspace.errors import Forbidden

router = APIRouter(
    prefix="/v1/workspaces/{workspace_id}/control", tags=["control"], responses=OF_DESKTOP
)


def _shown(control: Control, to: str) -> Control:
    """Control as ``to`` may see it: another person's connection is not theirs to use."""
    return control if control.holder == to else control.model_copy(update={"grant": None})


async def _check_force(request: Request, workspace_id: str, force: bool) -> None:
    """Raises Forbidden: it is nobody who may take it from another person."""
    who = caller(request)
    if not force or who.role in ("operator", "admin"):
        return
    if who.role == "link":
        raise Forbidden("A link does not take control from another person.", hint="Use a key.")
    if who.name != await parts(request).store.owner_of(workspace_id):
        raise Forbidden(
            "Only who claimed the desktop, or an operator, takes control from another person.",
            hint="Wait until it is handed back, or ask its holder.",
        )


@router.get("")
async def get(request: Request, workspace_id: Id) -> Control:
    """Who has control now, since when, and what they have done so far."""
    getting = parts(request).controls.get(workspace_id)
    return _shown(await until_gone(request.receive, getting), caller(request).name)


@router.post("")
async def take(request: Request, workspace_id: Id, body: ControlRequest | None = None) -> Control:
    """Take mouse and keyboard; what the agent does is broken off. 409 while another has them."""
    wanted = body or ControlRequest()
    await _check_force(request, workspace_id, wanted.force)
    return await parts(request).controls.take(workspace_id, wanted, actor=caller(request).name)


@router.delete("")
async def hand_back(
    request: Request,
    workspace_id: Id,
    force: Annotated[bool, Query(description="also another person's")] = False,
) -> Control:
    """Give them back to the agent; ``returned`` is what was done meanwhile."""
    await _check_force(request, workspace_id, force)
    who = caller(request).name
    control = await parts(request).controls.hand_back(workspace_id, actor=who, force=force)
    return _shown(control, who)
