"""A controller of a few routes over one real X server, for tests of the pages alone.

It serves what the dashboard asks for as the controller does, with the same headers; the screen is
a real Xtigervnc with a terminal in it, so that pixels and keys are real.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from anyio.from_thread import BlockingPortal
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket, WebSocketDisconnect

from tests.serving import listening_in_thread
from tests.waiting import until

DASHBOARD = Path(__file__).parents[3] / "controller" / "dashboard"
KEY, TOKEN = "the-key", "the-viewer-token"
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}


def workspace(workspace_id: str, **changes: Any) -> dict[str, Any]:  # Any: JSON values
    now = datetime.now(timezone.utc)
    return {
        "id": workspace_id,
        "name": "",
        "state": "ready",
        "template": "desktop",
        "screen": {"width": 1280, "height": 800},
        "created_at": now.isoformat(),
        "expires_at": (now + timedelta(minutes=28)).isoformat(),
        **changes,
    }


@dataclass
class StandIn:
    """What the server holds; tests change it while it serves."""

    vnc_socket: Path
    typed: Path
    url: str = ""
    workspaces: dict[str, dict[str, Any]] = field(default_factory=dict)  # Any: JSON values
    created: list[dict[str, Any]] = field(default_factory=list)  # Any: JSON values
    roles: list[str] = field(default_factory=list)
    sockets: set[WebSocket] = field(default_factory=set)
    control: dict[str, Any] = field(default_factory=dict)  # Any: JSON values
    returned: dict[str, Any] | None = None  # Any: JSON values
    requests: list[dict[str, Any]] = field(default_factory=list)  # Any: JSON values
    answered: list[dict[str, Any]] = field(default_factory=list)  # Any: JSON values
    is_broken: bool = False
    portal: BlockingPortal | None = None

    def app(self) -> Starlette:
        route = "/v1/workspaces"
        return Starlette(
            routes=[
                Route("/", lambda _: self._page("index.html")),
                Route("/watch/{id}", lambda _: self._page("watch.html")),
                Route("/v1/login", self.login, methods=["POST"]),
                Route("/v1/login", lambda _: JSONResponse({"oidc": False})),
                Route("/v1/whoami", self.whoami),
                Route("/v1/templates", self.templates),
                Route(route, self.list, methods=["GET"]),
                Route(route, self.create, methods=["POST"]),
                Route(route + "/{id}", self.one, methods=["GET", "DELETE"]),
                Route(route + "/{id}/viewer", self.viewer, methods=["POST"]),
                Route(route + "/{id}/viewer", self.admission),
                Route(route + "/{id}/screenshot", self.screenshot),
                Route(route + "/{id}/control", self.controls, methods=["GET", "POST", "DELETE"]),
                Route("/v1/requests", self.asked),
                Route(route + "/{id}/requests/{ticket}", self.answer, methods=["POST"]),
                WebSocketRoute(route + "/{id}/vnc", self.vnc),
                Mount("/static", StaticFiles(directory=DASHBOARD)),
            ]
        )

    @staticmethod
    def _page(name: str) -> Response:
        return FileResponse(DASHBOARD / name, headers=HEADERS)

    async def login(self, request: Request) -> Response:
        if (await request.json()).get("key") != KEY:
            return error(401, "unauthorized", "That key is not known.")
        response = Response(status_code=204)
        response.set_cookie("carrel", KEY, httponly=True, samesite="strict")
        return response

    async def whoami(self, request: Request) -> Response:
        if refusal := self._refusal(request):
            return refusal
        return JSONResponse({"name": "admin"})

    async def templates(self, request: Request) -> Response:
        return JSONResponse([{"name": "desktop", "description": "XFCE, a terminal and Chromium."}])

    async def list(self, request: Request) -> Response:
        if refusal := self._refusal(request):
            return refusal
        return JSONResponse({"workspaces": [*self.workspaces.values()], "after": None})

    async def create(self, request: Request) -> Response:
        body = await request.json()
        self.created.append(body)
        if len(self.workspaces) > 3:
            return error(503, "no_capacity", "No node has room for a desktop.", "Release one.")
        made = workspace(f"new{len(self.created):05}", state="starting", name=body["name"])
        self.workspaces[made["id"]] = made
        return JSONResponse(made, 201)

    async def one(self, request: Request) -> Response:
        workspace_id = request.path_params["id"]
        if refusal := self._refusal(request, workspace_id):
            return refusal
        if workspace_id not in self.workspaces:
            return error(404, "workspace_not_found", f"There is no desktop {workspace_id}.")
        if request.method == "DELETE":
            del self.workspaces[workspace_id]
            return Response(status_code=204)
        return JSONResponse(self.workspaces[workspace_id])

    async def viewer(self, request: Request) -> Response:
        if (await request.json()).get("token") != TOKEN:
            return error(401, "unauthorized", "That link is not valid.")
        response = Response(status_code=204)
        path = f"/v1/workspaces/{request.path_params['id']}"
        response.set_cookie("viewer", TOKEN, path=path, httponly=True)
        return response

    async def admission(self, request: Request) -> Response:
        if refusal := self._refusal(request, request.path_params["id"]):
            return refusal
        has_key = request.cookies.get("carrel") == KEY
        return JSONResponse({"mode": "control" if has_key else "view"})

    async def screenshot(self, request: Request) -> Response:
        if request.path_params["id"].startswith("dead"):
            return error(502, "desktop_lost", "The daemon went away.")
        shade = int(time.time() * 10) % 60
        picture = Image.linear_gradient("L").resize((320, 200))
        picture = Image.merge("RGB", (picture.point(lambda v: v // 3 + shade), picture, picture))
        data = io.BytesIO()
        picture.save(data, "jpeg")
        return Response(data.getvalue(), media_type="image/jpeg")

    async def controls(self, request: Request) -> Response:
        if refusal := self._refusal(request):
            return refusal
        if request.method == "POST":
            wanted = await request.json()
            if self.control.get("holder") not in (None, "admin") and not wanted.get("force"):
                who = {"who": self.control["display_name"], "since": self.control["since"]}
                return error(409, "control_taken", "Ada has it.", details=who)
            self.take("admin")
        elif request.method == "DELETE":
            self.end("handed_back")
        return JSONResponse({"holder": None} | self.control | {"returned": self.returned})

    async def asked(self, request: Request) -> Response:
        if refusal := self._refusal(request):
            return refusal
        return JSONResponse({"requests": self.requests})

    async def answer(self, request: Request) -> Response:
        self.answered.append({"ticket": request.path_params["ticket"]} | await request.json())
        self.requests.clear()
        self.end("handed_back")
        return JSONResponse({})

    def ask(self, reason: str) -> None:
        """As an agent, ask for a person at the first desktop."""
        now = datetime.now(timezone.utc).isoformat()
        request = {"ticket": "ticket01", "workspace_id": next(iter(self.workspaces))}
        self.requests.append(request | {"reason": reason, "state": "open", "created_at": now})

    def take(self, holder: str, display_name: str = "") -> None:
        """Give control to a person."""
        now = datetime.now(timezone.utc)
        self.control = {
            "holder": holder,
            "display_name": display_name,
            "since": now.isoformat(),
            "until": (now + timedelta(minutes=5)).isoformat(),
            "grant": f"grant{len(self.roles)}" if holder == "admin" else None,
        }

    def end(self, why: str) -> None:
        """Give it back to the agent."""
        self.control, self.returned = {}, {"why": why}

    async def vnc(self, socket: WebSocket) -> None:
        role = socket.query_params["role"]
        has_key = socket.cookies.get("carrel") == KEY
        if self.is_broken or not (has_key or (role == "view" and "viewer" in socket.cookies)):
            await socket.close(4401)
            return
        await socket.accept()
        self.roles.append(role)
        self.sockets.add(socket)
        reader, writer = await asyncio.open_unix_connection(str(self.vnc_socket))

        async def outwards() -> None:
            with contextlib.suppress(RuntimeError, WebSocketDisconnect):
                while data := await reader.read(1 << 16):
                    await socket.send_bytes(data)

        pump = asyncio.create_task(outwards())
        try:
            while True:
                writer.write(await socket.receive_bytes())
        except (WebSocketDisconnect, RuntimeError):
            pass
        finally:
            pump.cancel()
            writer.close()
            self.sockets.discard(socket)

    def break_connections(self) -> None:
        """Close every screen's socket, as a controller that goes away does."""
        assert self.portal is not None
        for each in list(self.sockets):
            self.portal.call(each.close, 1012)

    def _refusal(self, request: Request, viewer_of: str = "") -> Response | None:
        if self.is_broken:
            return error(503, "unavailable", "The controller is restarting.", "Wait a moment.")
        if request.cookies.get("carrel") == KEY:
            return None
        if viewer_of and request.cookies.get("viewer") == TOKEN:
            return None
        return error(401, "unauthorized", "No key was sent.")


