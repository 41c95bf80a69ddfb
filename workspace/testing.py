"""A desktop that is not one, for tests: it answers like desktopd, with no X behind it.

:func:`serving` is how it, or any other application of a test, is served in a test's own process.

It checks the bearer token, refuses coordinates off its screen, and draws real (empty) pictures, so
that everything between a caller and a desktop can be tested by the hundred. It keeps the actions
that were played in ``FakeDesktop.played`` and the clipboard and files that were written.
"""

from __future__ import annotations

import asyncio
import functools
import hmac
import io
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from datetime import datetime, timezone
from pathlib import PurePosixPath

import PIL.Image
import uvicorn
from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp
from starlette.websockets import WebSocket, WebSocketDisconnect

from workspace import actions as a
from workspace import frames
from workspace.control import Park, Take
from workspace.desktopd.control import Control
from workspace.desktopd.hands import Hands
from workspace.desktopd.queries import Collect, ControlWatch, HandBack, Picture, Unpark, Watch
from workspace.desktopd.requests import parse_query, unless_gone
from workspace.desktopd.rfb import ClientStream, ProtocolError
from workspace.desktopd.timing import Timed
from workspace.desktopd.usage import Counted, Usage
from workspace.errors import (
    CarrelError,
    FileMissing,
    InvalidRequest,
    NoIde,
    NotFound,
    OffScreen,
    PortClosed,
    Unauthorized,
    Unsupported,
)
from workspace.models import (
    Clipboard,
    FileInfo,
    Health,
    ProcessRequest,
    ProcessResult,
    Screen,
    ScreenChange,
)
from workspace.protocols import HttpProtocol, WebSocketProtocol

MAX_PLAYED = 1000
START_SECONDS = 5.0
GRACE_SECONDS = 0.5  # that a person's connection may be gone
_LOOKS = (a.Screenshot, a.Zoom, a.CursorPosition, a.Wait)


