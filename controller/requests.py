"""Agents ask for a person: a ticket, a desktop whose agent waits, and what came of it.

The ticket is a row of the store, so any controller answers for it and it survives all of them.
That the agent waits is desktopd's to enforce; it ends by itself when the request's time is over. A
person answers with done or declined, which hands back the control that they have; one who hands it
back without an answer leaves the request open, for the next.
"""

from __future__ import annotations

import logging
import secrets
import time
from contextlib import suppress
from datetime import datetime, timedelta, timezone

import anyio

from controller.control import Controls
from controller.events import Events
from controller.lifecycle import Lifecycle
from controller.live import SYSTEM
from controller.store import Store
from controller.webhook import Webhook
from workspace.calls.control import park, unpark
from workspace.control import (
    MAX_DEEDS,
    AnswerHuman,
    AskHuman,
    Control,
    HumanRequest,
    Returned,
)
from workspace.errors import CarrelError, Conflict, NotFound, NotReady, WorkspaceEnded

LOOK_SECONDS = 0.25
_log = logging.getLogger(__name__)


class Requests:
    """The requests of all desktops."""

    def __init__(
        self,
        store: Store,
        lifecycle: Lifecycle,
        controls: Controls,
        events: Events,
        webhook: Webhook,
    ) -> None:
        self._rows = store.requests
        self._lifecycle = lifecycle
        self._controls = controls
        self._events = events
        self._webhook = webhook
        controls.on_taken = self._on_taken
        controls.on_returned = self._on_returned

    async def ask(self, workspace_id: str, wanted: AskHuman, *, actor: str) -> HumanRequest:
        """Ask for a person; while one is asked for already, that request."""
        desktop = await self._lifecycle.desktop(workspace_id, actor=actor)
        now = datetime.now(timezone.utc)
        request = HumanRequest(
            ticket=secrets.token_hex(8),
            workspace_id=workspace_id,
            reason=wanted.reason,
            state="open",
            asked_by=actor,
            created_at=now,
            expires_at=now + timedelta(seconds=wanted.seconds),
        )
        # Written first: who is told of this ticket by desktopd finds it.
        await self._rows.add(request)
        try:
            await park(desktop, request.ticket, wanted.reason, wanted.seconds)
        except BaseException as error:
            with anyio.CancelScope(shield=True):
                await self._rows.remove(request.ticket)
            if isinstance(error, Conflict) and isinstance(error.details.get("ticket"), str):
                return await self.get(workspace_id, error.details["ticket"])
            raise
        holder = (await self._controls.get(workspace_id)).holder
        if holder is not None:
            await self._rows.taken(workspace_id, holder)
        await self._events.record(
            "human_requested",
            actor=actor,
            workspace_id=workspace_id,
            ticket=request.ticket,
            reason=wanted.reason,
            seconds=wanted.seconds,
        )
        self._webhook.call(request, await self._lifecycle.get(workspace_id))
        return await self.get(workspace_id, request.ticket)

    async def get(self, workspace_id: str, ticket: str, *, wait_seconds: float = 0) -> HumanRequest:
        """What has come of it, once it is over or after that time.

        Raises:
            NotFound: there is no such request.
        """
        deadline = time.monotonic() + wait_seconds
        while True:
            request = await self._now(workspace_id, ticket)
            left = deadline - time.monotonic()
            if request.is_over or left <= 0:
                return request
            await anyio.sleep(min(LOOK_SECONDS, left))  # any controller may answer it

    async def _now(self, workspace_id: str, ticket: str) -> HumanRequest:
        request = await self._rows.get(ticket[:32])
        if request is None or request.workspace_id != workspace_id:
            raise NotFound(f"There is no request {ticket[:32]!r} of this desktop.", hint="")
        if request.is_over:
            return request
        is_late = request.expires_at <= datetime.now(timezone.utc)
        workspace = await self._lifecycle.get(workspace_id)
        if is_late or workspace.ended_at is not None:
            if await self._rows.expire(ticket):
                await self._events.record(
                    "human_request_expired", actor=SYSTEM, workspace_id=workspace_id, ticket=ticket
                )
            return request.model_copy(update={"state": "expired"})
        return request

    async def waiting(self, limit: int, *, tenant: str | None) -> list[HumanRequest]:
        """Those of a tenant, or with None all, that wait for a person, the oldest first."""
        return await self._rows.waiting(limit=limit, tenant=tenant)

    async def answer(
        self, workspace_id: str, ticket: str, answer: AnswerHuman, *, actor: str
    ) -> HumanRequest:
        """Say that it is done or will not be; the agent goes on.

        Raises:
            NotFound: there is no such request. Conflict: it is over already.
            ControlTaken: another person is at it.
        """
        request = await self._now(workspace_id, ticket)
        if request.is_over:
            raise _over(request)
        with suppress(WorkspaceEnded, NotReady):  # then nobody has it
            await self._controls.hand_back(workspace_id, actor=actor)
        if not await self._rows.answer(ticket, answer, by=actor):
            raise _over(await self._now(workspace_id, ticket))
        await self._events.record(
            "human_answered",
            actor=actor,
            workspace_id=workspace_id,
            ticket=ticket,
            outcome=answer.outcome,
            note=answer.note,
        )
        try:
            await unpark(await self._lifecycle.desktop(workspace_id, actor=actor), ticket)
        except CarrelError as error:  # it goes on by itself when the request's time is over
            _log.warning("the agent of %s is not told: %s", workspace_id, error.message)
        return await self._now(workspace_id, ticket)

    async def _on_taken(self, workspace_id: str, control: Control) -> None:
        await self._rows.taken(workspace_id, control.holder)

    async def _on_returned(self, workspace_id: str, returned: Returned) -> None:
        await self._rows.did(workspace_id, returned, limit=MAX_DEEDS)
        if returned.why != "taken_over":
            await self._rows.taken(workspace_id, None)


def _over(request: HumanRequest) -> Conflict:
    by = f" by {request.answered_by}" if request.answered_by else ""
    return Conflict(
        f"That request is {request.state}{by}.", hint="", details={"state": request.state}
    )
