"""Keys beside the admin's own: who may enter, as what, and of which tenant."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Path, Query, Request, Response

from controller.answers import raises
from controller.routes import caller, parts
from workspace.access import KEY_ID, KeyList, KeyRequest, NewKey
from workspace.errors import Conflict, NotFound

router = APIRouter(prefix="/v1/keys", tags=["keys"])
_EXAMPLES = {
    "agent": {"summary": "For an agent", "value": {"name": "ci", "tenant": "billing"}},
    "person": {
        "summary": "For somebody who looks on, for a week",
        "value": {"name": "ann", "tenant": "billing", "role": "viewer", "ttl_seconds": 604800},
    },
}
KeyId = Annotated[str, Path(description="the key's id", max_length=100)]


@router.get("")
async def page(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: Annotated[
        str | None, Query(description="the last page's 'after'", pattern=KEY_ID)
    ] = None,
) -> KeyList:
    """The keys that are not revoked, newest first, a page at a time; without their secrets."""
    found = await parts(request).auth.keyring.page(limit=limit, after=after)
    return KeyList(keys=found, after=found[-1].id if len(found) == limit else None)


@router.post("", status_code=201, responses=raises(Conflict))
async def make(
    request: Request,
    response: Response,
    body: Annotated[KeyRequest, Body(openapi_examples=_EXAMPLES)],
) -> NewKey:
    """Make one. Its ``key`` is told this once."""
    response.headers["Cache-Control"] = "no-store"
    return await parts(request).auth.keyring.make(body, by=caller(request))


@router.delete("/{key_id}", status_code=204, responses=raises(NotFound))
async def revoke(request: Request, key_id: KeyId) -> None:
    """Have it open nothing from now on, and end what it has opened. Again is 204 again."""
    await parts(request).auth.keyring.revoke(key_id, by=caller(request))
