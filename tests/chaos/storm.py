"""Claims and releases by the hundred while controllers, actors and sandboxes are killed.

Callers claim, look whether the desktop was never anybody's before, act, and release, each time
through either of two controllers. Meanwhile one thing after another is killed (SIGKILL), drawn by a
seed. Afterwards the books are balanced: what was acknowledged is in the log, no desktop was had
twice, and nothing is left on the machine.
"""

from __future__ import annotations

import asyncio
import random
import signal
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any  # JSON values

import httpx
import psutil

from controller.settings import Settings
from tests.chaos.fleet import Controller, Fleet
from tests.leaks import cgroups
from tests.waiting import eventually

Json = dict[str, Any]  # Any: JSON values

CALLERS = 6
WARM = 2
SLOTS = CALLERS + WARM + 2
KILLS_APART = (0.5, 2.5)  # seconds
ANSWER_SECONDS = 90.0  # that a caller goes on asking for
# What is killed, and how often beside the others.
TARGETS = {"controller": 1, "actor": 3, "supervisor": 3, "bwrap": 3}


@dataclass
class Books:
    """What was done, what was answered, and what of it was wrong."""

    claimed: dict[str, Json] = field(default_factory=dict)
    acted: Counter[str] = field(default_factory=Counter)
    released: set[str] = field(default_factory=set)
    killed: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    took: list[float] = field(default_factory=list)
    doubles: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    strays: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def is_balanced(self) -> bool:
        return not (self.doubles or self.lost or self.strays)

    def told(self) -> str:
        """The figures, for people."""
        took = sorted(self.took) or [0.0]
        return "\n".join(
            (
                f"{len(self.claimed)} claims in {self.seconds:.0f} s, {len(self.released)} released"
                f" by their callers, {sum(self.acted.values())} actions",
                f"claim: median {statistics.median(took) * 1000:.0f} ms, "
                f"p99 {took[int(len(took) * 0.99)] * 1000:.0f} ms",
                f"killed: {_counted(self.killed)}",
                f"failed on the way, and said so: {_counted(self.refused)}",
                f"double claims: {len(self.doubles)} {self.doubles[:5] or ''}",
                f"lost acknowledged events: {len(self.lost)} {self.lost[:5] or ''}",
                f"strays: {len(self.strays)} {self.strays[:5] or ''}",
            )
        )


def _counted(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counter.most_common()) or "nothing"


