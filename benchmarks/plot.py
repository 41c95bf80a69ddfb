"""The picture of the measurements: a bar for each at each task, on a logarithmic scale.

It is drawn on nothing, in tones that can be read on a light page and on a dark one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers import NAMES
from benchmarks.report import quantity
from benchmarks.rows import DESKTOPD, REST, Measured

INK, _HATCH = "#7d8590", "#ffffff55"
COLOURS = {
    DESKTOPD: "#1a9850",
    REST: "#66bd63",
    "E2B": "#c2793d",
    "Anthropic's demo": "#b5525c",
    "OSWorld": "#8c6bb1",
    "pyautogui": "#4a86b8",
    "pyautogui, PAUSE=0": "#7fb0d3",
    "Cua": "#b8a13a",
    "ffmpeg": "#8a8f98",
}
_BAR, _GAP = 0.19, 0.45  # inches, of a bar and between two tasks


def draw(found: Sequence[Measured], to: Path) -> None:
    """Write the picture as a PNG.

    Raises:
        ImportError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    tasks = _comparable(found)
    bars = sum(map(len, tasks.values()))
    height = bars * _BAR + len(tasks) * _GAP + 1.0
    figure = Figure(figsize=(9, height), dpi=120)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    at, ticks = 0.0, []
    for task, those in tasks.items():
        ticks.append((at + (len(those) - 1) * _BAR / 2, task))
        for each in those:
            hatch = "////" if each.fails else None
            colour = COLOURS[each.who]
            axes.barh(at, each.p50, _BAR * 0.86, color=colour, hatch=hatch, edgecolor=_HATCH, lw=0)
            told = f" {quantity(each.p50)} ms" + (f", {each.note}" if each.fails else "")
            axes.text(each.p50, at, told, va="center", fontsize=7, color=INK)
            at += _BAR
        at += _GAP
    axes.set_xscale("log")
    axes.set_xlim(0.1, max(each.p50 for those in tasks.values() for each in those) * 6)
    axes.set_ylim(at - _GAP + _BAR, -_BAR)
    axes.set_yticks([place for place, _ in ticks], [task for _, task in ticks])
    axes.set_xlabel("median, logarithmic: shorter is better", color=INK, fontsize=8)
    axes.tick_params(which="both", colors=INK, labelsize=8, length=0)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g} ms" if value < 1000 else "1 s")
    axes.grid(axis="x", color=INK, alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    for side in axes.spines.values():
        side.set_visible(False)
    shown = {each.who for those in tasks.values() for each in those}
    figure.legend(
        handles=[Patch(color=colour, label=who) for who, colour in COLOURS.items() if who in shown],
        loc="upper center", ncols=5, frameon=False, labelcolor=INK, fontsize=8,
    )  # fmt: skip
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.55 / height))
    figure.savefig(to, transparent=True)


def _comparable(found: Sequence[Measured]) -> dict[str, list[Measured]]:
    """The tasks that a peer was measured at as well, Carrel first."""
    order = [DESKTOPD, REST, *NAMES.values()]
    tasks: dict[str, list[Measured]] = {}
    for each in sorted(found, key=lambda each: order.index(each.who)):
        if each.unit == "ms":
            tasks.setdefault(each.task, []).append(each)
    names = dict.fromkeys(each.task for each in found)
    return {
        name: tasks[name]
        for name in names
        if any(each.who in NAMES.values() for each in tasks.get(name, []))
    }
