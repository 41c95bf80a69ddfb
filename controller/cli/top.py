"""`carrel top`: what runs now, what each desktop takes, and since when nobody used it.

On a terminal it is drawn anew every few seconds until Ctrl-C; elsewhere, and with ``--once`` or
``--json``, it is told once. Desktops are asked a few at a time, and of very many only the newest.
A desktop or a controller that does not answer is said so and asked again at the next look.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from controller.cli.output import Json

if TYPE_CHECKING:
    from rich.console import RenderableType

    from workspace.client import Carrel
    from workspace.fleet import Status
    from workspace.models import Stats, Workspace

SAMPLE_SECONDS = 1.0  # between the two looks that one telling takes
AT_ONCE = 8
MAX_DESKTOPS = 200
STATS_SECONDS = 5.0
_COLUMNS = (
    *("ID", "NAME", "TEMPLATE", "STATE", "NODE", "CPU", "MEMORY", "DISK", "PROCESSES"),
    *("USED", "TIME LEFT"),
)


@dataclass(frozen=True)
class Seen:
    """One desktop at one moment."""

    workspace: Workspace
    stats: Stats | None  # None: it did not say
    idle_seconds: float | None
    at: float  # by a clock that nobody sets
    cores: float | None = None  # used since the look before

    def since(self, before: Seen | None) -> Seen:
        """With what of the processors it has used since ``before``."""
        if before is None or self.stats is None or before.stats is None:
            return self
        now, then = self.stats.cpu_seconds, before.stats.cpu_seconds
        if now is None or then is None or self.at <= before.at:
            return self
        cores = max(0.0, (now - then) / (self.at - before.at))
        return Seen(self.workspace, self.stats, self.idle_seconds, self.at, cores)

    def told(self) -> dict[str, Any]:  # Any: JSON values
        stats = {} if self.stats is None else self.stats.model_dump(mode="json")
        return {
            **self.workspace.model_dump(mode="json"),
            "stats": {**stats, "cores": None if self.cores is None else round(self.cores, 3)},
            "unused_seconds": self.idle_seconds,
        }


@dataclass(frozen=True)
class Look:
    """All of it at one moment."""

    status: Status
    desktops: Sequence[Seen]
    more: int = 0  # desktops that were not asked


def add_to(app: typer.Typer) -> None:
    app.command()(top)


def top(
    once: Annotated[bool, typer.Option("--once", help="Tell it once, and end.")] = False,
    seconds: Annotated[float, typer.Option(min=0.5, max=3600, help="Between two looks.")] = 2.0,
    json: Json = False,
) -> None:
    """Watch controllers, nodes, pools, the queue and what each desktop takes."""
    import sys

    from controller.cli import output
    from controller.cli.connect import controller, run

    async def tell() -> None:
        import anyio

        async with controller() as carrel:
            first = await look(carrel)
            await anyio.sleep(SAMPLE_SECONDS)
            seen = await look(carrel, {each.workspace.id: each for each in first.desktops})
        if json:
            told = seen.status.model_dump(mode="json")
            desktops = [each.told() for each in seen.desktops]
            return output.result({**told, "desktops": desktops, "more": seen.more})
        from controller.cli.service import glance

        for what, line in glance(seen.status):
            print(f"{what:<11} {output.inert(line)}")
        print()
        output.table(_COLUMNS, map(row, ranked(seen.desktops)))

    async def watch() -> None:
        async with controller() as carrel:
            await _draw(carrel, seconds)

    is_live = not (once or json) and sys.stdout.isatty()
    try:
        run(watch if is_live else tell)
    except KeyboardInterrupt:
        if not is_live:
            raise


async def look(carrel: Carrel, before: Mapping[str, Seen] | None = None) -> Look:
    """What there is now; the desktops with what they used since the look ``before``."""
    import anyio

    status, live = await carrel.status(), await carrel.list()
    few = anyio.CapacityLimiter(AT_ONCE)
    found: dict[str, Seen] = {}

    async def ask(workspace: Workspace) -> None:
        async with few:
            seen = await _ask(carrel, workspace)
            found[workspace.id] = seen.since((before or {}).get(workspace.id))

    asked = live[:MAX_DESKTOPS]
    async with anyio.create_task_group() as tasks:
        for workspace in asked:
            tasks.start_soon(ask, workspace)
    return Look(status, [found[each.id] for each in asked], len(live) - len(asked))


async def _ask(carrel: Carrel, workspace: Workspace) -> Seen:
    import anyio

    from workspace.errors import CarrelError

    stats, idle = None, None
    with anyio.move_on_after(STATS_SECONDS):
        try:
            if workspace.state in ("ready", "paused"):
                stats = await carrel.stats(workspace.id)
            if workspace.state == "ready":
                idle = (await carrel.desktop(workspace.id).health()).idle_seconds
        except CarrelError:
            pass  # it may have ended since it was listed
    return Seen(workspace, stats, idle, time.monotonic())


def ranked(desktops: Sequence[Seen]) -> Sequence[Seen]:
    """Those that take most first."""

    def weight(seen: Seen) -> tuple[float, float]:
        memory = seen.stats.memory_mib if seen.stats is not None else None
        return seen.cores or 0.0, memory or 0.0

    return sorted(desktops, key=weight, reverse=True)


def row(seen: Seen) -> Sequence[str]:
    """A desktop as people see it."""
    from controller.cli import output

    own, stats, idle = seen.workspace, seen.stats, seen.idle_seconds
    return (
        own.id,
        own.name,
        own.template,
        own.state,
        own.node or "",
        "" if seen.cores is None else f"{seen.cores * 100:.0f}%",
        _mib(stats.memory_mib if stats is not None else None),
        _mib(stats.disk_mib if stats is not None else None),
        "" if stats is None or stats.pids is None else str(stats.pids),
        "" if idle is None else "now" if idle < 1 else f"{output.duration(idle)} ago",
        output.time_left(own.expires_at),
    )


def _mib(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value / 1024:.1f} GiB" if value >= 1024 else f"{value:.0f} MiB"


async def _draw(carrel: Carrel, seconds: float) -> None:
    """Draw until interrupted."""
    import anyio
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from controller.cli import output
    from workspace.errors import CarrelError

    before: Mapping[str, Seen] = {}
    console = Console()
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            try:
                seen = await look(carrel, before)
                before = {each.workspace.id: each for each in seen.desktops}
                live.update(drawn(seen, console.height), refresh=True)
            except CarrelError as error:  # a controller that is started anew is seen again
                live.update(Text(output.inert(f"{error.message} {error.hint}")), refresh=True)
            await anyio.sleep(seconds)


def drawn(seen: Look, height: int) -> RenderableType:
    """A look as it fits on a screen of ``height`` lines."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from controller.cli import output
    from controller.cli.service import glance

    head = [Text(output.inert(f"{what:<11} {line}")) for what, line in glance(seen.status)]
    fits = max(1, height - len(head) - 4)
    shown = ranked(seen.desktops)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in _COLUMNS:
        table.add_column(column, no_wrap=True)
    for each in shown[:fits]:
        table.add_row(*(Text(output.inert(cell)) for cell in row(each)))
    more = len(shown[fits:]) + seen.more
    return Group(*head, Text(), table, Text(f"{more} more" if more else "", style="dim"))