class FakeDesktop:
    """The state of one fake desktop, and the app that serves it."""

    def __init__(self, token: str, screen: Screen | None = None) -> None:
        self.screen = screen or Screen()
        self.played: list[a.Action] = []
        self.cursor = (self.screen.width // 2, self.screen.height // 2)
        self.clipboard = ""
        self.files: dict[str, bytes] = {}
        self.usage = Usage()
        self.hands = Hands(Control(grace_seconds=GRACE_SECONDS))
        self.passed = b""  # what VNC clients said that reached it
        self._token = token
        self._born = time.monotonic()
        app = Starlette(
            routes=[
                self._route("GET", "/health", self._health),
                self._route("POST", "/screen", self._change),
                self._route("POST", "/actions", self._actions),
                self._route("GET", "/screenshot", self._screenshot),
                self._route("POST", "/processes", self._process),
                self._route("GET", "/clipboard", self._get_clipboard),
                self._route("PUT", "/clipboard", self._put_clipboard),
                self._route("GET", "/files", self._get_file),
                self._route("PUT", "/files", self._put_file),
                self._route("GET", "/ide", self._no_ide),
                self._route("POST", "/ide", self._no_ide),
                self._route("GET", "/control", self._control),
                self._route("POST", "/control", self._take),
                self._route("DELETE", "/control", self._hand_back),
                self._route("DELETE", "/control/returned", self._collect),
                self._route("POST", "/control/parked", self._park),
                self._route("DELETE", "/control/parked", self._unpark),
                WebSocketRoute("/vnc", self._vnc),
                WebSocketRoute("/ports/{port}", self._port),
            ],
            exception_handlers={HTTPException: _unknown},
        )
        self.app = Timed(Counted(app, self.usage))

    def _route(
        self, method: str, path: str, handler: Callable[[Request], Awaitable[Response]]
    ) -> Route:
        async def guarded(request: Request) -> Response:
            try:
                given = request.headers.get("authorization", "")
                if not hmac.compare_digest(given.encode(), f"Bearer {self._token}".encode()):
                    raise Unauthorized("The token is missing or wrong.")
                return await handler(request)
            except ValidationError as error:
                wrong: CarrelError = InvalidRequest(str(error))
            except CarrelError as error:
                wrong = error
            return JSONResponse(wrong.to_wire(), status_code=wrong.status)

        return Route(path, guarded, methods=[method])

    async def _health(self, request: Request) -> Response:
        size = (self.screen.width, self.screen.height)
        return _json(
            Health(
                ready=True,
                screen=size,
                uptime_seconds=time.monotonic() - self._born,
                idle_seconds=self.usage.idle_seconds if self.hands.control.is_idle else 0,
            )
        )

    async def _change(self, request: Request) -> Response:
        wanted = ScreenChange.model_validate_json(await request.body())
        changes = wanted.model_dump(exclude_none=True)
        self.screen = self.screen.model_copy(update=changes)
        return _json(self.screen)

    async def _actions(self, request: Request) -> Response:
        body = await request.body()
        actions = (
            a.ACTIONS.validate_json(body)
            if body.lstrip().startswith(b"[")
            else [a.ACTION.validate_json(body)]
        )
        if not all(isinstance(action, _LOOKS) for action in actions):
            await self.hands.agents_turn()
        began = time.monotonic()
        picture: a.Image | None = None
        for index, action in enumerate(actions):
            self._play(action, index)
            if isinstance(action, a.Screenshot | a.Zoom):
                picture = self._picture(action.format, action.scale, action.region)
            elif isinstance(action, a.Wait | a.HoldKey):
                await asyncio.sleep(action.seconds)
        watched = request.query_params.get("observe", "none") == "frame"
        if watched and picture is None:
            picture = self._picture("jpeg", 1.0, None)
        return _json(
            a.Observation(
                screenshot=picture,
                cursor=self.cursor,
                screen=(self.screen.width, self.screen.height),
                effect="no_visible_change" if watched else "not_observed",
                settled=True if watched else None,
                elapsed_ms=(time.monotonic() - began) * 1000,
            )
        )

    def _play(self, action: a.Action, index: int) -> None:
        points = list(action.path) if isinstance(action, a.Drag) else []
        x, y = getattr(action, "x", None), getattr(action, "y", None)
        if x is not None and y is not None:
            points.append((x, y))
        for point in points:
            if not (0 <= point[0] < self.screen.width and 0 <= point[1] < self.screen.height):
                raise OffScreen(
                    f"{point} is off the screen of {self.screen.width}x{self.screen.height}.",
                    details={"index": index, "completed": index},
                )
        if points:
            self.cursor = points[-1]
        self.played = [*self.played, action][-MAX_PLAYED:]

    def _picture(self, format: a.ImageFormat, scale: float, region: a.Region | None) -> a.Image:
        width, height = (
            (region.width, region.height) if region else (self.screen.width, self.screen.height)
        )
        size = max(1, round(width * scale)), max(1, round(height * scale))
        return a.Image.model_construct(
            format=format,
            width=size[0],
            height=size[1],
            data=_encoded(format, size),
            frame=f"{format}-{size[0]}-{size[1]}",
        )

    async def _screenshot(self, request: Request) -> Response:
        asked = parse_query(Picture, request).action()
        picture = self._picture(asked.format, asked.scale, asked.region)
        if picture.frame is not None and picture.frame == asked.since:
            return Response(status_code=304, headers=frames.tags(picture.frame))
        return Response(
            picture.data, media_type=f"image/{asked.format}", headers=frames.headers(picture)
        )

    async def _process(self, request: Request) -> Response:
        """No command runs: its text comes back as what it printed."""
        asked = ProcessRequest.model_validate_json(await request.body())
        if asked.background:
            raise Unsupported("The fake desktop has no jobs.")
        text = asked.command if isinstance(asked.command, str) else " ".join(asked.command)
        return _json(ProcessResult(exit_code=0, stdout=text, stderr=""))

    async def _control(self, request: Request) -> Response:
        asked = parse_query(ControlWatch, request)
        telling = self.hands.told(after=asked.after, seconds=asked.wait_seconds)
        try:
            return _json(await unless_gone(request, telling))
        except ClientDisconnect:
            return Response(status_code=499)  # nobody hears it

    async def _take(self, request: Request) -> Response:
        return _json(await self.hands.take(Take.model_validate_json(await request.body())))

    async def _hand_back(self, request: Request) -> Response:
        asked = parse_query(HandBack, request)
        await self.hands.hand_back(asked.holder, force=asked.force)
        return _json(await self.hands.told())

    async def _collect(self, request: Request) -> Response:
        returned = await self.hands.collect(parse_query(Collect, request).taking)
        if returned is None:
            raise NotFound("It was collected before.")
        return _json(returned)

    async def _park(self, request: Request) -> Response:
        return _json(await self.hands.park(Park.model_validate_json(await request.body())))

    async def _unpark(self, request: Request) -> Response:
        self.hands.unpark(parse_query(Unpark, request).ticket)
        return Response(status_code=204)

    async def _port(self, websocket: WebSocket) -> None:
        closed = PortClosed("Nothing listens there.")
        refusal = JSONResponse(closed.to_wire(), status_code=closed.status)
        await websocket.send_denial_response(refusal)

    async def _vnc(self, websocket: WebSocket) -> None:
        """It shows nothing; what passes of a person's input is kept."""
        asked = parse_query(Watch, websocket)
        person = None
        if asked.role == "control":
            try:
                self.hands.control.admit(asked.holder, asked.grant)
            except CarrelError as error:
                refusal = JSONResponse(error.to_wire(), status_code=error.status)
                return await websocket.send_denial_response(refusal)
            person = _Person(self.hands, asked.grant or "")
        await websocket.accept()
        await websocket.send_bytes(b"RFB 003.008\n")
        client = ClientStream(person)
        if person is not None:
            self.hands.opened(person)
        try:
            while True:
                message = await websocket.receive()
                if message["type"] == "websocket.disconnect":
                    return
                said: bytes = message.get("bytes") or b""  # text is nothing that a viewer says
                self.passed = (self.passed + client.feed(said))[-4096:]
        except ProtocolError as error:
            await websocket.close(1002, str(error))
        except WebSocketDisconnect:
            pass
        finally:
            if person is not None:
                self.hands.closed(person)

    async def _get_clipboard(self, request: Request) -> Response:
        return _json(Clipboard(text=self.clipboard))

    async def _put_clipboard(self, request: Request) -> Response:
        self.clipboard = Clipboard.model_validate_json(await request.body()).text or ""
        return Response(status_code=204)

    async def _get_file(self, request: Request) -> Response:
        path = _path(request)
        if path not in self.files:
            raise FileMissing(f"There is no file {path}.")
        return Response(self.files[path], media_type="application/octet-stream")

    async def _no_ide(self, request: Request) -> Response:
        raise NoIde("The fake desktop has no IDE.")

    async def _put_file(self, request: Request) -> Response:
        path, data = _path(request), await request.body()
        self.files[path] = data
        return _json(
            FileInfo(
                path=path,
                name=PurePosixPath(path).name,
                kind="file",
                size=len(data),
                mode=request.query_params.get("mode", "644"),
                modified_at=datetime.now(timezone.utc),
            )
        )


class _Person:
    def __init__(self, hands: Hands, grant: str) -> None:
        self.grant = grant
        self.key, self.pointer = hands.key, hands.pointer
        self._control = hands.control

    def admits(self) -> bool:
        return self._control.holds(self.grant)

    async def release(self) -> None:
        pass


def _path(request: Request) -> str:
    return str(PurePosixPath("/home/user") / request.query_params.get("path", ""))


async def _unknown(request: Request, error: Exception) -> Response:
    refusal = Unsupported("The fake desktop has nothing like that.")
    return JSONResponse(refusal.to_wire(), status_code=refusal.status)


def _json(
    model: BaseModel,
) -> Response:
    return Response(model.model_dump_json(), media_type="application/json")


@functools.lru_cache(maxsize=16)
def _encoded(format: a.ImageFormat, size: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.new("RGB", size, (38, 70, 83)).save(buffer, format.upper())
    return buffer.getvalue()


class _Server(uvicorn.Server):
    """A server that leaves the process's signals alone: it is a guest in the event loop."""

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]  # theirs is a generator's context manager
        return nullcontext()


@asynccontextmanager
async def serving(app: ASGIApp, listener: socket.socket) -> AsyncIterator[None]:
    """Serve ``app``, whose lifespan is its owner's, on a listening socket while the block runs."""
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        http=HttpProtocol,
        ws=WebSocketProtocol,
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=1,
    )
    server = _Server(config)
    task = asyncio.ensure_future(server.serve(sockets=[listener]))
    try:
        deadline = time.monotonic() + START_SECONDS
        while not server.started:
            if task.done() or time.monotonic() > deadline:
                raise RuntimeError("the application does not serve")
            await asyncio.sleep(0.001)
        yield
    finally:
        server.should_exit = True
        await asyncio.wait_for(task, START_SECONDS)
