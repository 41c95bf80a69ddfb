"""How desktopd is run in a pod: a file that it removes, a port, and a probe without a token."""

from __future__ import annotations

import argparse
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from tests.workspace.desktopd.conftest import TOKEN
from workspace.desktopd.__main__ import _parse, _read_config
from workspace.desktopd.app import create_app
from workspace.desktopd.usage import Usage
from workspace.errors import InvalidRequest


def arguments(path: Path, *more: str) -> argparse.Namespace:
    return _parse(["--config", str(path), "--listen", "127.0.0.1:0", *more])


def test_a_configuration_for_its_eyes_alone_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(f'{{"token": "{TOKEN}"}}')
    assert _read_config(arguments(path)).token == TOKEN
    assert path.exists()
    assert _read_config(arguments(path, "--remove-config")).token == TOKEN
    assert not path.exists()


def test_it_is_removed_even_if_it_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(f'{{"token": "{TOKEN}", "unknown": 1}}')
    with pytest.raises(InvalidRequest):
        _read_config(arguments(path, "--remove-config"))
    assert not path.exists()


@pytest.mark.anyio
async def test_a_probe_is_told_whether_and_nothing_else() -> None:
    now = [0.0]
    desk = SimpleNamespace(screen=None, usage=Usage(lambda: now[0]))
    app = create_app(desk, token=TOKEN)  # type: ignore[arg-type]  # as much of it as is asked
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://desktop") as http:
        answer = await http.get("/ready")
        assert (answer.status_code, answer.content) == (503, b"")
        desk.screen = object()
        now[0] = 50.0
        answer = await http.get("/ready")
        assert (answer.status_code, answer.content) == (204, b"")
        assert desk.usage.idle_seconds == 50  # it is no use
        assert (await http.post("/ready")).status_code == 401
        assert (await http.get("/health")).status_code == 401
