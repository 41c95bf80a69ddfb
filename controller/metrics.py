"""The numbers of one controller for Prometheus, in its text format (exposition format 0.0.4).

Counted since this controller started, in a registry of its own: two applications in one process do
not share any. What pools there are is known to the one that leads. No label holds what a caller
made up: routes are their templates, actions their types, errors their codes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

from prometheus_client import (
    CollectorRegistry,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client import Counter as Count
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from workspace.fleet import PoolStatus

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
START_BUCKETS = (0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 30.0, 60.0)
WAIT_BUCKETS = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
CALL_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)
GROUP_BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 500)
How = Literal["warm", "cold", "queued"]  # a warm one, one of its own, one after a wait in the queue
Picture = Literal["screenshot", "frame", "delta", "unchanged"]


class Metrics:
    """Whoever does a thing counts it here."""

    def __init__(self) -> None:
        # What others read too; told as it is when it is asked for.
        self.claims: Counter[tuple[str, How]] = Counter()  # by template
        self.pools: Sequence[PoolStatus] = ()
        self.strays = 0  # found by the last comparison, and still there
        self.strays_removed: Counter[str] = Counter()  # by where they were found
        # How the controller is now: set by who knows it.
        self.states: Callable[[], Mapping[str, int]] = dict  # live workspaces by state
        self.waiting: Callable[[], int] = lambda: 0

        self.registry = registry = CollectorRegistry()
        registry.register(_Told(self))
        ProcessCollector(registry=registry)
        self.ended = Count(
            "carrel_ended", "Workspaces that ended, by how.", ["state"], registry=registry
        )
        for state in ("released", "failed"):
            self.ended.labels(state)  # told from the start, so that a rate can be had of it
        self.starts = Histogram(
            "carrel_start_seconds",
            "From the claim until the desktop was ready.",
            buckets=START_BUCKETS,
            registry=registry,
        )
        self.waits = Histogram(
            "carrel_queue_wait_seconds",
            "How long claims waited for a place.",
            buckets=WAIT_BUCKETS,
            registry=registry,
        )
        self.refills = Histogram(
            "carrel_refill_seconds",
            "How long a pool had too few, each time.",
            buckets=WAIT_BUCKETS,
            registry=registry,
        )
        self.pool_failures = Count(
            "carrel_pool_failures",
            "Warm desktops that did not come up, or died.",
            ["template"],
            registry=registry,
        )
        self.requests = Count(
            "carrel_requests",
            "Requests that were answered; 101 is an open WebSocket, 499 a caller that went away.",
            ["method", "route", "status"],
            registry=registry,
        )
        self.request_seconds = Histogram(
            "carrel_request_seconds",
            "From a request until all of its answer was sent.",
            ["method", "route"],
            buckets=CALL_BUCKETS,
            registry=registry,
        )
        self.errors = Count(
            "carrel_errors", "Errors answered, by code.", ["code"], registry=registry
        )
        self.actions = Count(
            "carrel_actions", "Actions that were played, by type.", ["type"], registry=registry
        )
        self.action_seconds = Histogram(
            "carrel_action_seconds",
            "From an action's request until its desktop's answer; of several at once: batch.",
            ["type"],
            buckets=CALL_BUCKETS,
            registry=registry,
        )
        self.pictures = Count(
            "carrel_pictures",
            "Pictures that desktops gave: screenshot by themselves, frame and delta with actions.",
            ["kind"],
            registry=registry,
        )
        self.picture_bytes = Count(
            "carrel_picture_bytes", "Their bytes, encoded.", ["kind"], registry=registry
        )
        self.streamed_bytes = Count(
            "carrel_streamed_bytes",
            "Bytes passed through, from desktops (out) and to them (in).",
            ["kind", "direction"],
            registry=registry,
        )
        self.screens = Gauge(
            "carrel_screens_open",
            "Open connections to screens, by what they may do.",
            ["role"],
            registry=registry,
        )
        for role in ("view", "control"):
            self.screens.labels(role)
        self.events = Count(
            "carrel_events",
            "Lines of the log that were kept; not those of claims, kept with their rows.",
            registry=registry,
        )
        self.event_groups = Histogram(
            "carrel_event_group_size",
            "How many lines were kept in one commit.",
            buckets=GROUP_BUCKETS,
            registry=registry,
        )

    def observe_start(self, seconds: float) -> None:
        """Count one start that took ``seconds``."""
        self.starts.observe(seconds)

    def observe_actions(self, types: Sequence[str], seconds: float) -> None:
        """Count what was played at one request, and how long its desktop took for all of it."""
        for each in types:
            self.actions.labels(each).inc()
        self.action_seconds.labels(types[0] if len(types) == 1 else "batch").observe(seconds)

    def observe_picture(self, kind: Picture, size: int = 0) -> None:
        """Count a picture of ``size`` bytes."""
        self.pictures.labels(kind).inc()
        if size:
            self.picture_bytes.labels(kind).inc(size)

    def observe_events(self, many: int) -> None:
        """Count lines that were kept in one commit."""
        self.events.inc(many)
        self.event_groups.observe(many)

    def render(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(_Lean(self.registry))


class _Lean(Collector):
    """A registry without the times at which each series was made: as many again, of no use here."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterable[Metric]:
        for family in self._registry.collect():
            family.samples = [each for each in family.samples if not each.name.endswith("_created")]
            yield family


class _Told(Collector):
    """What is known elsewhere and told when it is asked for."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        own = self._metrics
        states = GaugeMetricFamily(
            "carrel_workspaces", "Live workspaces by state.", labels=["state"]
        )
        for state, count in own.states().items():
            states.add_metric([state], count)
        yield states
        claims = CounterMetricFamily(
            "carrel_claims",
            "Claims that were served, by how: a warm desktop, a cold start, after a wait.",
            labels=["template", "how"],
        )
        for (template, how), count in sorted(own.claims.items()):
            claims.add_metric([template, how], count)
        yield claims
        yield GaugeMetricFamily(
            "carrel_queue_waiting", "Claims that wait for a place.", value=own.waiting()
        )
        for name, told in (
            ("warm", "Desktops that wait for a claim."),
            ("warming", "Desktops that are started before they are asked for."),
            ("target", "How many are to wait."),
        ):
            family = GaugeMetricFamily(f"carrel_pool_{name}", told, labels=["template"])
            for pool in own.pools:
                family.add_metric([pool.template], getattr(pool, name))
            yield family
        yield GaugeMetricFamily(
            "carrel_strays", "What should not be there, and still is.", value=own.strays
        )
        removed = CounterMetricFamily(
            "carrel_strays_removed", "What was removed as a stray.", labels=["where"]
        )
        for where, count in sorted(own.strays_removed.items()):
            removed.add_metric([where], count)
        yield removed
