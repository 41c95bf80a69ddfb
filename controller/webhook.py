"""Calls somebody's server when an agent asks for a person (``CARREL_WEBHOOK_URL``).

A POST of JSON; with ``CARREL_WEBHOOK_SECRET`` its ``X-Carrel-Signature`` is ``sha256=`` and the
HMAC-SHA256 of the body in hex. It is tried a few times, follows no redirect and reads no answer but
its status. On failure an event ``webhook_failed`` is written; the request is none the worse.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import httpx
from anyio.abc import TaskGroup

from controller.events import Events
from controller.live import SYSTEM
from workspace.control import HumanRequest
from workspace.errors import CarrelError
from workspace.models import Workspace

TRY_SECONDS = 5.0
WAITS_SECONDS = (0.5, 2.0, 8.0)
MAX_AT_ONCE = 50
_log = logging.getLogger(__name__)


class Webhook:
    """One address; without one nothing is called. ``run`` it as long as there are calls."""

    def __init__(
        self,
        url: str,
        secret: str,
        events: Events,
        *,
        origin: str,
    ) -> None:
        self._url = url
        self._secret = secret.encode()
        self._events = events
        self._origin = origin
        self._tasks: TaskGroup | None = None
        self._at_once = anyio.Semaphore(MAX_AT_ONCE)

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        async with anyio.create_task_group() as self._tasks:
            yield
            self._tasks.cancel_scope.cancel()

    def call(self, request: HumanRequest, workspace: Workspace) -> None:
        """Tell of a request, later and beside everything else."""
        if not self._url or self._tasks is None:
            return
        told = {
            "event": "human_requested",
            "ticket": request.ticket,
            "workspace_id": request.workspace_id,
            "name": workspace.name,
            "reason": request.reason,
            "asked_by": request.asked_by,
            "created_at": request.created_at.isoformat(),
            "expires_at": request.expires_at.isoformat(),
            # Without a token: who opens it shows who they are.
            "url": f"{self._origin}/watch/{request.workspace_id}",
        }
        body = json.dumps(told, ensure_ascii=False).encode()
        self._tasks.start_soon(self._call, request, body)

    async def _call(self, request: HumanRequest, body: bytes) -> None:
        why = ""
        async with self._at_once:
            for wait in (*WAITS_SECONDS, None):
                why = await self._try(body)
                if not why:
                    return
                if wait is not None:
                    await anyio.sleep(wait)
        _log.warning("the webhook was not told of %s: %s", request.ticket, why)
        try:
            await self._events.record(
                "webhook_failed",
                actor=SYSTEM,
                workspace_id=request.workspace_id,
                ticket=request.ticket,
                why=why,
            )
        except CarrelError as error:
            _log.error("%s", error)

    async def _try(self, body: bytes) -> str:
        """Why it failed; nothing if it did not."""
        headers = {"Content-Type": "application/json", "User-Agent": "carrel"}
        if self._secret:
            digest = hmac.new(self._secret, body, hashlib.sha256).hexdigest()
            headers["X-Carrel-Signature"] = f"sha256={digest}"
        try:
            with anyio.fail_after(TRY_SECONDS):
                async with httpx.AsyncClient(
                    trust_env=False, follow_redirects=False, timeout=TRY_SECONDS
                ) as http:
                    asking = http.stream("POST", self._url, content=body, headers=headers)
                    async with asking as answer:
                        return "" if answer.is_success else f"HTTP {answer.status_code}"
        except TimeoutError:
            return f"no answer within {TRY_SECONDS:g} s"
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            return f"{type(error).__name__}: {error}"[:300]
