"""Many desktops: what claims and planning for them cost. ``python -m benchmarks.fleet``

The plan's fleet is simulated (:mod:`benchmarks.churn`), and half of that of the claims
(:mod:`benchmarks.claims`).
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections import Counter
from pathlib import Path

from benchmarks import claims
from benchmarks.churn import Rates, fleet
from benchmarks.report import quantity
from benchmarks.rows import Measured

PLAN = "Carrel, plan"
PASS_SECONDS = 5
_PAGE_MIB = os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def plans(nodes: int = 250, slots: int = 48, hour: int = 3600) -> list[Measured]:
    """A pass of the plan for ten thousand desktops, and this process over an hour of churn."""
    rates = Rates(claims=90, live_seconds=100, failures=0.01, drains=0.05, changes=0.01)
    busy = fleet(1, nodes=nodes, slots=slots, templates=20, warm=170, rates=rates)
    passes: list[float] = []
    members: list[int] = []
    held: dict[int, float] = {}
    for second in range(PASS_SECONDS, hour + 1, PASS_SECONDS):
        busy.step(PASS_SECONDS)
        begin = time.perf_counter()
        busy.look()
        if second > hour // 6:
            passes.append((time.perf_counter() - begin) * 1000)
            members.append(len(busy.members))
        if second in (hour // 6, hour):
            held[second] = _held_mib()
    states = Counter(member.state for member in busy.members.values())
    many = f"{sorted(members)[len(members) // 2]} desktops on {nodes} nodes"
    note = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    early, late = held.values()
    return [
        Measured(f"a pass of the plan, {many}", PLAN, "ms", tuple(passes), f"at last {note}"),
        Measured("memory after 10 minutes of churn, simulated", PLAN, "MiB", (early,)),
        Measured("memory after an hour of churn, simulated", PLAN, "MiB", (late,)),
    ]


def _held_mib() -> float:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_MIB


def main() -> None:
    found = [*plans(), *claims.measure(lambda text: print(text, file=sys.stderr))]
    if "--json" in sys.argv[1:]:
        print(json.dumps([each.row() for each in found]))
        return
    for each in found:
        told = f"p50 {quantity(each.p50)}, p95 {quantity(each.p95)}, n {len(each.samples)}"
        print(f"{each.task}: {told} {each.unit}{f' ({each.note})' if each.note else ''}")


if __name__ == "__main__":
    main()
