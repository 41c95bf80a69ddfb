"""What the pools lack and have too much of: the plan of one pass. Pure.

:func:`plan` is told what is wanted, what is there and what room there is, and says what to start
and what to stop. It has no clock and keeps nothing between passes, so whoever runs it may die at
any moment and another goes on. Three things hold of every plan, whatever it is told:

- nothing is started beyond a template's ``max`` or ``surge`` or a node's places or memory, where
  what is being stopped counts as still there;
- a claimed desktop is never stopped;
- room that claims wait for is theirs: no pool takes it, and idle ones give up theirs.

Told again once it has been done, it asks for nothing more.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Literal
from zlib import crc32

from controller.room import Room, Rooms
from workspace.fleet import PoolStatus
from workspace.models import Pool

MemberState = Literal["warming", "warm", "live", "stopping"]
_State = Literal["filled", "filling", "idle", "full", "backing_off", "quarantined"]

BACK_OFF_SECONDS = 1.0  # after one failure; each that follows doubles it
MOST_BACK_OFF_SECONDS = 300.0
QUARANTINE_FAILURES = 5  # in a row
RECENT_SECONDS = 600.0  # a template claimed since is filled before others
AGE_SPREAD = 0.2  # of max_age_seconds, the last of it: when in that time differs by desktop


@dataclass(frozen=True)
class Wanted:
    """A template, and what is to be kept of it.

    ``claimed_at`` is when one was last wanted. ``waiting`` claims stand in the queue; of them
    ``misfits`` want one that differs from the template, so that no warm one will do.
    """

    template: str
    pool: Pool
    shape: str
    memory_mib: int
    claimed_at: datetime | None = None
    labels: Mapping[str, str] = field(default_factory=dict)  # of the nodes that it may be on
    millicpus: int = 0
    waiting: int = 0
    misfits: int = 0
    failures: int = 0  # in a row, until now
    failed_at: datetime | None = None
    reason: str = ""  # of the last failure


@dataclass(frozen=True)
class Member:
    """A desktop that is there; ``node`` is None while nobody knows where."""

    id: str
    template: str
    shape: str
    state: MemberState
    node: str | None
    created_at: datetime


@dataclass(frozen=True)
class Start:
    """One more of a template; ``node`` is where it has its place in this plan."""

    template: str
    node: str | None


@dataclass(frozen=True)
class Stop:
    id: str
    reason: str


@dataclass(frozen=True)
class Plan:
    starts: list[Start]
    stops: list[Stop]
    states: dict[str, PoolStatus]


def plan(
    wanted: Iterable[Wanted], members: Iterable[Member], rooms: Sequence[Room], now: datetime
) -> Plan:
    """What to start and to stop now, and how each pool is.

    Those of a template that is not wanted at all are stopped unless they are claimed.
    """
    there = list(members)
    pools = {one.template: _Pool(one, now) for one in wanted}
    draining = frozenset(room.id for room in rooms if room.draining)
    stops: list[Stop] = []
    for member in there:
        if member.template in pools:
            pools[member.template].take(member, draining)
        elif member.state in ("warm", "warming"):
            stops.append(Stop(member.id, "its template is gone"))
    for pool in pools.values():
        pool.drop_surplus()
    places = Rooms(rooms, [(member.node, member.state == "stopping") for member in there])
    _make_room(pools.values(), places)
    starts = _fill(pools.values(), places)
    for pool in pools.values():
        pool.drop_old()
        stops += [Stop(member.id, reason) for member, reason in pool.stops]
    return Plan(starts, stops, {name: pool.status() for name, pool in pools.items()})


def back_off_seconds(failures: int) -> float:
    """How long nothing is started after that many failures in a row."""
    if failures <= 0:
        return 0.0
    return float(min(MOST_BACK_OFF_SECONDS, BACK_OFF_SECONDS * 2 ** min(failures - 1, 20)))


class _Pool:
    """One template in a pass: what it has, less what the pass has taken from it."""

    def __init__(self, wanted: Wanted, now: datetime) -> None:
        self.wanted = wanted
        self.pool = wanted.pool
        self._now = now
        age = timedelta(seconds=self.pool.max_age_seconds)
        self._expired_before = now - age
        self._due_before = now - age * (1 - AGE_SPREAD)
        self.fresh: list[Member] = []
        self.due: list[Member] = []  # as good as any, but to be replaced by now
        self.coming: list[Member] = []
        self.counts: dict[MemberState, int] = {"warming": 0, "warm": 0, "live": 0, "stopping": 0}
        self.stops: list[tuple[Member, str]] = []
        self.started = 0
        self.promised = 0  # places to claims that wait
        self.lack = ""  # why no more could be started
        self.target = self._target()

    def _target(self) -> int:
        limit = self.pool.idle_seconds
        if limit is None or self.is_claimed_within(limit):
            return max(self.pool.warm, self.pool.floor)
        return self.pool.floor

    def is_claimed_within(self, seconds: float) -> bool:
        claimed = self.wanted.claimed_at
        return claimed is not None and (self._now - claimed).total_seconds() < seconds

    @property
    def want(self) -> int:
        """The target, as far as ``max`` leaves it room."""
        if self.pool.max is None:
            return self.target
        return max(0, min(self.target, self.pool.max - self.counts["live"]))

    @property
    def leaving(self) -> int:
        return self.counts["stopping"] + len(self.stops)

    @property
    def headroom(self) -> float:
        """How many more ``max`` allows beside all that is there, also what is leaving."""
        if self.pool.max is None:
            return math.inf
        return self.pool.max - sum(self.counts.values()) - self.started

    # What there is.

    def find_place(self, places: Rooms) -> str | None:
        """The node of a place for one more, which is taken then."""
        wanted = self.wanted
        return places.take(wanted.memory_mib, wanted.labels, wanted.millicpus)

    def take(self, member: Member, draining: Collection[str]) -> None:
        """Count a member in; one that no claim of the template can have is stopped."""
        self.counts[member.state] += 1
        if member.state not in ("warm", "warming"):
            return
        if member.node in draining:
            self.stops.append((member, "its node is drained"))
        elif member.shape != self.wanted.shape:
            self.stops.append((member, "its template has changed"))
        elif member.state == "warming":
            self.coming.append(member)
        elif self._is_due(member):
            self.due.append(member)
        else:
            self.fresh.append(member)

    def _is_due(self, member: Member) -> bool:
        if member.created_at > self._due_before:
            return False
        part = AGE_SPREAD * crc32(member.id.encode()) / 2**32
        age = timedelta(seconds=self.pool.max_age_seconds * (1 - part))
        return self._now - member.created_at >= age

    # What is too much.

    def drop_surplus(self) -> None:
        """Stop what is more than wanted: what is still starting first, then the oldest."""
        surplus = len(self.fresh) + len(self.coming) - self.want
        if surplus <= 0:
            return
        self.sort()
        for those in (self.coming, self.fresh):
            many = min(surplus, len(those))
            self.stops += [(member, "more than wanted") for member in those[:many]]
            del those[:many]
            surplus -= many

    def drop_old(self) -> None:
        """Stop old ones that are replaced, or that must go so that they can be.

        What is too old for certain goes in any case, but no more of it at a time than would be
        started: its own deadline ends what is left.
        """
        replaced = max(0, len(self.fresh) + len(self.due) - self.want)
        must = sum(member.created_at <= self._expired_before for member in self.due)
        if self.lack:
            must = len(self.due)
        allowed = max(0, self.pool.surge - self.leaving - len(self.coming) - self.started)
        self.due.sort(key=_created)
        many = max(replaced, min(must, allowed))
        self.stops += [(member, "too old") for member in self.due[:many]]
        del self.due[:many]

    def sort(self) -> None:
        """Put that first which is least to be missed."""
        self.coming.sort(key=_created, reverse=True)
        self.due.sort(key=_created)
        self.fresh.sort(key=_created)

    # What claims wait for.

    def claims(self) -> list[bool]:
        """Those that need a place of their own, by whether no warm one would do.

        What is already starting is for the others, and beyond ``max`` there is no place for any.
        Where idle ones of the template itself stand in the way of ``max``, they go.
        """
        if not self.wanted.waiting:
            return []
        misfits = min(self.wanted.misfits, self.wanted.waiting)
        others = max(0, self.wanted.waiting - misfits - len(self.coming))
        self.sort()
        while self.headroom + self.leaving < misfits and self.give_up(0, lambda node: True):
            pass
        room = max(0, self.headroom + self.leaving)
        self.promised = int(min(misfits + others, room))
        return ([True] * misfits + [False] * others)[: self.promised]

    def give_up(self, keep: int, suits: Callable[[str | None], bool]) -> Member | None:
        """Stop one on a node that suits, unless no more than ``keep`` would be left."""
        if len(self.coming) + len(self.due) + len(self.fresh) <= keep:
            return None
        for those in (self.coming, self.due, self.fresh):
            for index, member in enumerate(those):
                if suits(member.node):
                    del those[index]
                    self.stops.append((member, "a claim waits for its place"))
                    return member
        return None

    # What is too little.

    def may_start(self) -> bool:
        """Whether another is wanted and its own limits allow it; notes what does not."""
        if self.filled >= 1 or self.is_quarantined or self.is_backing_off():
            return False
        at_a_time = 1 if self.wanted.failures else self.pool.surge  # first see one succeed
        if self.counts["warming"] + self.started >= at_a_time:
            return False
        if self.headroom <= self.promised:
            self.lack = self._lack_by_max()
            return False
        return True

    @property
    def filled(self) -> float:
        """Which part of what is wanted is there, or will be."""
        if self.want == 0:
            return 1
        return (len(self.fresh) + len(self.coming) + self.started) / self.want

    @property
    def is_quarantined(self) -> bool:
        return self.wanted.failures >= QUARANTINE_FAILURES

    def is_backing_off(self) -> bool:
        failed = self.wanted.failed_at
        if failed is None:
            return False
        return (self._now - failed).total_seconds() < back_off_seconds(self.wanted.failures)

    def _lack_by_max(self) -> str:
        return f"There may be {self.pool.max} of them at most, claimed ones included."

    # How it is.

    def status(self) -> PoolStatus:
        state, reason = self._state()
        return PoolStatus(
            template=self.wanted.template,
            pool=self.pool,
            state=state,
            reason=reason,
            target=self.target,
            warm=self.counts["warm"],
            warming=self.counts["warming"],
            live=self.counts["live"],
            waiting=self.wanted.waiting,
        )

    def _state(self) -> tuple[_State, str]:
        usable = len(self.fresh) + len(self.due)
        if self.is_quarantined:
            return "quarantined", f"{self.wanted.failures} starts failed. {self.wanted.reason}"
        if self.target == 0:
            return "idle", ""
        if usable >= self.target:
            return "filled", ""
        if self.is_backing_off():
            return "backing_off", self.wanted.reason
        if self.lack:
            return "full", self.lack
        if usable >= self.want:
            return "full", self._lack_by_max()
        return "filling", self.wanted.reason


def _created(member: Member) -> tuple[datetime, str]:
    return member.created_at, member.id


def _make_room(pools: Collection[_Pool], places: Rooms) -> None:
    """Set room aside for the claims that wait, and have idle desktops give up what it lacks."""
    claims = [(pool, is_misfit) for pool in pools for is_misfit in pool.claims()]
    without = [claim for claim in claims if claim[0].find_place(places) is None]
    if not without:
        return
    leaving = places.leaving + sum(
        places.is_open(member.node) for pool in pools for member, _ in pool.stops
    )
    lacking = without[leaving:]
    if lacking:
        victims = _Victims(pools, places)
        lacking = [claim for claim in lacking if not victims.give_up(*claim)]
    if len(lacking) < len(without):  # what will be free is for claims
        places.close("Claims wait for the room there is.")


class _Victims:
    """Idle desktops, in the order in which they may be given up for claims."""

    def __init__(self, pools: Collection[_Pool], places: Rooms) -> None:
        never = datetime.min.replace(tzinfo=timezone.utc)
        self._pools = sorted(
            pools, key=lambda pool: (pool.wanted.claimed_at or never, pool.wanted.template)
        )
        self._places = places
        self._in_vain: set[tuple[int, int, tuple[tuple[str, str], ...], _Pool | None]] = set()
        for pool in self._pools:
            pool.sort()
            for member in (*pool.coming, *pool.due, *pool.fresh):
                places.expect(member.node, pool.wanted.memory_mib, pool.wanted.millicpus)

    def give_up(self, claimed: _Pool, is_misfit: bool) -> bool:
        """Stop one for a claim, none below its pool's floor unless nothing else helps."""
        memory, labels = claimed.wanted.memory_mib, claimed.wanted.labels
        millicpus = claimed.wanted.millicpus
        spared = None if is_misfit else claimed
        kind = (memory, millicpus, tuple(sorted(labels.items())), spared)
        if kind in self._in_vain:
            return False

        def could_hold(node: str | None) -> bool:
            return self._places.could_hold(node, memory, labels, millicpus)

        for is_floor_kept in (True, False):
            for pool in self._pools:
                keep = pool.pool.floor if is_floor_kept else 0
                if pool is not spared and (member := pool.give_up(keep, could_hold)):
                    self._places.promise(member.node, memory, millicpus)
                    return True
        self._in_vain.add(kind)
        return False


def _fill(pools: Iterable[_Pool], places: Rooms) -> list[Start]:
    """What to start: one at a time for the emptiest pool, those with claims before the others."""

    def rank(pool: _Pool) -> tuple[int, float, str]:
        is_asked_for = pool.is_claimed_within(RECENT_SECONDS)
        tier = 0 if pool.wanted.waiting else 1 if is_asked_for else 2
        return tier, pool.filled, pool.wanted.template

    starts = []
    queue = [(rank(pool), pool) for pool in pools]  # templates differ, so pools are not compared
    heapq.heapify(queue)
    while queue:
        _, pool = heapq.heappop(queue)
        if not pool.may_start():
            continue
        node = pool.find_place(places)
        if node is None:
            wanted = pool.wanted
            pool.lack = places.lack(wanted.memory_mib, wanted.labels, wanted.millicpus)
            continue
        pool.started += 1
        starts.append(Start(pool.wanted.template, node))
        heapq.heappush(queue, (rank(pool), pool))
    return starts
