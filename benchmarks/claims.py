"""Claims: how many a second, and how long one takes; a part of :mod:`benchmarks.fleet`.

Twice. *Simulated*: the controller's own lifecycle over a real PostgreSQL (with fsync); the desktops
are of a cluster that only says that they are there, so that what is measured is the claim: one
transaction, its events, its task. *Real*: desktops of the template ``light`` in bubblewrap, through
REST, from asking to the parsed answer, while the pool refills beside it.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path

from benchmarks.rows import Measured
from controller.cli.serve import spare_collector
from controller.events import Events
from controller.lifecycle import Lifecycle
from controller.live import Hands, Located, new_id, shape
from controller.store import Store
from controller.store.claims import NewClaim
from controller.store.warm import Warm
from controller.templates import Templates
from tests.postgres import Postgres
from workspace.backends.base import Endpoint, Mount, PauseResult
from workspace.backends.footprint import Footprint
from workspace.client import Carrel
from workspace.egress import Egress, EgressUse, Secret
from workspace.errors import TimedOut
from workspace.models import ErrorInfo, Node, Screen, Stats, Template, Workspace, WorkspaceRequest

CALLERS = 16
CLAIMS = 5000
SIMULATED, REAL = "Carrel, simulated desktops", "Carrel, through REST"
TEMPLATE = "light"
A_SECOND = 50
POOL = 5
UP_SECONDS = 120
FILL_SECONDS = 300
Note = Callable[[str], None]
NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)


class _There:
    def __init__(self, sandbox: str) -> None:
        self.workspace_id = sandbox
        self.endpoint = Endpoint(url=f"unix:///nowhere/{sandbox}", token="none")
        self.node = self.node_name = "simulated"
        self.remaining_seconds = 3600.0


class Simulated:
    """A cluster whose desktops are all there: these, and each that is asked for."""

    def __init__(self) -> None:
        self.sandboxes: set[str] = set()

    async def start(
        self,
        workspace_id: str,
        template: Template,
        *,
        ttl_seconds: float,
        timeout_seconds: float,
        background: bool = False,
        node: str | None = None,
        volume: Mount | None = None,
        avoid: Collection[str] = (),
        placed: Callable[[], None] | None = None,
        whose: Mapping[str, str] | None = None,
    ) -> Located:
        return _There(workspace_id)

    async def claimed(
        self, workspace_id: str, ttl_seconds: float, *, whose: Mapping[str, str] | None = None
    ) -> None: ...

    async def set_egress(
        self,
        workspace_id: str,
        *,
        egress: Egress | None = None,
        secrets: Sequence[Secret] | None = None,
    ) -> None: ...

    async def egress(self, workspace_id: str) -> EgressUse:
        return EgressUse()

    async def locate(self, workspace_id: str) -> Located | None:
        return _There(workspace_id)

    async def extend(self, workspace_id: str, ttl_seconds: float) -> None: ...

    async def pause(self, workspace_id: str) -> PauseResult:
        return PauseResult()

    async def resume(self, workspace_id: str) -> None: ...

    async def stop(self, workspace_id: str) -> None: ...

    async def names(self) -> set[str]:
        return set(self.sandboxes)

    async def left(self) -> Mapping[str, set[str]]:
        return {}

    async def clear(self, node: str, sandboxes: Collection[str]) -> None: ...

    @property
    def volumes(self) -> Hands:
        raise AssertionError("nobody asks for one")

    async def find(self) -> Mapping[str, Located]:
        return {}

    async def ended(self, workspace_id: str) -> ErrorInfo:
        await asyncio.Event().wait()
        raise AssertionError("they live on")

    async def stats(self, workspace_id: str) -> Stats:
        return Stats()

    async def nodes(self) -> Sequence[Node]:
        return []

    def takes(self, template: Template) -> Footprint:
        return Footprint(template.memory_mib, 0)


def simulated(note: Note) -> list[Measured]:
    """Sixteen callers, each of which claims again as soon as it has one."""
    found: list[Measured] = []
    spare_collector()  # as `carrel up` does
    with tempfile.TemporaryDirectory(prefix="c-pg-") as folder:
        Path(folder).chmod(0o755)
        server = Postgres(Path(folder), "fsync=on", "full_page_writes=on", "shared_buffers=128MB")
        try:
            for others in (10, 10_000):
                note(f"{CLAIMS} claims on PostgreSQL beside {others} workspaces")
                took, seconds = asyncio.run(_claims(server.database(), others=others))
                beside = f"{CALLERS} callers, {others} workspaces in the store"
                found += [
                    Measured(f"claims a second, {beside}", SIMULATED, "/s", (CLAIMS / seconds,)),
                    Measured(f"a claim, {beside}", SIMULATED, "ms", tuple(took)),
                ]
        finally:
            server.stop()
    return found


async def _claims(url: str, *, others: int) -> tuple[list[float], float]:
    """Milliseconds that each claim took, and seconds for all."""
    store, templates = Store(url), Templates(Path("/nowhere"))
    template = templates.get("desktop")
    async with store.run(), (events := Events(store)).run():
        await _fill(store, others)
        await store.replicas.beat("another")
        cluster = Simulated()
        lifecycle = Lifecycle(store, cluster, events, templates, lives_on=True)
        async with lifecycle.run(), _living(store):
            there = [
                Warm(new_id(), "desktop", shape(template), "warm", "bench", NOW, "simulated")
                for _ in range(CLAIMS)
            ]
            cluster.sandboxes.update(each.id for each in there)
            await store.warm.add(there)
            took: list[float] = []
            asked = iter(range(CLAIMS))
            began = time.perf_counter()

            async def caller() -> None:
                for _ in asked:
                    begin = time.perf_counter()
                    await lifecycle.claim(WorkspaceRequest(ttl_seconds=3600), actor="bench")
                    took.append((time.perf_counter() - begin) * 1000)

            await asyncio.gather(*(caller() for _ in range(CALLERS)))
            seconds = time.perf_counter() - began
            assert await store.warm.all() == [], "all of them got a warm one"
            lines = await store.events(limit=1)
            assert lines, "each is an event"
    return took, seconds


async def _fill(store: Store, count: int) -> None:
    """Workspaces of another controller, which lives."""
    now = datetime.now(timezone.utc)
    for begin in range(0, count, 500):
        new = []
        for _ in range(min(500, count - begin)):
            name = new_id()
            workspace = Workspace(
                id=name,
                sandbox=name,
                state="ready",
                template="desktop",
                screen=Screen(),
                created_at=now,
                expires_at=now + timedelta(hours=1),
            )
            new.append(NewClaim(workspace, owner="others", keeper="another"))
        await store.claims.make(new)


@asynccontextmanager
async def _living(store: Store) -> AsyncIterator[None]:
    """The other controller lives, or its workspaces would be taken over."""

    async def beat() -> None:
        while True:
            await store.replicas.beat("another")
            await asyncio.sleep(1)

    beating = asyncio.create_task(beat())
    try:
        yield
    finally:
        beating.cancel()
        await asyncio.wait([beating])


def real(note: Note, *, desktops: int = 30, rounds: int = 3) -> list[Measured]:
    """Claims on a pool of ``desktops``, on an empty one, and how fast a small one is full again."""
    with controller(desktops + 10) as (url, key):
        return asyncio.run(_real(note, url, key, desktops, rounds))


async def _real(note: Note, url: str, key: str, desktops: int, rounds: int) -> list[Measured]:
    async with Carrel(url, key) as carrel:
        note(f"warming {desktops} desktops of {TEMPLATE}")
        cold = [await _claim(carrel) for _ in range(5)]
        await carrel.scale(TEMPLATE, warm=desktops)
        warm: list[float] = []
        for _ in range(rounds):
            await _filled(carrel, desktops)
            note(f"{desktops} claims, {A_SECOND} a second")
            warm += await _open_loop(carrel, desktops)
        await carrel.scale(TEMPLATE, warm=POOL)
        refills = []
        for _ in range(rounds):
            await _filled(carrel, POOL)
            note(f"draining a pool of {POOL}")
            begin = time.perf_counter()
            await _open_loop(carrel, POOL)
            await _filled(carrel, POOL)
            refills.append(time.perf_counter() - begin)
        await carrel.scale(TEMPLATE, warm=0)
        await _filled(carrel, 0)
        empty = [await _claim(carrel) for _ in range(5)]
        note("pausing and resuming")
        clicks, resumes = await _clicks(carrel, rounds * 10)
    return [
        Measured(f"a claim on a warm pool, {A_SECOND} a second", REAL, "ms", tuple(warm)),
        Measured("a claim where nothing was ever warm", REAL, "ms", tuple(cold)),
        Measured("a claim on a pool that is empty", REAL, "ms", tuple(empty)),
        Measured(f"a pool of {POOL}, drained at once, is full again", REAL, "s", tuple(refills)),
        Measured("a click", REAL, "ms", tuple(clicks)),
        Measured("a click in a desktop that is paused", REAL, "ms", tuple(resumes)),
    ]


async def _clicks(carrel: Carrel, count: int) -> tuple[list[float], list[float]]:
    """Milliseconds of each: as it runs, and after a second of standing still."""
    async with await carrel.claim("desktop") as desktop:

        async def click() -> float:
            begin = time.perf_counter()
            await desktop.click(640, 500)
            return (time.perf_counter() - begin) * 1000

        plain, resumed = [await click() for _ in range(count)], []
        for _ in range(count):
            await carrel.pause(desktop.id)
            await asyncio.sleep(1)
            resumed.append(await click())
        return plain, resumed


async def _open_loop(carrel: Carrel, count: int) -> list[float]:
    """Milliseconds of each, asked for one after the other whatever became of those before."""

    async def one(index: int) -> float:
        await asyncio.sleep(index / A_SECOND)
        begin = time.perf_counter()
        made = await carrel.create(TEMPLATE, ttl_seconds=600)
        took = (time.perf_counter() - begin) * 1000
        claimed.append(made)
        return took

    claimed: list[Workspace] = []
    found = await asyncio.gather(*(one(index) for index in range(count)))
    for each in claimed:
        await carrel.release(each.id)
    return found


async def _claim(carrel: Carrel) -> float:
    return (await _open_loop(carrel, 1))[0]


async def _filled(carrel: Carrel, count: int) -> None:
    """Until so many are warm and no others live."""
    deadline = time.monotonic() + FILL_SECONDS
    while time.monotonic() < deadline:
        pool = next(each for each in await carrel.pools() if each.template == TEMPLATE)
        if (pool.warm, pool.warming, pool.live) == (count, 0, 0):
            return
        await asyncio.sleep(0.02)
    raise TimedOut(f"The pool did not come to {count}: {pool}")


@contextmanager
def controller(slots: int) -> Iterator[tuple[str, str]]:
    """A `carrel up` of its own with that many places: its address and key."""
    with tempfile.TemporaryDirectory(prefix="c-") as home:
        settings = [f"CARREL_HOME={home}", f"CARREL_DESKTOPS={slots}"]
        command = [
            "env",
            *settings,
            str(Path(sys.executable).with_name("carrel")),
            "up",
            "--port=0",
        ]
        with (Path(home) / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            assert process.stdout is not None, "it was started with a pipe"
            ready = next((line for line in process.stdout if line.startswith("ready")), None)
            assert ready is not None, (Path(home) / "log").read_text()
            yield ready.split()[1], (Path(home) / "api-key").read_text().strip()
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(UP_SECONDS)


def measure(note: Note) -> list[Measured]:
    """All of it; ``note`` is told what is going on."""
    return [*simulated(note), *real(note)]
