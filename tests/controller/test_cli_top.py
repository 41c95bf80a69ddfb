"""What `carrel top` makes of two looks, and how that fits on a screen."""

from __future__ import annotations

import io
from datetime import datetime, timezone

import pytest
from rich.console import Console

from controller.cli import top
from workspace.fleet import Status
from workspace.models import Screen, Stats, Workspace


def workspace(number: int, name: str = "") -> Workspace:
    now = datetime.now(timezone.utc)
    return Workspace(
        id=f"abcdefgh{number:02}",
        name=name,
        state="ready",
        template="desktop",
        screen=Screen(),
        created_at=now,
        expires_at=now,
    )


def seen(number: int, cpu: float | None = None, at: float = 0, name: str = "") -> top.Seen:
    stats = Stats(cpu_seconds=cpu, memory_mib=512.0, disk_mib=2048.0, pids=40)
    return top.Seen(workspace(number, name), stats, 65.0, at)


def test_what_is_used_is_counted_between_two_looks() -> None:
    before, now = seen(1, 10.0, at=5.0), seen(1, 13.0, at=7.0)
    assert now.since(before).cores == pytest.approx(1.5)
    assert now.since(None).cores is None
    assert seen(1, None, at=7.0).since(before).cores is None
    assert seen(1, 1.0, at=7.0).since(before).cores == 0.0  # another sandbox, which began anew
    assert top.row(now.since(before))[5:10] == ("150%", "512 MiB", "2.0 GiB", "40", "65s ago")


def test_the_busiest_come_first_and_a_screen_holds_what_it_holds() -> None:
    desktops = [seen(number, float(number), at=1.0, name="evil\x1b[2J") for number in range(30)]
    busy = [each.since(seen(0, 0.0)) for each in desktops]
    assert top.ranked(busy)[0].workspace.id == "abcdefgh29"
    look = top.Look(Status(controllers=[], nodes=[], pools=[], workspaces={}), busy, more=5)
    console = Console(width=120, height=20, record=True, file=io.StringIO())
    console.print(top.drawn(look, 20))
    text = console.export_text()
    assert "\x1b" not in text
    assert "abcdefgh29" in text
    assert "abcdefgh00" not in text
    lines = text.splitlines()
    assert len(lines) <= 20
    assert lines[-1].strip().endswith(" more")
