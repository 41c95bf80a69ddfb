"""DesktopActor: the one owner of one desktop, a small process beside its sandbox.

:class:`Life` is a desktop from start to end and knows nothing of Ray: it starts the sandbox, waits
for whatever ends it first (a wish, its deadline on the monotonic clock, the sandbox itself), takes
it down, and remembers why. :class:`DesktopActor` is its thin face towards Ray: one per desktop,
never restarted (a restart would be another, empty desktop under the same name), and gone as soon
as its desktop is. What it is told and what it answers is plain JSON: an error is its wire form,
never a pickled exception. Whatever kills the actor closes the pipe of the sandbox's supervisor.

Imports are few on purpose: every desktop pays for them.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from ray_cluster import leases
from ray_cluster.relay import Relay
from ray_cluster.reports import Reports
from workspace import backends
from workspace.backends.base import Mount
from workspace.egress import Secret
from workspace.errors import (
    CarrelError,
    DesktopLost,
    Internal,
    NotReady,
    StartFailed,
    WorkspaceEnded,
)
from workspace.models import Template

if TYPE_CHECKING:
    from workspace.backends.base import Backend, Endpoint

Wire = dict[str, Any]  # Any: JSON values

STOP_SECONDS = 10.0
ANSWER_SECONDS = 2.0
MAX_WAIT_SECONDS = 60.0
NAMING_SECONDS = 2.0  # for what a desktop that is ready need not wait for

# Why a desktop has ended: the codes of ``Cluster.ended``. A failed start has its error's own.
DEADLINE_PASSED = "deadline_passed"
RELEASED = "released"
DESKTOP_LOST = DesktopLost.code

log = logging.getLogger(__name__)


class Deadline:
    """A moment on the monotonic clock, so that no change of the wall clock moves it."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._at = clock() + seconds

    def extend(self, seconds: float) -> None:
        """``seconds`` from now."""
        self._at = self._clock() + seconds

    def remaining(self) -> float:
        return max(0.0, self._at - self._clock())


class Life:
    """One desktop, from its start to its end."""

    def __init__(
        self,
        workspace_id: str,
        start: Callable[[], Awaitable[tuple[Backend, Endpoint]]],
        stop: Callable[[], Awaitable[None]],
        *,
        deadline: Deadline,
        start_seconds: float,
    ) -> None:
        self._id = workspace_id
        self._start = start
        self._stop = stop
        self._deadline = deadline
        self._start_seconds = start_seconds
        self._wish: Wire | None = None  # why it is to end
        self._wished = asyncio.Event()
        self._changed = asyncio.Event()  # the deadline has moved
        self.changes = 0  # ... so often
        self.ready = asyncio.Event()  # set too when it ended before
        self.over = asyncio.Event()
        self.endpoint: Endpoint | None = None
        self.backend: Backend | None = None
        self.reason: Wire | None = None

    async def run(self) -> None:
        """Live. Never raises; ``reason`` says why it is over."""
        try:
            reason = await self._begin() or await self._until_end()
        except CarrelError as error:
            reason = error.to_wire()
        except Exception as error:  # a backend's defect: it is told of, and the sandbox stopped
            log.exception("desktop %s", self._id)
            reason = Internal(f"The desktop's actor failed: {error!r}.").to_wire()
        try:
            await asyncio.wait_for(self._stop(), STOP_SECONDS)
        except Exception:  # its supervisor cleans up once this process is gone
            log.exception("the sandbox of desktop %s could not be stopped", self._id)
        self.reason = reason
        self.ready.set()
        self.over.set()

    async def _begin(self) -> Wire | None:
        starting = asyncio.ensure_future(self._start())
        await _first(starting, self._wished.wait(), seconds=self._start_seconds)
        if starting.done():
            self.backend, self.endpoint = starting.result()
            self.ready.set()
            return None
        starting.cancel()
        await asyncio.wait([starting], timeout=STOP_SECONDS)
        if self._wish is not None:
            return self._wish
        raise StartFailed(f"The desktop was not ready within {self._start_seconds:.0f} seconds.")

    async def _until_end(self) -> Wire:
        assert self.backend is not None, "it has begun"
        gone = asyncio.ensure_future(self.backend.wait(self._id))
        try:
            while True:
                self._changed.clear()
                await _first(
                    gone,
                    self._wished.wait(),
                    self._changed.wait(),
                    seconds=self._deadline.remaining(),
                )
                if self._wish is not None:
                    return self._wish
                if gone.done():
                    return _ended(DESKTOP_LOST, gone.result())
                if not self._deadline.remaining():
                    return _ended(DEADLINE_PASSED, "Its time ran out.")
        finally:
            gone.cancel()

    @property
    def remaining(self) -> float:
        return self._deadline.remaining()

    def release(self) -> None:
        self.end(RELEASED, "It was released.")

    def end(self, code: str, message: str) -> None:
        """Have it end; the first reason counts."""
        self._wish = self._wish or _ended(code, message)
        self._wished.set()

    def believe(self, seconds: float) -> None:
        """Like :meth:`extend`, but not because anybody has asked for it just now."""
        self._deadline.extend(seconds)
        self._changed.set()

    def extend(self, seconds: float) -> None:
        if self.reason is not None or self._wish is not None:
            raise WorkspaceEnded(f"Desktop {self._id} has ended.")
        self.changes += 1
        self.believe(seconds)


