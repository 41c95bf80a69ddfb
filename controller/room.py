"""The room on the nodes, as one pass of the plan divides it. Pure."""

from __future__ import annotations

import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ray_cluster.labels import fits, told

_ANY: Mapping[str, str] = {}


@dataclass(frozen=True)
class Room:
    """A node; ``free_mib`` is None where it cannot tell its memory."""

    id: str
    slots: int
    taken: int = 0
    free_mib: float | None = None
    draining: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    free_millicpus: float | None = None


class Rooms:
    """What is taken here is gone for the rest of the pass; what is leaving is not free yet."""

    def __init__(self, rooms: Sequence[Room], there: Iterable[tuple[str | None, bool]]) -> None:
        """``there`` is the node of each desktop, and whether it is leaving."""
        usable = [room for room in rooms if not room.draining]
        self._slots = sum(room.slots for room in usable)
        self._memory = {
            room.id: math.inf if room.free_mib is None else room.free_mib for room in usable
        }
        self._processors = {
            room.id: math.inf if room.free_millicpus is None else room.free_millicpus
            for room in usable
        }
        self._labels = {room.id: room.labels for room in usable}
        self._expected: defaultdict[str, float] = defaultdict(float)
        self._expected_processors: defaultdict[str, float] = defaultdict(float)
        known: Counter[str] = Counter()
        homeless = self.leaving = 0
        for node, is_leaving in there:
            if node is None:
                homeless += 1
            else:
                known[node] += 1
            self.leaving += is_leaving and self.is_open(node)
        # A node may not tell yet of what was just started on it.
        free = [(room.slots - max(room.taken, known[room.id]), room.id) for room in usable]
        self._heap = [(-many, node) for many, node in free if many > 0]  # the emptiest first
        heapq.heapify(self._heap)
        # Those of whom nobody knows where they are may be among what the nodes tell of.
        told = sum(max(0, room.taken - known[room.id]) for room in usable)
        self._left = sum(-many for many, _ in self._heap) - max(0, homeless - told)
        self._too_much = math.inf  # so many MiB no node has
        self._closed = ""

    def is_open(self, node: str | None) -> bool:
        """Whether a place there can be used again."""
        return node is None or node in self._memory

    def take(
        self, memory_mib: int, labels: Mapping[str, str] = _ANY, millicpus: int = 0
    ) -> str | None:
        """A place on the emptiest node with so much and such labels; None: there is none."""
        if self._left <= 0 or memory_mib >= self._too_much:
            return None
        aside = []
        found = None
        while self._heap and found is None:
            many, node = heapq.heappop(self._heap)
            if (
                self._memory[node] < memory_mib
                or self._processors[node] < millicpus
                or not fits(labels, self._labels[node])
            ):
                aside.append((many, node))
                continue
            found = node
            self._memory[node] -= memory_mib
            self._processors[node] -= millicpus
            if many < -1:
                aside.append((many + 1, node))
        for entry in aside:
            heapq.heappush(self._heap, entry)
        if found is not None:
            self._left -= 1
        elif not labels and not millicpus:
            self._too_much = memory_mib
        return found

    def lack(self, memory_mib: int, labels: Mapping[str, str] = _ANY, millicpus: int = 0) -> str:
        """Why there was no place."""
        if self._closed:
            return self._closed
        if not self._slots:
            return "No node takes desktops."
        if self._left <= 0:
            return f"All {self._slots} places for desktops are taken."
        which = f" and {told(labels)}" if labels else ""
        more = f" and {millicpus / 1000:g} processors" if millicpus else ""
        return f"No node with a free place{which} has {memory_mib} MiB of memory{more} free."

    def close(self, why: str) -> None:
        """Have nothing more taken."""
        self._left, self._closed = 0, why

    # What would be free if idle desktops went.

    def expect(self, node: str | None, memory_mib: int, millicpus: int = 0) -> None:
        """An idle desktop is there that could give up so much."""
        if node is not None:
            self._expected[node] += memory_mib
            self._expected_processors[node] += millicpus

    def could_hold(
        self,
        node: str | None,
        memory_mib: int,
        labels: Mapping[str, str] = _ANY,
        millicpus: int = 0,
    ) -> bool:
        """Whether a desktop of that size fits once enough idle ones there have gone."""
        if node is None:
            return True
        if not fits(labels, self._labels.get(node, _ANY)):
            return False
        return (
            memory_mib <= self._memory.get(node, -math.inf) + self._expected[node]
            and millicpus <= self._processors.get(node, -math.inf) + self._expected_processors[node]
        )

    def promise(self, node: str | None, memory_mib: int, millicpus: int = 0) -> None:
        """So much of that is for a claim."""
        if node is not None:
            self._expected[node] -= memory_mib
            self._expected_processors[node] -= millicpus
