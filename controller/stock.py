"""What there is to plan for, read from the store and the cluster and put in the plan's words."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from controller.keeping import Keeping
from controller.live import shape
from controller.pool import Member, MemberState, Wanted
from controller.room import Room
from controller.store.operated import Changes
from controller.store.population import Group, Queued
from controller.store.warm import Warm
from controller.templates import Templates
from controller.warmed import Warmed
from workspace.backends.footprint import Footprint
from workspace.models import Node, Pool, Template

FRESH_SECONDS = 1.0  # what another controller changed is known here by then
# A claim of another controller that waits so long beside warm ones must want another kind.
MISFIT_SECONDS = 10.0
OVERLAP_SECONDS = 5.0  # rows are written a moment after their time
CHANGED_AT = "changed_at"  # kept beside the pool's own fields


@dataclass(frozen=True)
class Failing:
    """Starts of a template that failed, one after the other.

    ``of`` says what was started and when operators last changed its pool: once that is another,
    the failures are forgotten.
    """

    count: int
    at: float  # by the clock that only goes forward
    reason: str
    of: tuple[str, str]


@dataclass(frozen=True)
class Stock:
    """All that a plan is made from, and the rows that it is about."""

    templates: Mapping[str, Template]  # with their pools as they are told now
    wanted: Sequence[Wanted]
    members: Sequence[Member]
    rooms: Sequence[Room]
    rows: Sequence[Warm]
    versions: Mapping[str, tuple[str, str]]  # see Failing.of
    now: datetime

    @property
    def is_void(self) -> bool:
        """Whether nothing is kept and nothing is to be."""
        return not self.rows and not any(pool_keeps(one.pool) for one in self.wanted)


def pool_keeps(pool: Pool) -> bool:
    return pool.warm > 0 or pool.floor > 0


def told(template: Template, changes: Changes) -> Template:
    """The template with what operators have changed of its pool."""
    given = {name: value for name, value in changes.items() if name in Pool.model_fields}
    return template.model_copy(update={"pool": template.pool.model_copy(update=given)})


def changed_at(changes: Changes) -> datetime | None:
    return datetime.fromisoformat(changes[CHANGED_AT]) if CHANGED_AT in changes else None


class Stocktaking:
    """Looks, for one controller."""

    def __init__(self, keeping: Keeping, templates: Templates) -> None:
        self._keeping = keeping
        self._store = keeping.store
        self._templates = templates
        self._changes: tuple[float, Mapping[str, Changes]] = (-FRESH_SECONDS, {})
        self._claimed: dict[str, datetime] = {}
        self._claimed_until: datetime | None = None

    async def changes(self, *, fresh: bool = False) -> Mapping[str, Changes]:
        """What operators have changed of each pool."""
        read_at, found = self._changes
        if fresh or time.monotonic() - read_at >= FRESH_SECONDS:
            found = await self._store.operated.pools()
            self._changes = (time.monotonic(), found)
        return found

    async def look(
        self,
        own: Mapping[str, Warmed],
        past: Container[str],
        failing: Mapping[str, Failing],
        *,
        whole: bool = True,
    ) -> Stock:
        """How it is now; unless ``whole``, no more than it takes to see that there is nothing.

        What is ``past`` was kept here until just now: a row that was read before does not count.

        Raises:
            Unavailable: the store or the cluster does not answer.
        """
        now = datetime.now(timezone.utc)
        changes = await self.changes()
        templates = {
            each.name: told(each, changes.get(each.name, {})) for each in self._templates.all()
        }
        rows: Sequence[Warm] = await self._store.warm.all()
        if not whole and not rows and not any(map(pool_keeps, _pools(templates))):
            return Stock(templates, (), (), (), rows, {}, now)
        await self._note_claims(templates, now)
        queued = await self._store.population.queued()
        groups = await self._store.population.placed()
        nodes = await self._keeping.cluster.nodes()
        drains = await self._store.operated.draining()
        versions = {name: _version(each, changes) for name, each in templates.items()}
        waiting, misfits = self._waiting(queued, rows, templates, now)
        wanted = [
            _wanted(
                each,
                self._keeping.cluster.takes(each),
                claimed_at=_last(self._claimed.get(name), changed_at(changes.get(name, {}))),
                waiting=waiting[name],
                misfits=misfits[name],
                failing=failing.get(name),
                version=versions[name],
                now=now,
            )
            for name, each in templates.items()
        ]
        rows = [row for row in rows if row.id not in past]  # by now
        members = _members(own, rows, groups, nodes)
        return Stock(templates, wanted, members, _rooms(nodes, drains), rows, versions, now)

    async def _note_claims(self, templates: Mapping[str, Template], now: datetime) -> None:
        since = self._claimed_until
        if since is None:
            longest = max((pool.idle_seconds or 0 for pool in _pools(templates)), default=0)
            since = now - timedelta(seconds=longest)
        since = min(since, now - timedelta(seconds=OVERLAP_SECONDS))  # should the clock go back
        claimed = await self._store.population.claimed(since)
        self._claimed_until = now - timedelta(seconds=OVERLAP_SECONDS)
        self._claimed = {name: at for name, at in self._claimed.items() if name in templates}
        self._claimed |= claimed

    def _waiting(
        self,
        queued: Sequence[Queued],
        rows: Sequence[Warm],
        templates: Mapping[str, Template],
        now: datetime,
    ) -> tuple[Counter[str], Counter[str]]:
        """How many claims of each template wait, and how many of them no warm one would do for."""
        shapes = {name: shape(template) for name, template in templates.items()}
        is_stocked = {row.template for row in rows if row.state == "warm"}
        waiting: Counter[str] = Counter()
        misfits: Counter[str] = Counter()
        for claim in queued:
            waiting[claim.template] += 1
            live = self._keeping.live.get(claim.id)
            if live is not None:
                misfits[claim.template] += live.shape != shapes.get(claim.template)
            elif claim.template in is_stocked:
                waited = (now - claim.created_at).total_seconds()
                misfits[claim.template] += waited > MISFIT_SECONDS
        return waiting, misfits


def _version(template: Template, changes: Mapping[str, Changes]) -> tuple[str, str]:
    return shape(template), str(changes.get(template.name, {}).get(CHANGED_AT, ""))


def _pools(templates: Mapping[str, Template]) -> Iterable[Pool]:
    return (template.pool for template in templates.values())


def _last(*moments: datetime | None) -> datetime | None:
    return max((moment for moment in moments if moment is not None), default=None)


def _wanted(
    template: Template,
    takes: Footprint,
    *,
    claimed_at: datetime | None,
    waiting: int,
    misfits: int,
    failing: Failing | None,
    version: tuple[str, str],
    now: datetime,
) -> Wanted:
    if failing is not None and failing.of != version:
        failing = None
    failed_at = None
    if failing is not None:
        failed_at = now - timedelta(seconds=time.monotonic() - failing.at)
    return Wanted(
        template.name,
        template.pool,
        version[0],
        takes.memory_mib,
        labels=template.node_labels,
        millicpus=takes.millicpus,
        claimed_at=claimed_at,
        waiting=waiting,
        misfits=misfits,
        failures=failing.count if failing else 0,
        failed_at=failed_at,
        reason=failing.reason if failing else "",
    )


def _members(
    own: Mapping[str, Warmed],
    rows: Iterable[Warm],
    groups: Iterable[Group],
    nodes: Iterable[Node],
) -> list[Member]:
    """Those kept here, those that another controller keeps, and those that are claimed."""
    names = Counter(node.name for node in nodes)
    ids = {node.name: node.id for node in nodes if names[node.name] == 1}
    members = []
    for each in own.values():
        state: MemberState = "stopping" if each.is_ending else each.row.state
        row = each.row
        members.append(Member(row.id, row.template, row.shape, state, each.node, row.created_at))
    for row in rows:
        if row.id not in own:
            node = ids.get(row.node or "")
            members.append(Member(row.id, row.template, row.shape, row.state, node, row.created_at))
    long_ago = datetime.min.replace(tzinfo=timezone.utc)
    for group in groups:
        state = "stopping" if group.state == "releasing" else "live"
        one = Member("", group.template, "", state, ids.get(group.node or ""), long_ago)
        members += [one] * group.many  # they are only counted
    return members


def _free_mib(node: Node) -> float | None:
    """What is free of its memory, and not promised to those who are there."""
    free = None if node.memory_free_mib is None else float(node.memory_free_mib)
    if node.desktops_mib is None or node.desktops_mib_taken is None:
        return free
    unpromised = float(node.desktops_mib - node.desktops_mib_taken)
    return unpromised if free is None else min(free, unpromised)


def _free_millicpus(node: Node) -> float | None:
    if node.desktops_millicpu is None or node.desktops_millicpu_taken is None:
        return None
    return float(node.desktops_millicpu - node.desktops_millicpu_taken)


def _rooms(nodes: Sequence[Node], drains: Mapping[str, datetime]) -> list[Room]:
    # Nothing is placed on a suspect as long as there is another node (placement.choose).
    is_any_sound = any(
        node.alive and node.slots and not node.suspect and node.id not in drains for node in nodes
    )
    return [
        Room(
            node.id,
            node.desktops if node.suspect and is_any_sound else node.slots,
            node.desktops,
            _free_mib(node),
            draining=node.id in drains,
            labels=node.labels,
            free_millicpus=_free_millicpus(node),
        )
        for node in nodes
        if node.alive
    ]
