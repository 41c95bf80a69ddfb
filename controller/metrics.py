"""A few numbers for Prometheus, in its text format (exposition format 0.0.4)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

START_BUCKETS = (0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """Counted since this controller started."""

    def __init__(self) -> None:
        self.claims = 0
        self.ended: Counter[str] = Counter(released=0, failed=0)
        self._starts = [0] * len(START_BUCKETS)
        self._start_count = 0
        self._start_sum = 0.0

    def observe_start(self, seconds: float) -> None:
        """Count one start that took ``seconds``."""
        self._start_count += 1
        self._start_sum += seconds
        for index, bound in enumerate(START_BUCKETS):
            self._starts[index] += seconds <= bound

    def render(self, live: Mapping[str, int]) -> str:
        """The text that Prometheus reads; ``live`` counts workspaces by state."""
        lines = [
            "# HELP carrel_workspaces Live workspaces by state.",
            "# TYPE carrel_workspaces gauge",
        ]
        lines += [f'carrel_workspaces{{state="{state}"}} {count}' for state, count in live.items()]
        lines += [
            "# HELP carrel_claims_total Workspaces asked for.",
            "# TYPE carrel_claims_total counter",
            f"carrel_claims_total {self.claims}",
            "# HELP carrel_ended_total Workspaces that ended, by how.",
            "# TYPE carrel_ended_total counter",
        ]
        lines += [f'carrel_ended_total{{state="{state}"}} {n}' for state, n in self.ended.items()]
        lines += [
            "# HELP carrel_start_seconds From the claim until the desktop was ready.",
            "# TYPE carrel_start_seconds histogram",
        ]
        lines += [
            f'carrel_start_seconds_bucket{{le="{bound:g}"}} {count}'
            for bound, count in zip(START_BUCKETS, self._starts, strict=True)
        ]
        lines += [
            f'carrel_start_seconds_bucket{{le="+Inf"}} {self._start_count}',
            f"carrel_start_seconds_sum {self._start_sum:.3f}",
            f"carrel_start_seconds_count {self._start_count}",
        ]
        return "\n".join(lines) + "\n"
