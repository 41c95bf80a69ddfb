"""Control of desktops, as people take it and hand it back through the controller.

desktopd decides and enforces; here it is made known who it is, and written down. While a person has
control somebody of this controller waits for its end, by whatever comes first (handed back, timed
out, gone away, taken over), and writes one event with what the person did. desktopd gives an ended
taking away once, so it is written once, however many controllers wait for it; a controller that
asks later, after another one died, still gets it. So whoever keeps a desktop asks when it begins
to serve and when another controller is gone: of a taking that the log tells no end of, the end is
waited for, or written.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
from anyio.abc import TaskGroup

from controller.events import Events
from controller.lifecycle import Lifecycle
from workspace.calls.control import collect
from workspace.control import Control, ControlRequest, Deed, Returned
from workspace.desktop import Desktop
from workspace.errors import (
    CarrelError,
    NotFound,
    NotReady,
    Unavailable,
    WorkspaceEnded,
    WorkspaceNotFound,
)
from workspace.models import Event

WATCH_SECONDS = 25.0
AGAIN_SECONDS = 1.0
WRITE_SECONDS = 10.0
FIND_TRIES = 60
_WRITTEN = {"why", "since", "display_name", "more"}
_log = logging.getLogger(__name__)


async def _nothing(workspace_id: str, what: Control | Returned) -> None:
    pass


class Controls:
    """Who has which desktop, as far as this controller knows; ``run`` it as long as it serves."""

    def __init__(self, lifecycle: Lifecycle, events: Events) -> None:
        self._lifecycle = lifecycle
        self._events = events
        self._tasks: TaskGroup | None = None
        self._held: dict[str, Control] = {}
        self._writing: dict[str, anyio.Event] = {}
        # Told of each taking, and of its end, before its event is written.
        self.on_taken: Callable[[str, Control], Awaitable[None]] = _nothing
        self.on_returned: Callable[[str, Returned], Awaitable[None]] = _nothing

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        async with anyio.create_task_group() as self._tasks:
            self._lifecycle.replicas.on_gone = self._look_again
            self._look_again()
            yield
            self._lifecycle.replicas.on_gone = lambda: None
            self._tasks.cancel_scope.cancel()

    def _look_again(self) -> None:
        """Another controller is gone, or this one begins: finish what was begun elsewhere."""
        if self._tasks is not None:
            self._tasks.start_soon(self._finish_all)

    async def _finish_all(self) -> None:
        try:
            found = await self._lifecycle.store.open_takings(keeper=self._lifecycle.replica)
        except CarrelError as error:
            _log.error("who has control is not looked for: %s", error.message)
            return
        assert self._tasks is not None, "it runs"
        for taken in found:
            known = self._held.get(str(taken.workspace_id))
            if known is None or known.taking != taken.data.get("taking"):
                self._tasks.start_soon(self._finish, taken)

    async def _finish(self, taken: Event) -> None:
        """Watch a taking that another controller wrote the beginning of, or write its end."""
        workspace_id, taking = str(taken.workspace_id), taken.data.get("taking")
        if not isinstance(taking, str):  # written before the log named takings
            return
        try:
            desktop = await self._asked(workspace_id)
            control = await desktop.control()
            if control.taking == taking:
                return self._note(workspace_id, control)
            if await self._write(workspace_id, desktop, taking):
                return
            # Another one has collected it, and may be writing it; or it died before it had.
            await anyio.sleep(WRITE_SECONDS)
            found = await self._lifecycle.store.open_takings(keeper=self._lifecycle.replica)
            if taken.id in {each.id for each in found}:
                await self._events.record(
                    "control_returned",
                    actor=taken.actor,
                    workspace_id=workspace_id,
                    why="not_known",
                    since=taken.at.isoformat(),
                    did=[],
                )
        except (WorkspaceEnded, WorkspaceNotFound):
            return
        except CarrelError as error:
            _log.error("the end of control of %s is not written: %s", workspace_id, error.message)

    async def _asked(self, workspace_id: str) -> Desktop:
        """Its desktop, which may only just be looked for."""
        for _ in range(FIND_TRIES):
            try:
                return await self._lifecycle.glance(workspace_id)
            except (NotReady, Unavailable):
                await anyio.sleep(AGAIN_SECONDS)
        return await self._lifecycle.glance(workspace_id)

    def who(self, workspace_id: str) -> Control | None:
        """Who has it, if a person took it through this controller."""
        return self._held.get(workspace_id)

    async def get(self, workspace_id: str) -> Control:
        """Who has it, by desktopd's word."""
        control = await (await self._lifecycle.glance(workspace_id)).control()
        self._note(workspace_id, control)
        return control

    async def take(self, workspace_id: str, wanted: ControlRequest, *, actor: str) -> Control:
        """Give it to ``actor``; a paused desktop is resumed.

        Raises:
            ControlTaken: another person has it.
        """
        desktop = await self._lifecycle.desktop(workspace_id, actor=actor)
        control = await desktop.take_control(holder=actor, **wanted.model_dump())
        known = self._held.get(workspace_id)
        if known is None or known.taking != control.taking:
            self._note(workspace_id, control)
            await self.on_taken(workspace_id, control)
            told = {**wanted.model_dump(exclude_defaults=True), "taking": control.taking}
            await self._events.record(
                "control_taken", actor=actor, workspace_id=workspace_id, **told
            )
        return control

    async def hand_back(self, workspace_id: str, *, actor: str, force: bool = False) -> Control:
        """Give it back to the agent; what was done meanwhile is in the log when this returns.

        Raises:
            ControlTaken: it is another person's.
        """
        desktop = await self._lifecycle.glance(workspace_id)
        control = await desktop.hand_back(holder=actor, force=force)
        if control.returned is not None:
            await self._write(workspace_id, desktop, control.returned.taking)
        return control

    def _note(self, workspace_id: str, control: Control) -> None:
        if control.taking is None or self._tasks is None:
            return
        known = self._held.get(workspace_id)
        self._held[workspace_id] = control.model_copy(
            update={"grant": None, "did": [], "returned": None}
        )
        if known is None or known.taking != control.taking:
            self._tasks.start_soon(self._watch, workspace_id, control.taking)

    async def _watch(self, workspace_id: str, taking: str) -> None:
        """Wait for the end of a taking, and write it down."""
        try:
            while True:
                try:
                    desktop = await self._lifecycle.glance(workspace_id)
                    control = await desktop.control(after=taking, wait_seconds=WATCH_SECONDS)
                except (WorkspaceEnded, WorkspaceNotFound):
                    return
                except CarrelError as error:  # it is paused, or away for a moment
                    _log.info("control of %s is not known: %s", workspace_id, error.message)
                    await anyio.sleep(AGAIN_SECONDS)
                    continue
                if control.taking != taking:
                    break
                self._note(workspace_id, control)
            await self._write(workspace_id, desktop, taking)
            self._note(workspace_id, control)
        except CarrelError as error:
            _log.error("the end of control of %s is not written: %s", workspace_id, error.message)
        finally:
            held = self._held.get(workspace_id)
            if held is not None and held.taking == taking:
                del self._held[workspace_id]

    async def _write(self, workspace_id: str, desktop: Desktop, taking: str) -> bool:
        """Write down an ended taking, unless another one has; it is written when this returns.

        False: somebody else has collected it.
        """
        if (written := self._writing.get(taking)) is not None:
            with anyio.move_on_after(WRITE_SECONDS):
                await written.wait()
            return True
        is_ours = True
        written = self._writing[taking] = anyio.Event()
        try:
            with anyio.CancelScope(shield=True), anyio.move_on_after(WRITE_SECONDS):
                is_ours = await self._write_once(workspace_id, desktop, taking)
        finally:
            written.set()
            del self._writing[taking]
        return is_ours

    async def _write_once(self, workspace_id: str, desktop: Desktop, taking: str) -> bool:
        try:
            returned = await collect(desktop, taking)
        except NotFound:
            return False
        held = self._held.get(workspace_id)
        if held is not None and held.taking == taking:
            del self._held[workspace_id]
        await self.on_returned(workspace_id, returned)
        told = returned.model_dump(mode="json", include=_WRITTEN)
        await self._events.record(
            "control_returned",
            actor=returned.holder,
            workspace_id=workspace_id,
            did=[_short(deed) for deed in returned.did],
            taking=taking,
            **told,
        )
        return True


def _short(deed: Deed) -> dict[str, Any]:  # Any: JSON values
    """What was done, without what goes without saying."""
    return {"type": deed.type, **deed.model_dump(mode="json", exclude_defaults=True)}
