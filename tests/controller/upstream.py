"""A desktopd of the tests' own making: it streams, hangs, breaks, and counts what it is asked."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from tests.controller.conftest import Located
from workspace.backends.base import Endpoint
from workspace.backends.footprint import Footprint
from workspace.egress import Egress, EgressUse, Secret
from workspace.errors import DiskFull
from workspace.models import ErrorInfo, Node, Stats, Template
from workspace.testing import serving

TOKEN = "the-sandbox-token"
CHUNK = b"x" * 65536


class Upstream:
    """What it saw, and the app that serves it."""

    def __init__(self) -> None:
        self.received = 0
        self.seen: list[str] = []
        self.headers: list[Mapping[str, str]] = []
        self.hanging = 0
        self.hung_up = asyncio.Event()
        self.sent_chunks = 0
        self.flooded: list[int] = []  # frames sent to each that is flooded
        self.dry = 0  # how many are so no more
        self.vnc_closed: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.app = Starlette(
            routes=[
                Route("/files", self._write, methods=["PUT"]),
                Route("/files", self._read, methods=["GET"]),
                Route("/actions", self._hang, methods=["POST"]),
                Route("/screenshot", self._break, methods=["GET"]),
                Route("/processes", self._process, methods=["POST"]),
                Route("/environment", self._environment, methods=["PUT"]),
                Route("/control", self._take, methods=["POST"]),
                Route("/control", self._control, methods=["GET"]),
                WebSocketRoute("/vnc", self._vnc),
                WebSocketRoute("/terminal", self._refuse),
            ]
        )

    async def _write(self, request: Request) -> Response:
        if request.query_params["path"] == "full":
            error = DiskFull("The disk is full.")
            return JSONResponse(error.to_wire(), status_code=error.status)
        async for chunk in request.stream():
            self.received += len(chunk)
        name = request.query_params["path"]
        info: dict[str, object] = {"path": f"/home/user/{name}", "name": name, "kind": "file"}
        info |= {"size": self.received, "mode": "644", "modified_at": "2026-01-01T00:00:00Z"}
        return JSONResponse(info)

    async def _read(self, request: Request) -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            try:
                for _ in range(int(request.query_params["path"])):
                    if await request.is_disconnected():
                        break
                    self.sent_chunks += 1
                    yield CHUNK
                if request.query_params["path"] == "3":
                    raise ConnectionError("broken in the middle")
            finally:
                self.hung_up.set()

        return StreamingResponse(chunks())

    async def _hang(self, request: Request) -> Response:
        self.seen.append((await request.body()).decode())
        self.hanging += 1
        try:
            while (await request.receive())["type"] != "http.disconnect":
                pass
        except ClientDisconnect:
            pass
        self.hung_up.set()
        return Response()

    async def _break(self, request: Request) -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"half a pic"
            raise ConnectionError("broken in the middle")

        return StreamingResponse(chunks(), headers={"content-length": "1000"})

    async def _process(self, request: Request) -> Response:
        self.headers.append(dict(request.headers))
        command = json.loads(await request.body())["command"]
        self.seen.append(command)
        code = 3 if command == "false" else 0
        return JSONResponse({"exit_code": code, "stdout": "said so\n", "stderr": ""})

    async def _environment(self, request: Request) -> Response:
        self.seen.append((await request.body()).decode())
        return Response(status_code=204)

    async def _take(self, request: Request) -> Response:
        taking = {"holder": json.loads(await request.body())["holder"], "taking": "t", "grant": "g"}
        return JSONResponse(taking)

    async def _control(self, request: Request) -> Response:
        while (await request.receive())["type"] != "http.disconnect":
            pass  # control never ends
        return Response()

    async def _vnc(self, websocket: WebSocket) -> None:
        self.headers.append(dict(websocket.headers))
        self.seen.append(str(websocket.query_params))
        if "flood" in websocket.query_params.get("role", ""):
            return await self._flood(websocket)
        offered = websocket.scope["subprotocols"]
        await websocket.accept("binary" if "binary" in offered else None)
        await websocket.send_bytes(b"RFB 003.008\n")
        try:
            while True:
                data = await websocket.receive_bytes()
                if data == b"close":
                    return await websocket.close(4001, "it is over")
                await websocket.send_bytes(b"echo " + data)
        except WebSocketDisconnect as gone:
            if not self.vnc_closed.done():
                self.vnc_closed.set_result(gone.code)

    async def _flood(self, websocket: WebSocket) -> None:
        """Frames without an end, as fast as they are taken."""
        await websocket.accept()
        number = len(self.flooded)
        self.flooded.append(0)
        try:
            while True:
                await websocket.send_bytes(CHUNK)
                self.flooded[number] += 1
        except (WebSocketDisconnect, RuntimeError):
            pass
        finally:
            self.dry += 1

    async def _refuse(self, websocket: WebSocket) -> None:
        body = {"code": "invalid_request", "message": "cols: too many", "hint": "Fewer."}
        await websocket.send_denial_response(JSONResponse(body, status_code=422))


class UpstreamCluster:
    """A cluster whose every desktop is the same upstream."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.stopped: list[str] = []

    async def start(
        self,
        workspace_id: str,
        template: Template,
        *,
        ttl_seconds: float,
        timeout_seconds: float,
        background: bool = False,
        avoid: Collection[str] = (),
        placed: Callable[[], None] | None = None,
        whose: Mapping[str, str] | None = None,
    ) -> Located:
        return Located(workspace_id, self.endpoint)

    async def claimed(
        self, workspace_id: str, ttl_seconds: float, *, whose: Mapping[str, str] | None = None
    ) -> None: ...

    async def set_egress(
        self,
        workspace_id: str,
        *,
        egress: Egress | None = None,
        secrets: Sequence[Secret] | None = None,
    ) -> None: ...

    async def egress(self, workspace_id: str) -> EgressUse:
        return EgressUse()

    async def locate(self, workspace_id: str) -> Located | None:
        return Located(workspace_id, self.endpoint)

    async def extend(self, workspace_id: str, ttl_seconds: float) -> None: ...

    async def stop(self, workspace_id: str) -> None:
        self.stopped.append(workspace_id)

    async def find(self) -> Mapping[str, Located]:
        return {}

    async def ended(self, workspace_id: str) -> ErrorInfo:
        await asyncio.sleep(3600)
        raise AssertionError

    async def stats(self, workspace_id: str) -> Stats:
        return Stats()

    async def nodes(self) -> Sequence[Node]:
        return []

    def takes(self, template: Template) -> Footprint:
        return Footprint(template.memory_mib, 0)

    async def names(self) -> set[str]:
        return set()

    async def left(self) -> Mapping[str, set[str]]:
        return {}


@asynccontextmanager
async def upstream(folder: Path) -> AsyncIterator[tuple[Upstream, UpstreamCluster]]:
    """An upstream on a unix socket, and a cluster that leads to it."""
    path = folder / "u.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(64)
    there = Upstream()
    with listener:
        async with serving(there.app, listener):
            yield there, UpstreamCluster(Endpoint(url=f"unix://{path}", token=TOKEN))
