"""A double of the bridge: its socket, and every way in which such a program may misbehave.

It stands for faults that the real extension host is hard to bring into; the rest is tested in a
desktop with the real one (tests/workspace/backends/test_ide.py).
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

TOKEN = "the-bridge's-own"
VERBS = ("open", "open_folder", "state", "diagnostics", "rename", "apply_edit", "run_task")
Reply = Callable[["Peer", dict[str, Any]], Awaitable[None]]  # Any: JSON values, as everywhere here


class Peer:
    """One connection, as the double sees it."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    def answer(self, request: dict[str, Any], result: object) -> None:
        self.send(_line({"id": request["id"], "result": result}))

    def refuse(self, request: dict[str, Any], **data: str) -> None:
        error = {"code": -32000, "message": data.get("message", "no"), "data": data}
        self.send(_line({"id": request["id"], "error": error}))

    def drop(self) -> None:
        self._writer.transport.abort()


class Bridge:
    """Answers ``hello``, and ``do`` by ``replies`` of the verb; ``asked`` is all that it heard."""

    def __init__(self, folder: str) -> None:
        self.path = os.path.join(folder, "bridge.sock")
        self.folder: str | None = "/home/user/project"
        self.replies: dict[str, Reply] = {"state": _state}
        self.hello: Reply = self._hello
        self.asked: list[dict[str, Any]] = []
        self.cancelled: list[int] = []
        self.peers: list[Peer] = []
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen(self) -> None:
        """Also anew, as another extension host does."""
        self._unlink()
        self._servers.append(
            await asyncio.start_unix_server(self._serve, self.path, limit=17 << 20)
        )

    async def close(self) -> None:
        for peer in self.peers:
            peer.drop()
        for server in self._servers:
            server.close()
        self._unlink()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _unlink(self) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self.path)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(writer)
        self.peers.append(peer)
        try:
            while line := await reader.readline():
                request = json.loads(line)
                self.asked.append(request)
                if request["method"] == "hello":
                    reply = self.hello
                elif request["method"] == "cancel":
                    self.cancelled.append(request["params"]["id"])
                    peer.answer(request, {})
                    continue
                else:
                    reply = self.replies[request["params"]["type"]]
                task = asyncio.ensure_future(reply(peer, request))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        except (OSError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    async def _hello(self, peer: Peer, request: dict[str, Any]) -> None:
        if request["params"]["token"] != TOKEN:
            peer.drop()
            return
        told = {"name": "Double", "version": "1", "folder": self.folder, "can": [*VERBS, "dance"]}
        peer.answer(request, told | {"pid": 1})


async def silence(peer: Peer, request: dict[str, Any]) -> None:
    """An extension host that hangs."""


async def _state(peer: Peer, request: dict[str, Any]) -> None:
    peer.answer(request, {"type": "state", "folder": "/home/user/project"})


def _line(message: dict[str, Any]) -> bytes:
    return json.dumps({"jsonrpc": "2.0"} | message).encode() + b"\n"
