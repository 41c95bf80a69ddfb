"""A simulated fleet for the pools' plan: claims come and go, starts fail, nodes are drained. Pure.

Nothing runs: a desktop is a row here and an hour takes seconds. What is done at random follows
from the seed alone, so what was once found is found again.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone

from controller.pool import Member, MemberState, Plan, Wanted, plan
from controller.room import Room
from workspace.models import Pool

BOOT_SECONDS = 2.5
STOP_SECONDS = 0.5
MEMORY_MIB = 1024


@dataclass(frozen=True)
class Rates:
    """What happens in a second, on average."""

    claims: float = 2.0
    live_seconds: float = 60.0
    failures: float = 0.02  # of starts
    drains: float = 0.01
    changes: float = 0.005  # of a template


@dataclass
class Fleet:
    """``step`` lets time pass, plans, and does what was planned."""

    rooms: list[Room]
    wanted: dict[str, Wanted]
    rates: Rates
    random: random.Random
    now: datetime = datetime(2026, 5, 4, tzinfo=timezone.utc)
    members: dict[str, Member] = field(default_factory=dict)
    hits: int = 0
    misses: int = 0
    _until: dict[str, datetime] = field(default_factory=dict)  # it is warm, released, or gone
    _queue: deque[tuple[str, bool]] = field(default_factory=deque)  # template, is it a misfit
    _made: int = 0

    def step(self, seconds: float) -> Plan:
        self.now += timedelta(seconds=seconds)
        self._go_on()
        self._happen(seconds)
        self._serve()
        planned = self.look()
        for stop in planned.stops:
            self._set(stop.id, "stopping", STOP_SECONDS)
        for start in planned.starts:
            self._add(start.template, "warming", start.node, BOOT_SECONDS)
        return planned

    def look(self) -> Plan:
        """The plan for how things are, with nothing done."""
        waiting = Counter(template for template, _ in self._queue)
        misfits = Counter(template for template, is_misfit in self._queue if is_misfit)
        return plan(
            [
                replace(one, waiting=waiting[one.template], misfits=misfits[one.template])
                for one in self.wanted.values()
            ],
            self.members.values(),
            self._rooms(),
            self.now,
        )

    def be_quiet(self) -> None:
        """From now on nobody comes, nothing fails, and those who are there stay."""
        self.rates = Rates(claims=0, failures=0, drains=0, changes=0)
        self._queue.clear()
        for member in self.members.values():
            if member.state == "live":
                self._until[member.id] = datetime.max.replace(tzinfo=timezone.utc)

    def _rooms(self) -> Sequence[Room]:
        taken = Counter(member.node for member in self.members.values())
        return [
            replace(
                room,
                taken=taken[room.id],
                free_mib=None
                if room.free_mib is None
                else room.free_mib - MEMORY_MIB * taken[room.id],
            )
            for room in self.rooms
        ]

    # What happens by itself.

    def _go_on(self) -> None:
        for name, until in list(self._until.items()):
            if until > self.now:
                continue
            member = self.members[name]
            if member.state == "stopping":
                del self.members[name], self._until[name]
            elif member.state == "live":
                self._set(name, "stopping", STOP_SECONDS)
            elif self.random.random() < self.rates.failures:
                self._fail(member)
            else:
                del self._until[name]
                self.members[name] = replace(member, state="warm")
                self.wanted[member.template] = replace(self.wanted[member.template], failures=0)

    def _fail(self, member: Member) -> None:
        del self.members[member.id], self._until[member.id]
        one = self.wanted[member.template]
        self.wanted[member.template] = replace(
            one, failures=one.failures + 1, failed_at=self.now, reason="It did not come up."
        )

    def _happen(self, seconds: float) -> None:
        names = list(self.wanted)
        for _ in range(self._many(self.rates.claims * seconds)):
            # The first templates are claimed most.
            name = names[min(int(self.random.expovariate(2 / len(names))), len(names) - 1)]
            self._queue.append((name, self.random.random() < 0.05))
            self.wanted[name] = replace(self.wanted[name], claimed_at=self.now)
        while len(self._queue) > 2000:
            self._queue.popleft()  # who waits too long gives up
        for _ in range(self._many(self.rates.drains * seconds)):
            drained = [index for index, room in enumerate(self.rooms) if room.draining]
            is_enough = len(drained) > len(self.rooms) // 20
            index = self.random.choice(drained if is_enough else range(len(self.rooms)))
            self.rooms[index] = replace(self.rooms[index], draining=not is_enough)
        for _ in range(self._many(self.rates.changes * seconds)):
            name = self.random.choice(names)
            shape = f"shape {self.random.randrange(1000)}"
            self.wanted[name] = replace(self.wanted[name], shape=shape, failures=0)

    def _many(self, average: float) -> int:
        return int(average) + (self.random.random() < average % 1)

    def _serve(self) -> None:
        """Claims get a warm one, else one of their own where there is a place, else they wait."""
        warm: dict[str, list[str]] = {}
        for member in self.members.values():
            if member.state == "warm" and member.shape == self.wanted[member.template].shape:
                warm.setdefault(member.template, []).append(member.id)
        room = {room.id: room.slots - room.taken for room in self._rooms() if not room.draining}
        total = Counter(member.template for member in self.members.values())
        left: deque[tuple[str, bool]] = deque()
        for name, is_misfit in self._queue:
            most = self.wanted[name].pool.max
            stay = self.random.expovariate(1 / self.rates.live_seconds)
            if not is_misfit and warm.get(name):
                self._set(warm[name].pop(0), "live", stay)
                self.hits += 1
            elif (
                (most is None or total[name] < most)
                and (node := max(room, key=room.__getitem__, default=None))
                and room[node] > 0
            ):
                self._add(name, "live", node, stay)
                room[node] -= 1
                total[name] += 1
                self.misses += 1
            else:
                left.append((name, is_misfit))
        self._queue = left

    def _set(self, name: str, state: MemberState, seconds: float) -> None:
        self.members[name] = replace(self.members[name], state=state)
        self._until[name] = self.now + timedelta(seconds=seconds)

    def _add(self, template: str, state: MemberState, node: str | None, seconds: float) -> None:
        self._made += 1
        name = f"d{self._made}"
        shape = self.wanted[template].shape
        self.members[name] = Member(name, template, shape, state, node, self.now)
        self._until[name] = self.now + timedelta(seconds=seconds)


def fleet(
    seed: int,
    *,
    nodes: int,
    slots: int,
    templates: int,
    warm: int,
    rates: Rates = Rates(),
    memory_mib: float | None = None,
) -> Fleet:
    """A fleet with nothing in it yet; pools of all kinds."""
    kinds = (
        Pool(warm=warm, surge=max(2, warm // 4), max_age_seconds=900),
        Pool(warm=warm, floor=warm // 4, surge=5, idle_seconds=120, max=warm * 6),
        Pool(warm=warm // 2, surge=2, idle_seconds=60, max_age_seconds=300),
        Pool(floor=warm // 2, surge=4, max_age_seconds=600),
    )
    names = [f"template-{index}" for index in range(templates)]
    return Fleet(
        [Room(f"node-{index}", slots, free_mib=memory_mib) for index in range(nodes)],
        {
            name: Wanted(name, kinds[index % len(kinds)], "shape", MEMORY_MIB)
            for index, name in enumerate(names)
        },
        rates,
        random.Random(seed),
    )
