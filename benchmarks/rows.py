"""What a measurement is, and what is told of it. Pure.

Times are rounded up and ratios down, so that nothing looks better than it was.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median
from typing import TypedDict

DESKTOPD, REST = "Carrel, in desktopd", "Carrel, through REST"


class Row(TypedDict):
    """One measurement on the wire: its median and 95th percentile, and how many it is of."""

    name: str
    unit: str
    p50: float
    p95: float
    n: int


@dataclass(frozen=True)
class Measured:
    """The samples of one task as one of those who were measured does it.

    ``note`` says what is to be known of them, such as that the text came out mangled; ``fails``
    that the task was not done as it should be.
    """

    task: str
    who: str
    unit: str
    samples: tuple[float, ...]
    note: str = ""
    fails: bool = False

    @property
    def p50(self) -> float:
        return median(self.samples)

    @property
    def p95(self) -> float:
        """The smallest sample that at least 95 of a hundred do not exceed."""
        return sorted(self.samples)[math.ceil(len(self.samples) * 0.95) - 1]

    def row(self) -> Row:
        told = f" ({self.note})" if self.note else ""
        return {
            "name": f"{self.task}: {self.who}{told}",
            "unit": self.unit,
            "p50": up(self.p50, 2),
            "p95": up(self.p95, 2),
            "n": len(self.samples),
        }


def up(value: float, digits: int) -> float:
    """Rounded up."""
    scale: int = 10**digits
    return math.ceil(round(value * scale, 6)) / scale


def ratio(theirs: Measured, ours: Measured) -> float:
    """How many times our median theirs is, rounded down."""
    many = theirs.p50 / max(ours.p50, 1e-9)
    return math.floor(many) if many >= 10 else math.floor(many * 10) / 10