class Storm:
    """One run over a fleet of two controllers or more."""

    def __init__(self, fleet: Fleet, *, seed: int) -> None:
        self._fleet = fleet
        self._dice = random.Random(seed)
        self._clients: dict[str, httpx.AsyncClient] = {}
        self._left = 0
        self.books = Books()

    async def run(self, cycles: int, seconds: float) -> Books:
        """So many cycles, or as many as the time allows; then the books."""
        began = time.monotonic()
        self._left = cycles
        self._clients = {each.url: each.client() for each in self._fleet.controllers}
        try:
            await self._pool(WARM)
            killing = asyncio.create_task(self._kill())
            until = began + seconds
            await asyncio.gather(*(self._call(until) for _ in range(CALLERS)))
            killing.cancel()
            await asyncio.gather(killing, return_exceptions=True)
            self.books.seconds = time.monotonic() - began
            await self._calm()
            await self._audit()
        finally:
            for client in self._clients.values():
                await client.aclose()
        return self.books

    # Callers.

    async def _call(self, until: float) -> None:
        while self._left > 0 and time.monotonic() < until:
            self._left -= 1
            if (made := await self._claim()) is None:
                self._left += 1
                continue
            await self._use(made)
            await self._release(made["id"])

    async def _claim(self) -> Json | None:
        body = {"template": "light", "key": f"{self._dice.getrandbits(64):x}", "ttl_seconds": 600}
        began = time.monotonic()
        answer = await self._ask("POST", "/v1/workspaces", body)
        if answer is None or answer.status_code != 201:
            return None
        made: Json = answer.json()
        self.books.took.append(time.monotonic() - began)
        if any(each["sandbox"] == made["sandbox"] for each in self.books.claimed.values()):
            self.books.doubles.append(made["sandbox"])
        self.books.claimed[made["id"]] = made
        return made

    async def _use(self, made: Json) -> None:
        """Leave a mark in it, which nobody left there before."""
        path = f"/v1/workspaces/{made['id']}"
        mark = f"{path}/files?path=mark"
        before = await self._ask("GET", mark, again=False)
        if before is not None and before.status_code == 200:
            self.books.doubles.append(f"{made['id']} had been {before.text[:20]}'s")
        await self._ask("PUT", mark, made["id"], again=False)
        for _ in range(self._dice.randint(1, 4)):
            action = {"type": "move", "x": self._dice.randint(0, 700), "y": 5}
            answer = await self._ask("POST", f"{path}/actions", action, again=False)
            if answer is not None and answer.status_code == 200:
                self.books.acted[made["id"]] += 1
        after = await self._ask("GET", mark, again=False)
        if after is not None and after.status_code == 200 and after.text != made["id"]:
            self.books.doubles.append(f"{made['id']} became {after.text[:20]}'s")

    async def _release(self, workspace_id: str) -> None:
        answer = await self._ask("DELETE", f"/v1/workspaces/{workspace_id}")
        if answer is not None and answer.status_code == 204:
            self.books.released.add(workspace_id)

    async def _ask(
        self, method: str, path: str, body: Json | str | None = None, *, again: bool = True
    ) -> httpx.Response | None:
        """Any controller's answer; what may be asked twice is, when none came."""
        until = time.monotonic() + ANSWER_SECONDS
        while True:
            client = self._dice.choice(list(self._clients.values()))
            content = {"content": body} if isinstance(body, str) else {"json": body}
            try:
                answer = await client.request(method, path, **content)
            except httpx.TransportError as error:
                self.books.refused[type(error).__name__] += 1
                answer = None
            else:
                if answer.status_code >= 400 and answer.status_code != 404:
                    self.books.refused[answer.json()["code"]] += 1
                if answer.status_code != 503:
                    return answer
            if not again or time.monotonic() > until:
                return answer
            await asyncio.sleep(0.1)

    # The killer.

    async def _kill(self) -> None:
        names, weights = list(TARGETS), list(TARGETS.values())
        while True:
            await asyncio.sleep(self._dice.uniform(*KILLS_APART))
            target = self._dice.choices(names, weights)[0]
            if target == "controller":
                controller = self._dice.choice(self._fleet.controllers)
                self.books.killed[target] += 1
                await asyncio.shield(asyncio.to_thread(_kill_and_start, controller))
            elif victims := await asyncio.to_thread(self._victims, target):
                with suppress(psutil.NoSuchProcess):
                    self._dice.choice(victims).kill()
                    self.books.killed[target] += 1

    def _victims(self, target: str) -> list[psutil.Process]:
        actors = self._fleet.actors()
        if target == "actor":
            return actors
        supervisors = _below(actors, lambda it: any("supervisor.py" in each for each in it))
        if target == "supervisor":
            return supervisors
        return _below(supervisors, lambda it: it[0].endswith("bwrap"))

    # The end.

    async def _pool(self, warm: int) -> None:
        answer = await self._ask("PATCH", "/v1/pools/light", {"warm": warm})
        assert answer is not None, "one of them serves"
        assert answer.status_code == 200, answer.text

    async def _calm(self) -> None:
        """Nobody is killed any more: what still lives is released."""
        for controller in self._fleet.controllers:
            if not controller.is_alive:
                await asyncio.to_thread(controller.start)
        await self._pool(0)
        for each in await self._pages("/v1/workspaces", "workspaces"):
            await self._release(each["id"])
        with suppress(AssertionError):  # the books tell what is left
            await eventually(lambda: not self._remains(), 90)
        self.books.strays = self._remains()

    def _remains(self) -> list[str]:
        """What is left of desktops: processes, sockets, homes, and control groups."""
        found = [f"actor {each.pid}" for each in self._fleet.actors()]
        for controller in self._fleet.controllers:
            settings = Settings(home=controller.home)
            for folder in (settings.sockets, settings.disks):
                if folder.is_dir():
                    found += [str(each) for each in folder.iterdir() if each.is_dir()]
        had = {each["sandbox"] for each in self.books.claimed.values()}
        return found + [each for each in cgroups() if each.rpartition("carrel-")[2] in had]

    async def _audit(self) -> None:
        """Whether the log and the rows tell all that was acknowledged, once."""
        told: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for event in await self._pages("/v1/events", "events"):
            told[event["workspace_id"] or ""][event["kind"]] += 1
        lost = self.books.lost
        for each in self.books.claimed:
            if told[each]["claim"] != 1:
                lost.append(f"{told[each]['claim']} claims of {each}")
            if told[each]["act"] < self.books.acted[each]:
                lost.append(f"acts of {each}")
            ends = told[each]["released"] + told[each]["failed"]
            answer = await self._ask("GET", f"/v1/workspaces/{each}")
            state = answer.json().get("state") if answer is not None else None
            if each in self.books.released and (ends != 1 or state not in ("released", "failed")):
                lost.append(f"{each} is {state} and told of {ends} ends")

    async def _pages(self, path: str, what: str) -> list[Json]:
        found: list[Json] = []
        after: object = ""
        while True:
            more = f"&after={after}" if after else ""
            answer = await self._ask("GET", f"{path}?limit=100{more}")
            assert answer is not None, "one of them serves"
            page: list[Json] = answer.json()[what]
            found += page
            if len(page) < 100:
                return found
            after = page[-1]["id"]


def _kill_and_start(controller: Controller) -> None:
    controller.end(signal.SIGKILL)
    controller.start()


def _below(
    processes: list[psutil.Process], wanted: Callable[[list[str]], bool]
) -> list[psutil.Process]:
    found = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            for child in process.children():
                with suppress(psutil.NoSuchProcess):
                    if (command := child.cmdline()) and wanted(command):
                        found.append(child)
    return found
