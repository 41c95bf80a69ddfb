"""Ten thousand requests that mean no good: all answered in form, and the desktop none the worse.

The requests are made from the application's own routes and models, so a new route is fuzzed from
its first day; one whose body cannot be found that way fails the test until it is named here. The
desktop is sealed off by bubblewrap, for its commands and files are fuzzed too.

``FUZZ_SEED`` and ``FUZZ_REQUESTS`` repeat or lengthen a run.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from starlette.routing import Route, WebSocketRoute

from tests.fuzz.fuzzer import Fuzzer, Surface, surface
from tests.waiting import eventually, until
from tests.workspace.desktopd.conftest import TOKEN, Daemon
from workspace import actions as a
from workspace.desktop import Desktop
from workspace.desktopd import queries, terminal
from workspace.desktopd.routes import ROUTES
from workspace.errors import NotFound

REQUESTS = int(os.environ.get("FUZZ_REQUESTS", "10000"))
WARM_UP = min(1500, REQUESTS // 4)
WORKERS = 6
# What takes no body, or bytes of any kind.
BODILESS = {
    *("POST /windows/{window:int}/focus", "POST /windows/{window:int}/close"),
    *("POST /processes/{job}/stdin", "PUT /files", "PUT /files/directory"),
    *("POST /recording/stop", "POST /browser/state"),
    "POST /browser/downloads/{download}/cancel",
}
# What it may hold more of after all requests than after the first. A block of memory or two of
# each request that stay would be seen; MiB come and go with large pictures and free heap.
MOST_GROWTH = {"fds": 4, "tasks": 2, "threads": 16, "blocks": 12000, "MiB": 64}
PATHS = (
    *("~", "fuzz", "fuzz/a", "fuzz/a", "fuzz/a/b", "fuzz/b/c", "fuzz/ü世", "~/fuzz/a", "no"),
    *("../../../../etc/passwd", "/etc/shadow", "/proc/self/environ", "/proc/self/mem", "/dev/zero"),
    *("/dev/stdin", "/proc/1/fd/0", "/sys/kernel", "/proc/self/fd", "fuzz/" + "x" * 300, "/"),
    *("fuzz/..", "fuzz/\n", "\u202e", "fuzz/a\udcff", "~root", "/proc/self/root/etc/hostname"),
    *("a/" * 2000, "fuzz/" + "b/" * 700),
)

# Runs the daemon, and has it write on SIGUSR1 what nobody outside can see, and on SIGUSR2 into its
# log what each thread does.
_LAUNCHER = """
import asyncio, faulthandler, gc, json, os, signal, sys

def tell(*_):
    gc.collect()
    doing = sorted(str(task.get_coro())[:80].split(" at ")[0] for task in asyncio.all_tasks())
    told = {"tasks": len(doing), "blocks": sys.getallocatedblocks(), "doing": doing}
    with open(os.environ["HOME"] + "/../told", "w") as file:
        file.write(json.dumps(told) + "\\n")

signal.signal(signal.SIGUSR1, tell)
faulthandler.register(signal.SIGUSR2)
sys.path.insert(0, sys.argv.pop(1))
from workspace.desktopd.__main__ import main
sys.exit(main())
"""


def _sealed(folder: Path) -> list[str]:
    users = folder / "passwd"  # the bus starts for a user that has a name, and for no other
    users.write_text("user:x:1000:1000::/home/user:/bin/bash\n")
    return [
        *("bwrap", "--unshare-all", "--uid", "1000", "--gid", "1000", "--as-pid-1"),
        *("--die-with-parent", "--new-session", "--ro-bind", "/", "/", "--tmpfs", "/tmp"),
        *("--tmpfs", "/run", "--tmpfs", "/var/tmp", "--bind", str(folder), str(folder)),
        *("--ro-bind", str(users), "/etc/passwd"),
        *("--proc", "/proc", "--dev", "/dev", "--ro-bind", "/dev/null", "/usr/bin/chromium", "--"),
    ]


class Sealed(Daemon):
    """A daemon in a sandbox, and what it holds on to; ``doing``: its tasks at the last look."""

    doing: Sequence[str] = ()

    @property
    def inner(self) -> psutil.Process:
        return psutil.Process(self.process.pid).children()[0]

    def held(self) -> dict[str, float]:
        """What it holds now: descriptors, threads, tasks, blocks of Python's memory, and MiB."""
        told = self.folder / "told"
        told.unlink(missing_ok=True)
        self.inner.send_signal(signal.SIGUSR1)
        until(lambda: told.exists() and told.read_text().endswith("\n"))
        status = Path(f"/proc/{self.inner.pid}/status").read_text()
        own_kib = re.search(r"RssAnon:\s*(\d+) kB", status)  # the screen's picture is shared
        assert own_kib is not None
        inside = json.loads(told.read_text())
        self.doing = inside.pop("doing")
        numbers: dict[str, float] = inside
        return numbers | {
            "fds": self.inner.num_fds(),
            "threads": self.inner.num_threads(),
            "MiB": int(own_kib[1]) / 1024,
        }

    def commands(self) -> list[str]:
        """The command lines below the daemon, "zombie" for one that nobody reaps."""
        found = []
        for process in self.inner.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                is_zombie = process.status() == psutil.STATUS_ZOMBIE
                found.append("zombie" if is_zombie else " ".join(process.cmdline()))
        return found

    def stop(self, number: int = signal.SIGTERM) -> int:
        inner = self.inner
        inner.send_signal(number)  # the sandbox ends with what is in it
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            inner.send_signal(signal.SIGUSR2)
            until(lambda: "most recent call first" in self.log.read_text(errors="replace"))
            raise AssertionError(self.log.read_text(errors="replace")[-8000:]) from None


