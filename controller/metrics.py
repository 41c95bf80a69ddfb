"""A few numbers for Prometheus, in its text format (exposition format 0.0.4).

Counted since this controller started. What pools there are is known to the one that leads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from workspace.fleet import PoolStatus

START_BUCKETS = (0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 30.0, 60.0)
WAIT_BUCKETS = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
How = Literal["warm", "cold", "queued"]  # a warm one, one of its own, one after a wait in the queue


class Histogram:
    """How often something took how long."""

    def __init__(self, name: str, told: str, bounds: Sequence[float]) -> None:
        self._name, self._told, self._bounds = name, told, bounds
        self._counts = [0] * len(bounds)
        self.count = 0
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        self.count += 1
        self._sum += seconds
        for index, bound in enumerate(self._bounds):
            self._counts[index] += seconds <= bound

    def lines(self) -> Iterable[str]:
        yield from _head(self._name, "histogram", self._told)
        for bound, count in zip(self._bounds, self._counts, strict=True):
            yield f'{self._name}_bucket{{le="{bound:g}"}} {count}'
        yield f'{self._name}_bucket{{le="+Inf"}} {self.count}'
        yield f"{self._name}_sum {self._sum:.3f}"
        yield f"{self._name}_count {self.count}"


class Metrics:
    """Whoever does a thing counts it here."""

    def __init__(self) -> None:
        self.claims: Counter[tuple[str, How]] = Counter()  # by template
        self.ended: Counter[str] = Counter(released=0, failed=0)
        self.starts = Histogram(
            "carrel_start_seconds", "From the claim until the desktop was ready.", START_BUCKETS
        )
        self.waits = Histogram(
            "carrel_queue_wait_seconds", "How long claims waited for a place.", WAIT_BUCKETS
        )
        self.refills = Histogram(
            "carrel_refill_seconds", "How long a pool had too few, each time.", WAIT_BUCKETS
        )
        self.pool_failures: Counter[str] = Counter()  # by template
        self.pools: Sequence[PoolStatus] = ()
        self.strays = 0  # found by the last comparison, and still there
        self.strays_removed: Counter[str] = Counter()  # by where they were found

    def observe_start(self, seconds: float) -> None:
        """Count one start that took ``seconds``."""
        self.starts.observe(seconds)

    def render(self, live: Mapping[str, int], *, waiting: int = 0) -> str:
        """The text that Prometheus reads; ``live`` counts workspaces by state."""
        return "\n".join(self._lines(live, waiting)) + "\n"

    def _lines(self, live: Mapping[str, int], waiting: int) -> Iterable[str]:
        yield from _head("carrel_workspaces", "gauge", "Live workspaces by state.")
        for state, count in live.items():
            yield f'carrel_workspaces{{state="{state}"}} {count}'
        told = "Claims that were served, by how: a warm desktop, a cold start, after a wait."
        yield from _head("carrel_claims_total", "counter", told)
        for (template, how), count in sorted(self.claims.items()):
            yield f'carrel_claims_total{{template="{template}",how="{how}"}} {count}'
        yield from _head("carrel_ended_total", "counter", "Workspaces that ended, by how.")
        for state, count in self.ended.items():
            yield f'carrel_ended_total{{state="{state}"}} {count}'
        yield from self.starts.lines()
        yield from _head("carrel_queue_waiting", "gauge", "Claims that wait for a place.")
        yield f"carrel_queue_waiting {waiting}"
        yield from self.waits.lines()
        yield from self._pool_lines()
        yield from self.refills.lines()
        yield from _head("carrel_strays", "gauge", "What should not be there, and still is.")
        yield f"carrel_strays {self.strays}"
        yield from _head("carrel_strays_removed_total", "counter", "What was removed as a stray.")
        for where, count in sorted(self.strays_removed.items()):
            yield f'carrel_strays_removed_total{{where="{where}"}} {count}'

    def _pool_lines(self) -> Iterable[str]:
        for name, told in (
            ("warm", "Desktops that wait for a claim."),
            ("warming", "Desktops that are started before they are asked for."),
            ("target", "How many are to wait."),
        ):
            yield from _head(f"carrel_pool_{name}", "gauge", told)
            for pool in self.pools:
                yield f'carrel_pool_{name}{{template="{pool.template}"}} {getattr(pool, name)}'
        told = "Warm desktops that did not come up, or died."
        yield from _head("carrel_pool_failures_total", "counter", told)
        for template, count in sorted(self.pool_failures.items()):
            yield f'carrel_pool_failures_total{{template="{template}"}} {count}'


def _head(name: str, kind: str, told: str) -> Iterable[str]:
    return f"# HELP {name} {told}", f"# TYPE {name} {kind}"
