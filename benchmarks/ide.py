"""VS Code as an interface: ready cold and warm, and what it does. ``python -m benchmarks.ide``

On real desktops of the template ``code`` of a controller of its own, through REST, and beside it in
the same run: the same by keyboard in the editor's window, as an agent does that has only a screen,
without the model that would think before each step; VS Code's own command line; and text replaced
by a shell. A Python project of 20 modules that use one function, and a module of 300 lines.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.claims import controller
from benchmarks.report import tell
from benchmarks.rows import REST, Measured
from workspace import actions as a
from workspace import ide as i
from workspace.client import Carrel, ClaimedDesktop

COLD, FEW, SAMPLES = 2, 5, 20
KEYS, CLI = "by keyboard in its window", "code-server's command line"
SED = "sed in a shell, by text alone"
BRIDGE = "the bridge, asked inside"
START_SECONDS, FILL_SECONDS = 180.0, 240.0
_INSIDE = Path(__file__).with_name("inside") / "bridge.py"
_NODE = "/opt/carrel/ide/node/bin/node"
_ENTRY = "/opt/carrel/ide/code-server/node_modules/code-server/out/node/entry.js"
_LIST_SECONDS = 1.0  # in which the list of files comes: the screen is at rest before
_FOLDER = "/home/user/project"
_LONG = "import os\n\n\n" + "".join(
    f"def number_{n}(value: int) -> int:\n    return value + {n}\n\n\n" for n in range(74)
)
Note = Callable[[str], None]


async def _took(call: Callable[[], Awaitable[Any]]) -> float:
    """Milliseconds. Any: what comes back is of no use."""
    begin = time.perf_counter()
    await call()
    return (time.perf_counter() - begin) * 1000


async def _timed(count: int, call: Callable[[], Awaitable[Any]]) -> tuple[float, ...]:
    return tuple([await _took(call) for _ in range(count)])


async def _until_ready(desktop: ClaimedDesktop) -> None:
    await desktop.ide(i.GetState(seconds=START_SECONDS))


async def _write_project(desktop: ClaimedDesktop, folder: str) -> None:
    await desktop.write_file(f"{folder}/long.py", _LONG.encode())
    await desktop.write_file(
        f"{folder}/base.py", b"def greet(name: str) -> str:\n    return name\n"
    )
    for n in range(19):
        text = f"from base import greet\n\nprint(greet('{n}'))\n"
        await desktop.write_file(f"{folder}/module_{n}.py", text.encode())


async def _starts(carrel: Carrel, note: Note) -> list[Measured]:
    cold: list[float] = []
    for _ in range(COLD):
        note("a cold start")
        begin = time.perf_counter()
        async with await carrel.claim("code", ttl_seconds=600) as desktop:
            await _until_ready(desktop)
            cold.append((time.perf_counter() - begin) * 1000)
    warm: list[float] = []
    other: list[float] = []
    for _ in range(COLD):
        note("one from the pool")
        await carrel.scale("code", warm=1, floor=1, max=1)  # and no other beside it
        deadline = time.monotonic() + FILL_SECONDS
        while not any(p.template == "code" and p.warm for p in await carrel.pools()):
            assert time.monotonic() < deadline, "the pool was not filled"
            await asyncio.sleep(0.5)
        async with await carrel.claim("code", ttl_seconds=600) as desktop:
            await _write_project(desktop, _FOLDER)
            await _write_project(desktop, "/home/user/other")

            warm.append(await _took(partial(_open_folder, desktop, _FOLDER)))
            other.append(await _took(partial(_open_folder, desktop, "/home/user/other")))
    await carrel.scale("code", warm=0, floor=0)
    return [
        Measured("from a claim to an IDE that answers, cold", REST, "ms", tuple(cold)),
        Measured("from the pool, open_folder of the template's folder", REST, "ms", tuple(warm)),
        Measured(
            "from the pool, open_folder of another folder",
            REST,
            "ms",
            tuple(other),
            "VS Code loads its window anew",
        ),
    ]


async def _open_folder(desktop: ClaimedDesktop, folder: str) -> None:
    await desktop.ide_open_folder(folder)
    await desktop.ide_state()


async def _by_keys(desktop: ClaimedDesktop, name: str) -> None:
    """Open a file by Ctrl+P until the window's title says so, and go to its line 3 by Ctrl+G."""
    await desktop.act(a.Key(chord="ctrl+p"), settle_ms=1500)
    await desktop.act(a.Type(text=name), a.Wait(seconds=_LIST_SECONDS), settle_ms=1500)
    await desktop.act(a.Key(chord="Return"), settle_ms=0, observe="none")
    await desktop.wait_for_window(title=name)
    await desktop.act(a.Key(chord="ctrl+g"), settle_ms=1500)
    await desktop.act(a.Type(text="3"), a.Key(chord="Return"), settle_ms=1500)


