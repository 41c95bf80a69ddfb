from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.workspace.desktopd.x11.harness import Client, Server
from workspace.desktopd.screen import Screen


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("x11"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XAUTHORITY", str(server.authority))
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture
async def screen(server: Server) -> AsyncIterator[Screen]:
    screen = await Screen.open(server.display)
    try:
        yield screen
    finally:
        await screen.aclose()
        server.end_programs()


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    """A window over the whole screen that records its input."""
    client = Client(server.display)
    try:
        yield client
    finally:
        client.close()
