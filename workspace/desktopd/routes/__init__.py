"""The routes of one desktop, each thin: parse, call, answer. ARCHITECTURE.md has the table."""

from __future__ import annotations

from starlette.routing import BaseRoute

from workspace.desktopd.routes import (
    browser,
    control,
    files,
    ide,
    ports,
    processes,
    recording,
    screen,
    sockets,
    ui,
    waiting,
    windows,
)

ROUTES: list[BaseRoute] = [
    *screen.ROUTES,
    *control.ROUTES,
    *windows.ROUTES,
    *ui.ROUTES,
    *browser.ROUTES,
    *ide.ROUTES,
    *waiting.ROUTES,
    *processes.ROUTES,
    *files.ROUTES,
    *recording.ROUTES,
    *ports.ROUTES,
    *sockets.ROUTES,
]
