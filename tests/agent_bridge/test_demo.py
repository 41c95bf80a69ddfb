"""The demo where it cannot work: it says why, and leaves nothing. Where it can: tests/e2e."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from agent_bridge import demo as the_demo
from agent_bridge.demo import demo
from agent_bridge.server import Bridge
from tests.agent_bridge.conftest import URL, carrel_for
from tests.agent_bridge.fake import KEY, FakeController
from tests.serving import listening
from workspace.errors import CarrelError, Unauthorized, Unavailable

pytestmark = pytest.mark.anyio


async def test_without_a_controller(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(Unavailable, match="carrel up"):
            await demo(f"http://127.0.0.1:{free.getsockname()[1]}", KEY, tmp_path, print)


async def test_in_a_desktop_where_nothing_runs(
    controller: FakeController, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(the_demo, "STEP_SECONDS", 0.5)
    bridge = Bridge(
        lambda key: carrel_for(controller, key),
        public_url=URL,
        allowed_hosts=["127.0.0.1:*"],
        allowed_origins=[],
    )
    # Beside each other at one origin, as the controller has them.
    app = Starlette(routes=[*controller.app.routes, Mount("/", bridge.app)])
    app.exception_handlers.update(controller.app.exception_handlers)
    async with bridge.run(), listening(app) as port:
        url = f"http://127.0.0.1:{port}"
        steps: list[str] = []
        with pytest.raises(Unauthorized):
            await demo(url, "wrong", tmp_path, steps.append)
        with pytest.raises(CarrelError, match="server did not start"):
            await demo(url, KEY, tmp_path, steps.append)
    assert steps[-1] == "destroying the desktop"
    assert len(controller.desktops) == 1
    assert controller.live() == []
