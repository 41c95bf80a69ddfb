"""The tool request_human: a person is asked, and the same tool polls what comes of it."""

from __future__ import annotations

from typing import Annotated

from mcp.types import ContentBlock, TextContent
from pydantic import Field

from agent_bridge.caller import Caller
from agent_bridge.inputs import OnDesktop
from workspace.control import Deed, HumanRequest, TypeWithheld
from workspace.errors import CarrelError, HumanInControl, InvalidRequest

WAIT_SECONDS = 45.0
_DEEDS_TOLD = 60
_TEXT_TOLD = 200


class RequestHuman(OnDesktop):
    """The arguments of request_human."""

    reason: Annotated[
        str, Field(max_length=1000, description="what the person is to do, and where to stop")
    ] = ""
    ticket: Annotated[str, Field(description="of an answer before: ask how that one stands")] = ""
    seconds: Annotated[
        float, Field(ge=5, le=86400, description="after which the request is given up")
    ] = 1800


async def request_human(caller: Caller, asked: RequestHuman) -> list[ContentBlock]:
    desktop = caller.carrel.desktop(asked.desktop_id)
    ticket = asked.ticket
    if not ticket:
        if not asked.reason.strip():
            raise InvalidRequest("Say in reason what the person is to do.", hint="")
        ticket = (await desktop.request_human(asked.reason, seconds=asked.seconds)).ticket
    request = await desktop.human_request(ticket, wait_seconds=WAIT_SECONDS)
    return [TextContent(type="text", text=told(request))]


def told(request: HumanRequest) -> str:
    """How a request stands, in sentences for a model."""
    again = f"Call request_human again with ticket {request.ticket!r}; until then your input waits."
    note = f" Their note: {request.note}" if request.note else ""
    match request.state:
        case "open":
            return f"Nobody has come yet. {again}"
        case "taken":
            return f"{request.taken_by} is at it. {again}"
        case "declined":
            return f"{request.answered_by} declined.{note} Go on without it, or ask otherwise."
        case "expired":
            return "Nobody answered in time: the request is given up, and you may act again."
    deeds = [described(deed) for deed in request.did[:_DEEDS_TOLD]]
    more = request.more + len(request.did) - len(deeds)
    did = "; ".join(deeds) if deeds else "nothing with mouse and keyboard"
    if more:
        did += f"; and {more} more"
    return (
        f"{request.answered_by} says that it is done.{note} What they did: {did}. "
        "You may act again: take a screenshot first."
    )


def described(deed: Deed) -> str:
    """What was done, in few words."""
    if isinstance(deed, TypeWithheld):
        return f"typed {deed.length} characters that are not told"
    data = deed.model_dump(mode="json", exclude_defaults=True)
    if "text" in data:
        data["text"] = data["text"][:_TEXT_TOLD]
    if "path" in data:
        data["path"] = [data["path"][0], data["path"][-1]]
    words = [f"{name} {value}" for name, value in data.items()]
    return " ".join([deed.type, *words])


def explained(error: CarrelError) -> CarrelError:
    """The error, with what a model can do next by the tools that it has."""
    if isinstance(error, HumanInControl):
        ticket = error.details.get("ticket")
        error.hint = (
            f"Call request_human with ticket {ticket!r}: it answers when they are done."
            if isinstance(ticket, str)
            else "Wait (wait_for, screenshot and shell_run still work) and try again, or call "
            "request_human to be told when they are done."
        )
    return error
