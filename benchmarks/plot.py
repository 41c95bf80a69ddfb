"""The picture of the measurements: for each task the bars of all who were measured at it.

It is drawn on nothing, in tones that can be read on a light page and on a dark one. Lengths are
logarithmic; what was not done as it should be is hatched.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.peers import NAMES
from benchmarks.report import quantity
from benchmarks.rows import DESKTOPD, REST, Measured

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK = "#7d8590"
OURS = {DESKTOPD: "#2da44e", REST: "#57ab5a"}
THEIRS, FAILED = "#6e87a8", "#7d859055"
_COLUMNS, _BAR, _TITLE, _FIRST = 3, 0.24, 0.62, 0.1  # inches, but for the columns; milliseconds


def draw(found: Sequence[Measured], to: Path) -> None:
    """Write the picture as a PNG.

    Raises:
        ImportError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    tasks = list(_comparable(found).values())
    rows = [tasks[begin : begin + _COLUMNS] for begin in range(0, len(tasks), _COLUMNS)]
    bars = [max(map(len, row)) for row in rows]
    height = sum(bars) * _BAR + len(rows) * _TITLE + 0.5
    longest = max((each.p50 for those in tasks for each in those), default=1.0)
    figure = Figure(figsize=(12.5, height), dpi=130)
    FigureCanvasAgg(figure)
    top = height - 0.1
    for row, most in zip(rows, bars, strict=True):
        top -= _TITLE
        for column, those in enumerate(row):
            left, width = (column + 0.36) / _COLUMNS, 0.62 / _COLUMNS
            tall = len(those) * _BAR
            axes = figure.add_axes((left, (top - tall + 0.2) / height, width, tall / height))
            _bars(axes, those, longest)
            beginning = (column + 0.02) / _COLUMNS
            above = (top + 0.28) / height
            title = those[0].task
            figure.text(beginning, above, title, fontsize=11, color=INK, weight="bold")
        top -= most * _BAR
    legend = "Medians; the bars are logarithmic. Hatched: not done as it should be."
    figure.text(0.02 / _COLUMNS, 0.12 / height, legend, fontsize=9, color=INK)
    figure.savefig(to, transparent=True)


def _bars(axes: Axes, those: Sequence[Measured], longest: float) -> None:
    for at, each in enumerate(those):
        colour = OURS.get(each.who, FAILED if each.fails else THEIRS)
        hatch = "////" if each.fails else None
        axes.barh(at, each.p50, 0.78, left=_FIRST, color=colour, hatch=hatch, edgecolor=INK, lw=0)
        told = f" {quantity(each.p50)} ms" + (f", {each.note}" if each.fails else "")
        weight = "bold" if each.who in OURS else "normal"
        axes.text(each.p50 + _FIRST, at, told, va="center", fontsize=9, color=INK, weight=weight)
    axes.set_xscale("log")
    axes.set_xlim(_FIRST, longest * 300)  # room for what is told at the end of a bar
    axes.set_ylim(len(those) - 0.5, -0.5)
    axes.set_yticks(range(len(those)), [each.who for each in those])
    axes.set_xticks([])
    axes.set_xticks([], minor=True)
    axes.tick_params(colors=INK, labelsize=9, length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_facecolor("none")


def _comparable(found: Sequence[Measured]) -> dict[str, list[Measured]]:
    """The tasks that a peer was measured at as well."""
    tasks: dict[str, list[Measured]] = {}
    for each in found:
        tasks.setdefault(each.task, []).append(each)
    peers = NAMES.values()
    return {
        task: those for task, those in tasks.items() if any(each.who in peers for each in those)
    }