@pytest.fixture(scope="module")
def sealed() -> Iterator[Sealed]:
    folder = Path(tempfile.mkdtemp(prefix="dd-"))
    daemon = Sealed(folder, {"disk_mib": 16}, launcher=_LAUNCHER, inside=_sealed)
    try:
        assert daemon.wait_until_ready() == {"ready": True}
        yield daemon
        assert daemon.stop() == 0
    finally:
        daemon.close()


@pytest.fixture
def seed() -> int:
    return int(os.environ.get("FUZZ_SEED") or random.randrange(2**32))


def surfaces() -> list[Surface]:
    found = []
    for route in ROUTES:
        assert isinstance(route, Route | WebSocketRoute)
        methods = (
            sorted((route.methods or set()) - {"HEAD"}) if isinstance(route, Route) else ["WS"]
        )
        found += [surface(m, route.path, route.endpoint, queries, terminal) for m in methods]
    return found


def test_every_route_is_fuzzed() -> None:
    """Their bodies and queries are found, or are known to have none."""
    for each in surfaces():
        needs_body = each.method not in ("GET", "DELETE", "WS")
        assert not needs_body or each.bodies or each.name in BODILESS, each.name
    assert {each.name for each in surfaces()} >= BODILESS


def _fuzzer(sealed: Sealed, seed: int, window: int) -> Fuzzer:
    def path() -> str:
        return fuzzer.chance.choice(PATHS)

    own = dict.fromkeys(("path", "source", "destination", "cwd"), path)
    own["source"] = lambda: fuzzer.chance.choice(PATHS[1:])  # not the home of them all
    fuzzer = Fuzzer(
        lambda: asyncio.open_unix_connection(str(sealed.socket)),
        surfaces(),
        seed,
        token=TOKEN,
        own={**own, "window": lambda: window},
    )
    return fuzzer


async def _works(desktop: Desktop) -> None:
    """Everything that a desktop is for, once."""
    await desktop.write_file("after", b"bytes")
    assert await desktop.read_file("after") == b"bytes"
    assert (await desktop.run("echo $((6 * 7))")).stdout == "42\n"
    await desktop.set_clipboard("übrig")
    assert await desktop.clipboard() == "übrig"
    seen = await desktop.act(a.Move(x=5, y=7), a.Screenshot(), settle_ms=500)
    assert seen.cursor == (5, 7)
    assert seen.screenshot is not None
    assert await desktop.screenshot(format="png")
    assert any(window.window_class == "Xfdesktop" for window in await desktop.windows())


@pytest.mark.timeout(300)
async def test_ten_thousand_requests(sealed: Sealed, seed: int) -> None:
    print(f"FUZZ_SEED={seed}")
    desktop = sealed.connect()
    await desktop.start("exec xterm -fullscreen -e cat")
    window = await desktop.wait_for_window(window_class="xterm", seconds=20)
    fuzzers = [_fuzzer(sealed, seed + number, window.id) for number in range(WORKERS)]

    async def fuzz(requests: int) -> None:
        await asyncio.gather(*(fuzzer.run(requests // WORKERS) for fuzzer in fuzzers))
        for job in await desktop.jobs():
            await desktop.forget(job.id)
        with suppress(NotFound):
            await desktop.remove_recording()  # one that runs holds on to an encoder

    try:
        # What is loaded when it is first asked for, and stays: chance may not ask before it counts.
        await desktop.act(a.Key(chord="Escape"))
        await desktop.marks()
        await fuzz(WARM_UP)
        before = sealed.held()
        await fuzz(REQUESTS - WARM_UP)
        await _works(desktop)
        await _no_more_than(before, sealed)
    finally:
        await desktop.aclose()
    log = sealed.log.read_text(errors="replace")
    assert "Traceback" not in log, log[-8000:]
    reached = set[str]().union(*(fuzzer.reached for fuzzer in fuzzers))
    missed = {each.name for each in surfaces()} - reached
    assert not missed, missed
    statuses = sum((fuzzer.answers for fuzzer in fuzzers), Counter[int]())
    print(statuses)
    assert statuses[200] > REQUESTS / 10  # many were valid


async def _no_more_than(before: dict[str, float], sealed: Sealed) -> None:
    """What was opened is closed, what was started has ended, and memory is what it was, about."""

    held: dict[str, float] = {}
    commands: list[str] = []

    def is_over() -> bool:
        held.update(sealed.held())
        commands[:] = [each for each in sealed.commands() if each == "zombie" or "fuzzed" in each]
        return not commands and all(
            held[what] <= before[what] + more for what, more in MOST_GROWTH.items()
        )

    try:
        await eventually(is_over, 60)
    except AssertionError:
        raise AssertionError(
            f"{before} became {held}, and there are {commands}; it does {Counter(sealed.doing)}"
        ) from None
