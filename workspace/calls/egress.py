"""The way out of a desktop: its rules, and what came of them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from workspace.calls.keys import Caller
from workspace.egress import Egress, EgressChange, EgressState
from workspace.errors import WorkspaceNotFound
from workspace.models import WORKSPACE_ID
from workspace.transport import asked


class EgressCalls:
    """What a desktop may reach."""

    async def egress(self: Caller, workspace_id: str) -> EgressState:
        """Its rules, the secrets that are put into its requests, and what went through."""
        return EgressState.model_validate_json(await self._call("GET", _path(workspace_id)))

    async def set_egress(
        self: Caller,
        workspace_id: str,
        egress: Egress | None = None,
        *,
        allow: Sequence[str] = (),
        deny: Sequence[str] = (),
    ) -> EgressState:
        """Let it reach what ``egress`` says, or what it does with some more and some less.

        At once: what is open and no longer permitted is broken off.

        Raises:
            Forbidden: that is more than its template permits, and takes an operator.
            InvalidRequest: what it should reach no longer is none of its rules.
        """
        change = asked(EgressChange, egress=egress, allow=list(allow), deny=list(deny))
        body = await self._call("POST", _path(workspace_id), json=change.model_dump(mode="json"))
        return EgressState.model_validate_json(body)


def _path(workspace_id: str) -> str:
    if not re.fullmatch(WORKSPACE_ID, workspace_id):
        raise WorkspaceNotFound(f"There is no workspace {workspace_id[:100]!r}.")
    return f"/v1/workspaces/{workspace_id}/egress"
