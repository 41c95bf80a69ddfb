"""Measurements as tables: a long one for a terminal, a wide one for a page."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from benchmarks.peers import NAMES
from benchmarks.rows import DESKTOPD, REST, Measured, ratio, up

COLUMNS = ("TASK", "WHO", "P50", "P95", "N", "TIMES OURS", "")


def lines(found: Sequence[Measured]) -> list[tuple[str, ...]]:
    """A row each, by task; a peer's has how many times Carrel's median through REST it took."""
    told: list[tuple[str, ...]] = []
    before = ""
    for each in found:
        ours = _ours(found, each)
        told.append(
            (
                each.task if each.task != before else "",
                each.who,
                f"{quantity(each.p50)} {each.unit}",
                quantity(each.p95),
                str(len(each.samples)),
                "" if ours is None else f"{ratio(each, ours):g}",
                each.note,
            )
        )
        before = each.task
    return told


def tell(found: Sequence[Measured], *, as_json: bool) -> None:
    """Print them, a line each, or as one list of JSON."""
    if as_json:
        print(json.dumps([each.row() for each in found]))
        return
    for each in found:
        told = f"p50 {quantity(each.p50)}, p95 {quantity(each.p95)}, n {len(each.samples)}"
        note = f" ({each.note})" if each.note else ""
        print(f"{each.task}: {each.who}: {told} {each.unit}{note}")


def _ours(found: Iterable[Measured], theirs: Measured) -> Measured | None:
    """What a peer's row is compared with."""
    if theirs.fails or theirs.who in (DESKTOPD, REST):
        return None
    mine = (each for each in found if (each.task, each.who) == (theirs.task, REST))
    return next(mine, None)


def quantity(value: float) -> str:
    """Rounded up, with no more digits than can be meant."""
    return f"{up(value, 2 if value < 1 else 1 if value < 100 else 0):g}"


def markdown(found: Sequence[Measured]) -> str:
    """The table of the README: a row a task, a column each, medians with their ratio."""
    present = {each.who for each in found}
    peers = [name for name in NAMES.values() if name in present]
    table = [["", "in desktopd", "through REST", *peers], ["---", *["---:"] * (len(peers) + 2)]]
    for task in dict.fromkeys(each.task for each in found):
        cells = {each.who: _cell(found, each) for each in found if each.task == task}
        table.append([task, *(cells.get(who, "") for who in (DESKTOPD, REST, *peers))])
    return "\n".join("|" + "".join(f" {cell} |" if cell else " |" for cell in row) for row in table)


def _cell(found: Sequence[Measured], each: Measured) -> str:
    told = f"{quantity(each.p50)} {each.unit}"
    ours = _ours(found, each)
    if each.who == REST and each.unit != "MiB":
        told = f"**{told}**"
    if ours is not None:
        told += f" ({ratio(each, ours):g}x)"
    return f"{told}, {each.note}" if each.fails else told
