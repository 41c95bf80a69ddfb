"""Desktop: the client of one desktop.

The same class speaks to ``desktopd`` itself (the controller and the tests do, over a unix socket
or a pod's address) and to the controller's ``/v1/workspaces/{id}`` (the SDK does): both serve the
same paths. What can be asked is in :mod:`workspace.calls`, by kind.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import httpx

from workspace.calls.browser import BrowserCalls
from workspace.calls.control import ControlCalls
from workspace.calls.files import FileCalls
from workspace.calls.ide import IdeCalls
from workspace.calls.ports import PortCalls
from workspace.calls.recording import RecordingCalls
from workspace.calls.screen import ScreenCalls
from workspace.calls.shell import ShellCalls
from workspace.calls.ui import UiCalls
from workspace.calls.waiting import WaitCalls
from workspace.calls.windows import WindowCalls
from workspace.calls.wire import Wire, parse
from workspace.http1 import Transport, client_transport
from workspace.models import Health

if TYPE_CHECKING:
    from workspace.backends.base import Endpoint


def connect(
    endpoint: Endpoint,
    *,
    through: Callable[[httpx.AsyncBaseTransport], httpx.AsyncBaseTransport] = lambda wire: wire,
) -> Desktop:
    """A client straight to the daemon at ``endpoint``; close it with ``aclose``.

    ``through`` makes of what carries its requests what is to.
    """

    def http() -> httpx.AsyncClient:
        url, unix = endpoint.url, endpoint.url.removeprefix("unix://")
        is_unix = url != unix
        wire = Transport(unix_socket=unix) if is_unix else client_transport(url)
        return httpx.AsyncClient(
            transport=through(wire),
            base_url="http://desktop" if is_unix else url,
            headers={"Authorization": f"Bearer {endpoint.token}"},
            trust_env=False,
        )

    return Desktop(http)


class Desktop(
    ScreenCalls,
    UiCalls,
    BrowserCalls,
    IdeCalls,
    ShellCalls,
    FileCalls,
    PortCalls,
    WindowCalls,
    WaitCalls,
    RecordingCalls,
    ControlCalls,
):
    """One desktop: screen, keyboard, mouse, browser, IDE, shell, files, clipboard, windows.

    Every method may raise :class:`~workspace.errors.DesktopLost` (the connection broke; nothing is
    retried) and :class:`~workspace.errors.TimedOut`.
    """

    def __init__(self, http: Callable[[], httpx.AsyncClient], *, prefix: str = "") -> None:
        """``http`` is called once, by the first request."""
        self._wire = Wire(http, prefix)

    async def aclose(self) -> None:
        await self._wire.aclose()

    async def health(self) -> Health:
        return parse(Health.model_validate_json, await self._wire.call("GET", "/health"))
