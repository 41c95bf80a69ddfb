"""A real code-server with our extension in it, in a headless Chromium, and a client of its socket.

What desktopd does inside a desktop is done here without one: the IDE folder of set-up is used as it
lies, with homes and sockets in a folder of the test's own.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.browser import chromium
from tests.waiting import until
from workspace.backends.runtime import default_dir

TOKEN = "a-token-of-the-tests"
IDE = default_dir().parent / "ide" / "current"


class Refused(Exception):
    """An error that the extension answered with."""

    def __init__(self, data: dict[str, Any]) -> None:
        super().__init__(f"{data['code']}: {data['message']}")
        self.code: str = data["code"]
        self.message: str = data["message"]


class Bridge:
    """One connection to the extension."""

    def __init__(self, path: Path, token: str = TOKEN) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(90)
        self._file = self._socket.makefile("rb")
        self._id = 0
        self._answers: dict[int, dict[str, Any]] = {}
        try:
            self._socket.connect(str(path))
            self.hello = self.result(self.send("hello", token=token))
        except (OSError, EOFError):
            self.close()
            raise

    def __enter__(self) -> Bridge:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def send(self, method: str, **params: object) -> int:
        self._id += 1
        request = {"jsonrpc": "2.0", "id": self._id, "method": method, "params": params}
        self._socket.sendall(json.dumps(request).encode() + b"\n")
        return self._id

    def result(self, request: int) -> dict[str, Any]:
        """The answer to a request; raises :class:`Refused`, or EOFError if it hung up."""
        while request not in self._answers:
            line = self._file.readline()
            if not line:
                raise EOFError
            answer = json.loads(line)
            self._answers[answer["id"]] = answer
        answer = self._answers.pop(request)
        if "error" in answer:
            raise Refused(answer["error"]["data"])
        return dict(answer["result"])

    def do(self, type: str, /, **fields: object) -> dict[str, Any]:
        """What an action brings; with more time than it has by itself, as tests share a machine."""
        return self.result(self.send("do", **{"type": type, "seconds": 60, **fields}))


@contextmanager
def code_server(folder: Path) -> Iterator[Path]:
    """The path of the socket of a code-server that shows a folder, once it is there."""
    with tempfile.TemporaryDirectory(prefix="c-") as made:
        home = Path(made)
        user = home / "data" / "User"
        user.mkdir(parents=True)
        shutil.copy(IDE / "settings.json", user)
        shutil.copytree(IDE / "extensions", home / "extensions")
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        environment = {
            "HOME": made,
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "SHELL": "/bin/bash",
            "CARREL_IDE_DIR": made,
            "CARREL_IDE_TOKEN": TOKEN,
            "CARREL_IDE_PYTHON": str(IDE / "python"),
        }
        log = (home / "log").open("wb")
        server = subprocess.Popen(
            [
                IDE / "node" / "bin" / "node",
                IDE / "code-server/node_modules/code-server/out/node/entry.js",
                *("--auth", "none", "--bind-addr", f"127.0.0.1:{port}"),
                *("--user-data-dir", home / "data", "--extensions-dir", home / "extensions"),
                "--disable-workspace-trust",
                "--disable-telemetry",
                "--disable-update-check",
            ],
            env=environment,
            cwd=made,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        log.close()
        try:
            until(lambda: _answers(port), 30)
            with chromium() as browser:
                page = browser.new_page(viewport={"width": 1280, "height": 800})
                page.goto(f"http://127.0.0.1:{port}/?folder={folder}")
                path = home / "bridge.sock"
                until(lambda: _listens(path), 60)
                yield path
                if picture := os.environ.get("CARREL_TESTS_PICTURE"):
                    page.screenshot(path=picture)
        finally:
            server.send_signal(signal.SIGTERM)
            try:
                server.wait(10)
                until(lambda: not started_by(made), 10)
            finally:
                for process in started_by(made):
                    os.kill(process, signal.SIGKILL)


def started_by(home: str) -> list[int]:
    """The processes of the code-server that has its home there, by what is in their environment."""
    mark = f"CARREL_IDE_DIR={home}\0".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark in (process / "environ").read_bytes():
                found.append(int(process.name))
    return found


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
