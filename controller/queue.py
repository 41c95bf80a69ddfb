"""A queue that is fair between tenants: each in turn gets one served, its own first come first.

Pure: it knows no clock and waits for nothing. Bounded: what is too many is refused.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from itertools import pairwise
from statistics import median
from typing import Generic, TypeVar

from workspace.errors import NoCapacity

T = TypeVar("T")
MOST = 10_000
_REMEMBERED = 20


class FairQueue(Generic[T]):
    """Of things that are themselves only (compared by identity)."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        # Tenants in the order in which they are served; each has at least one waiting.
        self._tenants: OrderedDict[str, OrderedDict[int, T]] = OrderedDict()
        self._tenant_of: dict[int, str] = {}
        self._served_at: deque[float] = deque(maxlen=_REMEMBERED)

    def __len__(self) -> int:
        return len(self._tenant_of)

    def push(self, tenant: str, thing: T, *, first: bool = False) -> None:
        """Let it wait; ``first`` of all, if it has waited before.

        Raises:
            NoCapacity: too many do.
        """
        if len(self) >= self._most:
            raise NoCapacity(f"{self._most} claims wait for a place already.")
        self._tenants.setdefault(tenant, OrderedDict())[id(thing)] = thing
        self._tenant_of[id(thing)] = tenant
        if first:
            self._tenants[tenant].move_to_end(id(thing), last=False)
            self._tenants.move_to_end(tenant, last=False)

    def peek(self, may: Callable[[T], bool] = lambda thing: True) -> T | None:
        """The next one of those that may be served; it stays next until it is removed."""
        return next(filter(may, self), None)

    def __iter__(self) -> Iterator[T]:
        """All, in their order."""
        rounds = [iter(waiting.values()) for waiting in self._tenants.values()]
        while rounds:
            left = []
            for waiting in rounds:
                if (thing := next(waiting, None)) is not None:
                    left.append(waiting)
                    yield thing
            rounds = left

    def remove(self, thing: T, *, is_served: bool = True) -> None:
        """It was served, and it is the turn of the other tenants; or it gave up."""
        tenant = self._tenant_of.pop(id(thing), None)
        if tenant is None:
            return
        own = self._tenants[tenant]
        del own[id(thing)]
        if not own:
            del self._tenants[tenant]
        elif is_served:
            self._tenants.move_to_end(tenant)

    def position(self, thing: T) -> int:
        """How many are served until it is, itself included, if nobody else comes or goes."""
        own = self._tenant_of[id(thing)]
        ahead = list(self._tenants[own]).index(id(thing))
        position, is_before = ahead + 1, True
        for tenant, waiting in self._tenants.items():
            if tenant == own:
                is_before = False
            else:
                position += min(len(waiting), ahead + is_before)
        return position

    def served(self, at: float) -> None:
        """One got its place, at that moment of a clock that only goes forward."""
        self._served_at.append(at)

    def estimate(self, thing: T, now: float) -> float | None:
        """How many seconds until it has its place, by how fast they were given lately."""
        if len(self._served_at) < 2:
            return None
        moments = list(self._served_at)
        gaps = [later - earlier for earlier, later in pairwise(moments)]
        gap = max(median(gaps), (now - moments[-1]) / len(moments))
        return round(self.position(thing) * gap, 1)
