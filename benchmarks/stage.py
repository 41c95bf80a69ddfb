"""What is shown while it is measured: a window, a page, a terminal that keeps what is typed.

Each is there once its ``async with`` block begins, and gone when it ends. On failure:
:class:`~workspace.errors.TimedOut` when it does not come.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from importlib import resources
from urllib.parse import quote

import anyio

from benchmarks.inside.play import ground
from workspace.backends.sandbox import DEPENDENCIES
from workspace.desktop import Desktop
from workspace.errors import CarrelError, TimedOut
from workspace.models import Job

HOME = "/home/user/benchmark"
PYTHON = "/usr/bin/python3"
TYPED = f"{HOME}/typed"
COME_SECONDS = 30.0
ITEMS = 200
BLANK = (8, 8, 8)  # what a browser shows before its page, as ground() has it
_BROWSER = (
    "exec $(command -v chromium || command -v google-chrome) --no-first-run --kiosk"
    " --disable-background-networking --disable-component-update --disable-sync"
    f" --user-data-dir={HOME}/profile"
)


def environment(*packages: str) -> dict[str, str]:
    """For programs of benchmarks.inside: with desktopd's Pillow and xcffib, and ``packages``."""
    return {"PYTHONPATH": ":".join([HOME, *packages, DEPENDENCIES])}


async def furnish(desktop: Desktop) -> None:
    """Copy benchmarks.inside into the desktop."""
    await desktop.write_file(f"{HOME}/benchmarks/__init__.py", b"")
    for file in resources.files("benchmarks").joinpath("inside").iterdir():
        if file.is_file():
            await desktop.write_file(f"{HOME}/benchmarks/inside/{file.name}", file.read_bytes())


async def until(
    what: str, is_so: Callable[[], Awaitable[bool]], seconds: float = COME_SECONDS
) -> None:
    """Return once ``is_so``.

    Raises:
        TimedOut: it did not become so; ``what`` is told.
    """
    deadline = time.monotonic() + seconds
    while not await is_so():
        if time.monotonic() > deadline:
            raise TimedOut(f"{what} did not come within {seconds:.0f} s.")
        await anyio.sleep(0.05)


@asynccontextmanager
async def running(
    desktop: Desktop, command: str | list[str], **variables: str
) -> AsyncIterator[Job]:
    """A program, ended with the block."""
    job = await desktop.start(command, environment=variables)
    try:
        yield job
    finally:
        with anyio.CancelScope(shield=True):  # bounded by the requests' own timeouts
            if (await desktop.poll(job.id)).state == "running":
                with suppress(CarrelError):  # it may have ended just now
                    await desktop.signal(job.id, "TERM")
                await desktop.poll(job.id, wait_seconds=5)
            await desktop.forget(job.id)  # kills what still runs


@asynccontextmanager
async def window(desktop: Desktop) -> AsyncIterator[None]:
    """A window over the whole screen that repaints itself when it is pressed."""
    command = [PYTHON, "-m", "benchmarks.inside.window"]
    async with running(desktop, command, **environment()) as job:

        async def is_ready() -> bool:
            return "ready" in (await desktop.poll(job.id)).stdout

        await until("The window", is_ready)
        yield


@asynccontextmanager
async def page(desktop: Desktop, path: str, *flags: str) -> AsyncIterator[None]:
    """Chromium, over the whole screen, with a page of the desktop; it is painted."""
    async with running(desktop, f"{_BROWSER} {' '.join(flags)} file://{quote(path)}"):
        await desktop.wait_for_window(title="a page", seconds=COME_SECONDS)

        async def is_painted() -> bool:
            return ground(await desktop.screenshot()) != BLANK

        await until("The page", is_painted)
        await desktop.wait_for_rest(stable_ms=500, seconds=COME_SECONDS)
        yield


@asynccontextmanager
async def sheet(desktop: Desktop) -> AsyncIterator[None]:
    """LibreOffice Calc with a sheet of 4000 cells.

    Raises:
        TimedOut: it did not come; it may not be installed.
    """
    await desktop.write_file(f"{HOME}/sheet.fods", _flat_sheet())
    profile = f"-env:UserInstallation=file://{HOME}/office"
    async with running(desktop, f"exec soffice {profile} --norestore --calc {HOME}/sheet.fods"):
        await desktop.wait_for_window(title="sheet.fods", seconds=COME_SECONDS)
        await desktop.wait_for_rest(stable_ms=1000, seconds=COME_SECONDS)
        yield


def _flat_sheet() -> bytes:
    """200 rows of 20 cells, as OpenDocument in one file of XML."""
    rows = "".join(
        "<table:table-row>"
        + "".join(
            f"<table:table-cell office:value-type='string'><text:p>{row}/{column}</text:p>"
            "</table:table-cell>"
            for column in range(20)
        )
        + "</table:table-row>"
        for row in range(200)
    )
    names = " ".join(
        f'xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"'
        for name in ("office", "table", "text")
    )
    kind = 'office:mimetype="application/vnd.oasis.opendocument.spreadsheet"'
    return (
        f"<?xml version='1.0'?><office:document {names} {kind} office:version='1.2'><office:body>"
        f"<office:spreadsheet><table:table table:name='Sheet'>{rows}</table:table>"
        "</office:spreadsheet></office:body></office:document>"
    ).encode()


@asynccontextmanager
async def recorder(desktop: Desktop) -> AsyncIterator[None]:
    """A terminal with the focus that appends what is typed to :data:`TYPED`, byte for byte."""
    script = f"stty raw -echo; echo; exec cat >> {TYPED}"
    command = ["xterm", "-u8", "-T", "recorder", "-e", "bash", "-c", script]
    async with running(desktop, command):
        shown = await desktop.wait_for_window(title="recorder", seconds=COME_SECONDS)
        await desktop.focus_window(shown.id)

        async def is_listening() -> bool:
            await desktop.type("x")
            return (await typed(desktop, 1)) != ""

        await until("The terminal", is_listening)
        yield


async def typed(desktop: Desktop, length: int) -> str:
    """What has been typed since it was asked last, once it is ``length`` bytes or no more comes."""
    script = (
        f"for n in $(seq 20); do [ $(stat -c %s {TYPED} 2>/dev/null || echo 0) -ge {length} ]"
        f" && break; sleep 0.05; done; sleep 0.1; cat {TYPED}; : > {TYPED}"
    )
    return (await desktop.run(script)).stdout


def list_page() -> bytes:
    """A page of text, links and buttons, all to be seen at once: five nodes for each item."""
    items = "".join(
        f"<p>Item {n} <a href='#{n}'>read on</a> <button>Choose</button></p>" for n in range(ITEMS)
    )
    body = "margin: 8px; background: rgb(236, 239, 244); columns: 6; font: 10px sans-serif"
    line = "margin: 0; height: 18px"
    style = f"body {{ {body} }} p {{ {line} }} button {{ font: 9px sans-serif; padding: 0 4px }}"
    return f"<!doctype html><title>a page of a list</title><style>{style}</style>{items}".encode()