def error(
    status: int,
    code: str,
    message: str,
    hint: str = "",
    details: dict[str, Any] | None = None,  # Any: JSON values
) -> Response:
    body = {"code": code, "message": message, "hint": hint, "details": details or {}}
    return JSONResponse(body, status)


@contextlib.contextmanager
def screen(folder: Path) -> Iterator[tuple[Path, Path]]:
    """A real X server on a unix socket, with a terminal that writes typed lines to a file."""
    rfb, typed = folder / "rfb", folder / "typed"
    read, write = os.pipe()
    arguments = ["-displayfd", str(write), "-rfbport", "-1", "-rfbunixpath", str(rfb)]
    arguments += ["-SecurityTypes", "None", "-AlwaysShared", "-geometry", "1280x800"]
    quiet = subprocess.DEVNULL
    x = subprocess.Popen(["Xtigervnc", *arguments], pass_fds=[write], stdout=quiet, stderr=quiet)
    os.close(write)
    with open(read, encoding="ascii") as line:
        display = f":{line.readline().strip()}"
    shell = f"exec sh -c 'echo Hello from the desktop; cat > {typed}'"
    terminal = subprocess.Popen(
        [
            *["xterm", "-display", display, "-geometry", "100x40+0+0"],
            *["-fa", "monospace", "-fs", "20", "-e", shell],
        ],
        stdout=quiet,
        stderr=quiet,
    )
    try:
        until(lambda: rfb.exists() and typed.exists())
        yield rfb, typed
    finally:
        for process in (terminal, x):
            process.terminate()
            process.wait(10)


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[StandIn]:
    with screen(folder) as (rfb, typed):
        state = StandIn(rfb, typed)
        with listening_in_thread(state.app()) as (port, state.portal):
            state.url = f"http://127.0.0.1:{port}"
            yield state