async def _by_command(desktop: ClaimedDesktop, path: str, title: str) -> None:
    flags = "--user-data-dir ~/.local/share/carrel-ide/data"
    done = await desktop.run(f"{_NODE} {_ENTRY} {flags} -r {path}")
    assert done.exit_code == 0, done.stderr
    await desktop.wait_for_window(title=title)


async def _opening(desktop: ClaimedDesktop) -> list[Measured]:
    modules = itertools.cycle(range(19))
    task = "open a file at a line"
    for _ in range(3):
        await desktop.ide_open(f"module_{next(modules)}.py", 3)

    async def keys() -> None:
        await _by_keys(desktop, f"module_{next(modules)}.py")

    async def command() -> None:
        name = f"module_{next(modules)}.py"
        await _by_command(desktop, f"{_FOLDER}/{name}", name)

    return [
        Measured(
            task,
            REST,
            "ms",
            await _timed(SAMPLES, lambda: desktop.ide_open(f"module_{next(modules)}.py", 3)),
        ),
        Measured(
            task,
            KEYS,
            "ms",
            await _timed(FEW, keys),
            f"{_LIST_SECONDS:g} s of it for the list",
        ),
        Measured("open a file", CLI, "ms", await _timed(FEW, command)),
    ]


async def _diagnosing(desktop: ClaimedDesktop) -> list[Measured]:
    """From the moment that an edit is asked for until what is wrong with it is told."""
    await desktop.ide_open("long.py")
    await desktop.ide_diagnostics("long.py")
    good, bad = "return value + 7\n", "return value + 'seven'\n"
    samples, seen = [], 0
    for _ in range(FEW):
        begin = time.perf_counter()
        await desktop.ide_replace("long.py", good, bad)
        told = await desktop.ide_diagnostics("long.py", least="error")
        samples.append((time.perf_counter() - begin) * 1000)
        seen += told.total > 0
        await desktop.ide_replace("long.py", bad, good)
        await desktop.ide_diagnostics("long.py", least="error")
    note = f"the error was told {seen} of {FEW} times"
    task = "an edit of a file of 300 lines, saved, and its diagnostics"
    return [Measured(task, REST, "ms", tuple(samples), note, fails=seen < FEW)]


async def _renaming(desktop: ClaimedDesktop) -> list[Measured]:
    names = itertools.cycle(["welcome", "greet"])
    task = "rename across 20 files, saved"
    files = set()

    async def rename() -> None:
        done = await desktop.ide_rename("base.py", 1, next(names), column=5)
        files.add(len(done.files))

    async def by_text() -> None:
        name = next(names)
        old = "greet" if name == "welcome" else "welcome"
        command = rf"grep -lr '\b{old}\b' {_FOLDER} | xargs sed -i 's/\b{old}\b/{name}/g'"
        done = await desktop.run(command)
        assert done.exit_code == 0, done.stderr

    own = await _timed(FEW, rename)
    note = f"{max(files)} files"
    return [
        Measured(task, REST, "ms", own, note, fails=files != {20}),
        Measured(task, SED, "ms", await _timed(FEW, by_text)),
    ]


async def _asking(desktop: ClaimedDesktop) -> list[Measured]:
    await desktop.write_file("bridge.py", _INSIDE.read_bytes())
    done = await desktop.run(f"python3 bridge.py {SAMPLES * 5}", timeout_seconds=60)
    assert done.exit_code == 0, done.stderr
    inside = tuple(float(line) for line in done.stdout.split())
    task = "a round trip (state)"
    return [
        Measured(task, BRIDGE, "ms", inside),
        Measured(task, REST, "ms", await _timed(SAMPLES * 5, desktop.ide_state)),
    ]


async def measure(note: Note) -> list[Measured]:
    """All of it."""
    with controller(2) as (url, key):
        async with Carrel(url, key) as carrel:
            found = await _starts(carrel, note)
            note("what it does")
            async with await carrel.claim("code", ttl_seconds=1200) as desktop:
                await _until_ready(desktop)
                await _write_project(desktop, _FOLDER)
                for work in (_asking, _opening, _diagnosing, _renaming):
                    note(work.__name__.strip("_"))
                    found += await work(desktop)
                stats = await carrel.stats(desktop.id)
                found.append(
                    Measured("memory of the whole desktop", REST, "MiB", (stats.memory_mib or 0.0,))
                )
            return found


def main() -> None:
    found = asyncio.run(measure(lambda text: print(text, file=sys.stderr)))
    tell(found, as_json="--json" in sys.argv[1:])


if __name__ == "__main__":
    main()
