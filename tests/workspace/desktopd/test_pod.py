"""How desktopd is run in pods and containers: what it is given, and a probe without a token."""

from __future__ import annotations

import argparse
import os
import socket
import threading
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from tests.workspace.desktopd.conftest import TOKEN
from workspace.desktopd.__main__ import _fetch, _parse, _read_config
from workspace.desktopd.app import create_app
from workspace.desktopd.usage import Usage
from workspace.errors import InvalidRequest, StartFailed


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


def test_open_files_are_fetched_from_who_gives_them(short_dir: Path) -> None:
    path = short_dir / "door.sock"
    with socket.socket(socket.AF_UNIX) as door, socket.socket(socket.AF_UNIX) as listener:
        door.bind(str(path))
        door.listen()
        reading, writing = os.pipe()
        config = os.memfd_create("config")
        os.pwrite(config, f'{{"token": "{TOKEN}"}}'.encode(), 0)

        def give(fds: list[int]) -> None:
            peer, _ = door.accept()
            with peer:
                socket.send_fds(peer, [b"-"], fds)

        arguments = _parse(["--from", str(path)])
        whole = [config, listener.fileno(), writing, reading]
        for given in (whole, whole[:2]):
            giving = threading.Thread(target=give, args=(given,))
            giving.start()
            if given is whole:
                with _fetch(arguments) as giver:
                    assert _read_config(arguments).token == TOKEN
                    giver.setblocking(True)
                    assert giver.recv(1) == b""  # gone is gone
                fetched = (arguments.listen_fd, arguments.ready_fd, arguments.egress_fd)
                assert not any(os.get_inheritable(fd) for fd in fetched)
                for fd in fetched:
                    os.close(fd)
            else:
                with pytest.raises(StartFailed, match="2 open files"):
                    _fetch(arguments)
            giving.join()
        for fd in (reading, writing, config):
            os.close(fd)
    with pytest.raises(StartFailed, match="cannot be fetched"):
        _fetch(arguments)


@pytest.mark.parametrize(
    "given", [["--config", "x"], ["--from", "x", "--listen", "y"], ["--from", "x", "--config", "y"]]
)
def test_where_it_listens_is_said_once(
    given: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        _parse(given)
    assert "--from" in capsys.readouterr().err
