"""The operators' tool: pool_scale, how many desktops are kept ready before they are asked for."""

from __future__ import annotations

import json
from typing import Annotated

from mcp.types import ContentBlock, TextContent
from pydantic import Field

from agent_bridge.caller import Caller
from agent_bridge.inputs import Input
from workspace.errors import InvalidRequest

_Many = Annotated[int, Field(ge=-1, le=10_000)]


class PoolScale(Input):
    """The arguments of pool_scale. -1 leaves a number as it is."""

    template: Annotated[str, Field(description="without one all pools are listed")] = ""
    warm: Annotated[_Many, Field(description="kept ready while desktops are asked for")] = -1
    floor: Annotated[_Many, Field(description="kept ready even if none are for long")] = -1
    max: Annotated[_Many, Field(description="of this template in all, at most")] = -1


async def pool_scale(caller: Caller, asked: PoolScale) -> list[ContentBlock]:
    given = (asked.warm, asked.floor, asked.max)
    if asked.template:
        warm, floor, most = (None if number < 0 else number for number in given)
        found = [await caller.carrel.scale(asked.template, warm=warm, floor=floor, max=most)]
    elif any(number >= 0 for number in given):
        raise InvalidRequest("Name the template whose pool is to change.", hint="")
    else:
        found = list(await caller.carrel.pools())
    told = [pool.model_dump(mode="json", exclude={"pool"}) for pool in found]
    return [TextContent(type="text", text=json.dumps(told, ensure_ascii=False))]
