"""The log of events: how many lines a second are kept, verified and told. ``python -m
benchmarks.events``

On a real PostgreSQL with fsync, and on a file of SQLite. What writes is what the controller writes
with (:class:`controller.events.Events`), what is awaited is the commit.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from benchmarks.report import quantity
from benchmarks.rows import Measured
from controller.channel import Channel, Here
from controller.events import Events
from controller.live import new_id
from controller.store import Seen, Store
from controller.store.listening import Listening
from controller.store.signing import Signer
from controller.store.verifying import verify
from controller.tail import Tail
from tests.postgres import Postgres

ROUNDS = 5
LINES = 4000  # of a round
CALLERS = 64
WORKSPACES = 200
SIGNER = Signer(b"the key of the benchmark")
ACTION = {"actions": [{"type": "click", "x": 640, "y": 400}], "seen": {"effect": "changed"}}


@asynccontextmanager
async def _open(url: str) -> AsyncIterator[tuple[Store, Events, Tail]]:
    channel: Channel = Here() if url.startswith("sqlite") else Listening(url)
    store = Store(url)
    store.appended = channel.told
    tail = Tail(store, channel)
    async with store.run(), (events := Events(store)).run(), tail.run():
        yield store, events, tail


async def _written(events: list[Events], lines: int, callers: int) -> tuple[float, list[float]]:
    """Seconds for all, and milliseconds of each; each caller writes again once its line is kept."""
    names = [new_id() for _ in range(WORKSPACES)]
    left = iter(range(lines))
    took: list[float] = []

    async def write(own: Events) -> None:
        for n in left:
            begin = time.perf_counter()
            await own.record("act", actor="bench", workspace_id=names[n % WORKSPACES], **ACTION)
            took.append((time.perf_counter() - begin) * 1000)

    began = time.perf_counter()
    await asyncio.gather(*(write(events[place % len(events)]) for place in range(callers)))
    return time.perf_counter() - began, took


async def _told(writer: Events, reader: Tail, many: int) -> list[float]:
    """Milliseconds from the commit of a line until who follows has it."""
    committed: dict[int, float] = {}
    seen: dict[int, float] = {}
    all_seen = asyncio.Event()

    async def read() -> None:
        async with reader.follow(Seen(), None) as groups:
            async for group in groups:
                now = time.perf_counter()
                for told in group:
                    seen[int(str(told.event.data["n"]))] = now
                if len(seen) == many:
                    all_seen.set()

    reading = asyncio.create_task(read())
    await asyncio.sleep(0.5)
    for n in range(many):
        await writer.record("k", actor="bench", n=n)
        committed[n] = time.perf_counter()
        await asyncio.sleep(0.01)
    await asyncio.wait_for(all_seen.wait(), 30)
    reading.cancel()
    await asyncio.wait([reading])
    return [max(0.0, seen[n] - committed[n]) * 1000 for n in range(many)]


async def _measure(url: str, kind: str, controllers: int) -> list[Measured]:
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(_open(url)) for _ in range(controllers)]
        events = [each[1] for each in opened]
        rates, took, single = [], list[float](), list[float]()
        for _ in range(ROUNDS):
            seconds, each = await _written(events, LINES, CALLERS)
            rates.append(LINES / seconds)
            took += each
            single += (await _written(events[:1], 200, 1))[1]
        latency = await _told(events[0], opened[-1][2], 100)
        store = opened[0][0]
        signing = []
        while True:
            begin = time.perf_counter()
            made = await store.checkpoints.make(SIGNER)
            if made is None:
                break
            signing.append(made.lines / (time.perf_counter() - begin))
        speeds = []
        for _ in range(3):
            begin = time.perf_counter()
            report = await verify(url, SIGNER, lambda finding: sys.exit(str(finding)))
            speeds.append(report.lines / (time.perf_counter() - begin))
    who = f"{kind}, {controllers} controllers" if controllers > 1 else kind
    return [
        Measured(f"events a second, {CALLERS} callers", who, "/s", tuple(rates)),
        Measured(f"an event, {CALLERS} callers", who, "ms", tuple(took)),
        Measured("an event, one caller", who, "ms", tuple(single)),
        Measured("from its commit to a reader", who, "ms", tuple(latency)),
        Measured("lines signed a second", who, "/s", tuple(signing)),
        Measured("lines verified a second", who, "/s", tuple(speeds)),
    ]


def measure() -> list[Measured]:
    found: list[Measured] = []
    with tempfile.TemporaryDirectory(prefix="c-pg-") as folder:
        Path(folder).chmod(0o755)
        server = Postgres(Path(folder), "fsync=on", "full_page_writes=on", "shared_buffers=128MB")
        try:
            for controllers in (1, 2):
                url = server.database()
                found += asyncio.run(_measure(url, "PostgreSQL", controllers))
        finally:
            server.stop()
    with tempfile.TemporaryDirectory(prefix="c-") as folder:
        url = f"sqlite+aiosqlite:///{folder}/carrel.db"
        found += asyncio.run(_measure(url, "SQLite", 1))
    return found


def main() -> None:
    found = measure()
    if "--json" in sys.argv[1:]:
        print(json.dumps([each.row() for each in found]))
        return
    for each in found:
        told = f"p50 {quantity(each.p50)}, p95 {quantity(each.p95)}, n {len(each.samples)}"
        print(f"{each.task}, {each.who}: {told} {each.unit}")


if __name__ == "__main__":
    main()
