"""The peers, put into the desktop and timed there, one task at a time.

A peer that cannot be had, or that fails at a task, has no row; why is told as a note on the way.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import anyio

from benchmarks import packages, stage
from benchmarks.inside.methods import CUA_PORT
from workspace.desktop import Desktop
from workspace.errors import CarrelError

PLAY_SECONDS = 60.0
NAMES = {
    "e2b": "E2B",
    "anthropic": "Anthropic's demo",
    "osworld": "OSWorld",
    "pyautogui": "pyautogui",
    "pyautogui-unpaused": "pyautogui, PAUSE=0",
    "cua": "Cua",
    "ffmpeg": "ffmpeg",
}
# What they fork; the others come with packages.
_PROGRAMS = {"e2b": "scrot xdotool", "anthropic": "scrot xdotool", "ffmpeg": "ffmpeg"}
_SITE = f"{stage.HOME}/pyautogui/site"


class Played(NamedTuple):
    """What came of one peer at one task."""

    peer: str
    samples: tuple[float, ...]
    seen: int


class Peers:
    """Those that are there; made by :func:`invite`."""

    def __init__(self, desktop: Desktop, there: list[str], note: Callable[[str], None]) -> None:
        self._desktop = desktop
        self._there = there
        self._note = note

    async def play(
        self, task: str, counts: dict[str, int], detail: str = ""
    ) -> AsyncIterator[Played]:
        """Each peer of ``counts`` in turn, that often."""
        for peer, count in counts.items():
            if peer not in self._there:
                continue
            command = [stage.PYTHON, "-m", "benchmarks.inside.play", peer, task, str(count), detail]
            try:
                done = await self._desktop.run(
                    command,
                    timeout_seconds=PLAY_SECONDS,
                    environment=stage.environment(_SITE),
                )
                if done.exit_code != 0:
                    raise ValueError((done.stderr.strip().splitlines() or ["it failed"])[-1])
                told = json.loads(done.stdout)
                yield Played(peer, tuple(told["samples"]), told["seen"])
            except (CarrelError, ValueError, KeyError) as error:
                self._note(f"{NAMES[peer]} has no row for {task}: {error}")

    async def tree(self, count: int) -> Played | None:
        """OSWorld's reading of the tree, ``seen`` being its nodes; None if it fails."""
        if "osworld" not in self._there:
            return None
        try:
            done = await self._desktop.run(
                [stage.PYTHON, "-m", "benchmarks.inside.tree", str(count)],
                timeout_seconds=PLAY_SECONDS,
                environment=stage.environment(),
            )
            if done.exit_code != 0:
                raise ValueError((done.stderr.strip().splitlines() or ["it failed"])[-1])
            told = json.loads(done.stdout)
            return Played("osworld", tuple(told["samples"]), told["nodes"])
        except (CarrelError, ValueError, KeyError) as error:
            self._note(f"OSWorld's way has no row for the tree: {error}")
            return None


@asynccontextmanager
async def invite(
    desktop: Desktop, wanted: Collection[str], note: Callable[[str], None]
) -> AsyncIterator[Peers]:
    """Put into the desktop what those peers need, and start Cua's server for the block."""
    there: list[str] = []
    async with AsyncExitStack() as servers:
        for peer in wanted:
            try:
                await _let_in(desktop, peer, servers, note)
                there.append(peer)
            except (packages.Missing, CarrelError) as error:
                note(f"{NAMES[peer]} has no rows: {error}")
        yield Peers(desktop, there, note)


async def _let_in(
    desktop: Desktop, peer: str, servers: AsyncExitStack, note: Callable[[str], None]
) -> None:
    if peer == "cua":
        bundle = await anyio.to_thread.run_sync(packages.cua)
        note(f"Cua's computer-server {bundle.version}")
        await _unpack(desktop, bundle.archive, "cua")
        await servers.enter_async_context(_cua(desktop, bundle))
    elif (programs := _PROGRAMS.get(peer)) is not None:
        if (await desktop.run(f"type {programs}")).exit_code != 0:
            raise packages.Missing(f"it needs {programs}")
    elif (await desktop.run(f"test -d {_SITE}")).exit_code != 0:
        bundle = await anyio.to_thread.run_sync(packages.pyautogui)
        await _unpack(desktop, bundle.archive, "pyautogui")


async def _unpack(desktop: Desktop, archive: Path, name: str) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        async with await anyio.open_file(archive, "rb") as file:
            while chunk := await file.read(1 << 20):
                yield chunk

    there = f"{stage.HOME}/{name}"
    await desktop.write_file(f"{there}.tar", chunks())
    script = f"mkdir {there} && tar xf {there}.tar -C {there} && rm {there}.tar"
    done = await desktop.run(script, timeout_seconds=120)
    if done.exit_code != 0:
        raise packages.Missing(done.stderr.strip())


@asynccontextmanager
async def _cua(desktop: Desktop, bundle: packages.Bundle) -> AsyncIterator[None]:
    """Cua's server, while it is needed."""
    home = f"{stage.HOME}/cua"
    variables = {"PYTHONPATH": f"{home}/site", "CUA_TELEMETRY_ENABLED": "false"}
    python = bundle.python
    if not python.startswith("/"):
        python = f"{home}/{python}"
        variables |= {"PYTHONHOME": f"{home}/python", "LD_LIBRARY_PATH": f"{home}/python/lib"}
    server = [python, "-m", "computer_server", "--host", "127.0.0.1", "--port", str(CUA_PORT)]
    wait = "from benchmarks.inside.methods import wait_for_cua; wait_for_cua()"
    async with stage.running(desktop, server, **variables) as job:
        done = await desktop.run(
            [stage.PYTHON, "-c", wait],
            timeout_seconds=90,
            environment=stage.environment(),
        )
        if done.exit_code != 0:
            said = (await desktop.poll(job.id)).stderr.strip().splitlines()
            raise packages.Missing(f"its server does not answer: {(said or ['nothing'])[-1]}")
        yield