async def _first(*things: Awaitable[object], seconds: float) -> None:
    """Until one of them is done or the time is over; futures given stay, coroutines are ended."""
    own = [asyncio.ensure_future(thing) for thing in things]
    try:
        await asyncio.wait(own, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task, thing in zip(own, things, strict=True):
            if task is not thing:
                task.cancel()


def _ended(code: str, message: str) -> Wire:
    return {"code": code, "message": message, "hint": ""}


class DesktopActor:
    """What Ray runs. ``spec``: what :meth:`Cluster.start` was told, as plain JSON."""

    def __init__(self, spec: Mapping[str, Any]) -> None:  # Any: JSON values
        self._spec = spec
        self._backend: Backend | None = None
        self._relay: Relay | None = None
        self._relay_url = ""
        self._relaying = asyncio.Lock()
        self._is_paused = False
        terms = spec["lease"]
        self._controllers = terms and leases.Controllers(
            terms["urls"], spec["workspace_id"], terms["token"]
        )
        self._reports: Reports | None = None
        self._reporting: asyncio.Task[None] | None = None
        # Its sandbox is made once somebody waits for it: an actor that could never be called,
        # because its node was cut off, has made none, and another one may be made elsewhere.
        self._called = asyncio.Event()
        self._answering = 0
        self._answered = asyncio.Event()
        self._life = Life(
            spec["workspace_id"],
            self._start,
            self._stop,
            deadline=Deadline(spec["ttl_seconds"]),
            start_seconds=spec["start_seconds"],
        )
        self._loop = asyncio.get_running_loop()
        self._boot = self._loop.create_task(self._run())

    async def up(self) -> Wire:
        """Its process has started."""
        return {}

    async def ready(self, wait: bool) -> Wire:
        """Where it answers, once it is ready; the error when it has ended, or is not yet ready."""
        if wait:
            self._called.set()
        return await self._answer(self._when_ready(wait))

    async def relay(self) -> Wire:
        """A URL that other nodes reach."""
        return await self._answer(self._listen())

    async def extend(self, ttl_seconds: float) -> Wire:
        async def extend() -> Wire:
            self._life.extend(ttl_seconds)
            return {}

        return await self._answer(extend())

    async def claimed(self, ttl_seconds: float, whose: dict[str, str] | None = None) -> Wire:
        """Somebody has it now, or waits for it: it ends ``ttl_seconds`` from now, and its processor
        time counts as any other's.
        """

        async def claimed() -> Wire:
            self._life.extend(ttl_seconds)
            if self._backend is not None:
                await self._backend.foreground(self._spec["workspace_id"], whose=whose)
            return {}

        return await self._answer(claimed())

    async def set_egress(self, terms: Wire) -> Wire:
        """Let it out by other rules (``egress``), or with other ``secrets``; not null."""

        async def set_egress() -> Wire:
            egress, secrets = terms["egress"], terms["secrets"]
            await self._running().set_egress(
                self._spec["workspace_id"],
                egress=egress,
                secrets=None if secrets is None else [Secret.model_validate(it) for it in secrets],
            )
            return {}

        return await self._answer(set_egress())

    async def egress(self) -> Wire:
        """What went out and came in."""

        async def egress() -> Wire:
            tally = self._running().tally(self._spec["workspace_id"])
            return {} if tally is None else tally.use.model_dump()

        return await self._answer(egress())

    async def pause(self) -> Wire:
        async def pause() -> Wire:
            paused = await self._running().pause(self._spec["workspace_id"])
            self._is_paused = True
            return paused.model_dump()

        return await self._answer(pause())

    async def resume(self) -> Wire:
        async def resume() -> Wire:
            await self._running().resume(self._spec["workspace_id"])
            self._is_paused = False
            return {}

        return await self._answer(resume())

    async def stats(self) -> Wire:
        async def stats() -> Wire:
            return (await self._running().stats(self._spec["workspace_id"])).model_dump()

        return await self._answer(stats())

    async def ended(self, wait_seconds: float) -> Wire:
        """``{"ended": why}``, or null there when it still lives after ``wait_seconds``."""

        async def ended() -> Wire:
            await _first(self._life.over.wait(), seconds=min(wait_seconds, MAX_WAIT_SECONDS))
            return {"ended": self._life.reason}

        return await self._answer(ended())

    async def stop(self) -> Wire:
        """End it; answers when nothing of it is left."""

        async def stop() -> Wire:
            self._life.release()
            await self._life.over.wait()
            return {}

        return await self._answer(stop())

    def __ray_shutdown__(self) -> None:
        """Ray ends this process in an orderly way (SIGTERM): the sandbox goes first.

        Ray has stopped our loop by then and calls from the main thread, so we run it once more.
        """
        if not self._life.over.is_set() and not self._loop.is_closed():
            self._life.release()
            self._loop.run_until_complete(_first(self._life.over.wait(), seconds=STOP_SECONDS))

    async def _run(self) -> None:
        renewing = asyncio.ensure_future(self._renew(self._spec["lease"]))
        await self._life.run()
        renewing.cancel()
        # Those who wait for the reason get it; then this process has no more purpose.
        deadline = time.monotonic() + ANSWER_SECONDS
        while self._answering and (left := deadline - time.monotonic()) > 0:
            self._answered.clear()
            await _first(self._answered.wait(), seconds=left)
        _exit_actor()

    def _running(self) -> Backend:
        """Its backend, while the desktop is ready to act."""
        if self._life.reason is not None:
            raise WorkspaceEnded("The desktop does not run.")
        if self._life.backend is None:
            raise NotReady("The desktop is starting.")
        return self._life.backend

    async def _start(self) -> tuple[Backend, Endpoint]:
        spec = self._spec
        await self._called.wait()  # no longer than any start may take
        self._backend = backends.create(spec["backend"], **spec["settings"])
        template = Template.model_validate(spec["template"])
        volume = Mount.model_validate(spec["volume"]) if spec["volume"] else None
        endpoint = await self._backend.start(
            spec["workspace_id"], template, background=spec["background"], volume=volume
        )
        if spec["whose"]:
            naming = self._backend.foreground(spec["workspace_id"], whose=spec["whose"])
            try:
                await asyncio.wait_for(naming, NAMING_SECONDS)
            except (CarrelError, asyncio.TimeoutError) as error:  # it is nobody's less for that
                log.warning("desktop %s does not say whose it is: %s", spec["workspace_id"], error)
        tally = self._backend.tally(spec["workspace_id"])
        if tally is not None and self._controllers is not None:
            self._reports = Reports(tally, self._controllers.tell_connections)
            self._reporting = asyncio.ensure_future(self._reports.run())
        return self._backend, endpoint

    async def _stop(self) -> None:
        if self._relay is not None:
            await self._relay.close()
        if self._backend is not None:
            await self._backend.stop(self._spec["workspace_id"])
        if self._reports is not None and self._reporting is not None:
            self._reporting.cancel()
            await self._reports.finish()

    async def _renew(self, terms: Wire | None) -> None:
        """End the desktop once nobody wants it, or nobody can be asked any more."""
        if terms is None:
            return
        life, controllers = self._life, self._controllers
        assert controllers is not None, "it has terms"
        belief = leases.Belief()

        def ask() -> Awaitable[leases.Answer]:
            state = "paused" if self._is_paused else "ready" if life.backend else "starting"
            return controllers.ask(state, life.remaining)

        def take(ttl_seconds: float) -> None:
            if belief.counts(ttl_seconds, remaining=life.remaining, changes=life.changes):
                life.believe(ttl_seconds)

        renewal = leases.Renewal(
            ask,
            take,
            grace_seconds=terms["grace_seconds"],
            renew_seconds=terms["renew_seconds"],
        )
        life.end(*await renewal.run())

    async def _when_ready(self, wait: bool) -> Wire:
        if wait:
            await self._life.ready.wait()
        elif not self._life.ready.is_set():
            raise NotReady("The desktop is starting.")
        endpoint = self._life.endpoint
        if endpoint is None or self._life.reason is not None:
            return {"error": self._life.reason}
        return {
            "url": endpoint.url,
            "token": endpoint.token,
            "node": _node_id(),
            "node_name": socket.gethostname(),
            "remaining_seconds": self._life.remaining,
        }

    async def _listen(self) -> Wire:
        async with self._relaying:
            endpoint = self._life.endpoint
            if endpoint is None or self._life.reason is not None:
                raise WorkspaceEnded("The desktop does not run.")
            if not endpoint.url.startswith("unix://"):
                return {"url": endpoint.url}
            if self._relay is None:
                relay = Relay(endpoint.url.removeprefix("unix://"), endpoint.token)
                self._relay_url = await relay.start(node_address())
                self._relay = relay
            return {"url": self._relay_url}

    async def _answer(self, work: Coroutine[Any, Any, Wire]) -> Wire:  # Any: they yield nothing
        self._answering += 1
        try:
            return await work
        except CarrelError as error:
            return {"error": error.to_wire()}
        finally:
            self._answering -= 1
            self._answered.set()


# Ray's own names are asked for late: `Life` is imported, and tested, without Ray.


def _node_id() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())


def node_address() -> str:
    import ray.util

    return str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]  # Ray's


def _exit_actor() -> None:
    import ray

    ray.get_runtime_context().current_actor.__ray_terminate__.remote()
