"""A controller in memory: the /v1 surface over desktops that are a list of what was done to them.

It answers errors as the real one does, and can be told to be slow, to fail, or to show noise.
"""

from __future__ import annotations

import asyncio
import io
import os
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

import httpx
from PIL import Image as Pillow
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from workspace import actions as a
from workspace import errors
from workspace.control import HumanRequest
from workspace.elements import Element, ElementTree, Marks
from workspace.fleet import PoolChange, PoolStatus
from workspace.models import (
    Application,
    ApplicationList,
    Clipboard,
    ClipboardContents,
    ErrorInfo,
    FileInfo,
    Job,
    Launch,
    Launched,
    Pool,
    Screen,
    Window,
    Workspace,
)
from workspace.waits import WAIT, Wait, Waited

KEY = "test-key"
SCREENS = {"desktop": Screen(), "large": Screen(width=3840, height=2160)}


def now() -> datetime:
    return datetime.now(timezone.utc)


@dataclass
class FakeJob:
    command: str
    ends_at: float
    stdout: str = ""
    stderr: str = ""

    def seen(self, id_: str, stdout_from: int = 0, stderr_from: int = 0) -> Job:
        out, err = self.stdout.encode(), self.stderr.encode()
        is_over = time.monotonic() >= self.ends_at
        return Job(
            id=id_,
            command=self.command,
            state="exited" if is_over else "running",
            exit_code=0 if is_over else None,
            stdout=out[stdout_from:].decode(),
            stderr=err[stderr_from:].decode(),
            stdout_next=len(out),
            stderr_next=len(err),
        )


@dataclass
class FakeDesktop:
    """One desktop: a screen that records, files in a dict, jobs that only pretend."""

    workspace: Workspace
    actions: list[a.Action] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    jobs: dict[str, FakeJob] = field(default_factory=dict)
    is_noisy: bool = False
    effect: a.Effect = "changed"
    seen: dict[str, object] = field(default_factory=dict)  # more of what an observation says
    cursor: tuple[int, int] = (0, 0)
    windows: dict[int, Window] = field(default_factory=dict)
    elements: list[Element] = field(default_factory=list)
    clipboard: dict[str, Clipboard] = field(default_factory=dict)
    waits: list[Wait] = field(default_factory=list)
    asked: HumanRequest | None = None  # the last request for a person
    daemon: httpx.AsyncClient | None = None  # a real one, which its IDE is asked through
    waited: Waited | None = None  # what every wait is answered; None: that it was not so

    def picture(self, action: a.Screenshot | a.Zoom) -> a.Image:
        screen = self.workspace.screen
        size = (screen.width, screen.height)
        if action.region is not None:
            size = (action.region.width, action.region.height)
        scale = action.scale
        if isinstance(action, a.Zoom) and action.width is not None:
            scale = action.width / size[0]
        size = (round(size[0] * scale), round(size[1] * scale))
        if self.is_noisy:
            image = Pillow.frombytes("RGB", size, os.urandom(size[0] * size[1] * 3))
        else:
            image = Pillow.new("RGB", size, (40, 90, 160))
        buffer = io.BytesIO()
        image.save(buffer, action.format, quality=action.quality)
        return a.Image.model_construct(
            format=action.format, width=size[0], height=size[1], data=buffer.getvalue()
        )

    async def act(self, asked: list[a.Action], observe: str) -> a.Observation:
        screen = self.workspace.screen
        picture = None
        for index, action in enumerate(asked):
            x, y = getattr(action, "x", None), getattr(action, "y", None)
            if x is not None and y is not None:
                if not (0 <= x < screen.width and 0 <= y < screen.height):
                    raise errors.OffScreen(f"({x}, {y}) is off.")
                self.cursor = (x, y)
            if isinstance(action, a.Key) and action.chord == "nokey":
                raise errors.UnknownKey(
                    "There is no key 'nokey'.",
                    hint="Did you mean Nobreak?",
                    details={"index": index, "completed": index},
                )
            if isinstance(action, a.Wait):
                await asyncio.sleep(action.seconds)
            if isinstance(action, (a.Screenshot, a.Zoom)):
                picture = self.picture(action)
            else:
                self.actions.append(action)
        if observe == "frame":
            picture = self.picture(a.Screenshot())
        return a.Observation(
            screenshot=picture,
            cursor=self.cursor,
            screen=(screen.width, screen.height),
            effect=self.effect if observe == "frame" else "not_observed",
            settled=True if observe == "frame" else None,
        ).model_copy(update=self.seen)


class FakeController:
    """``app`` is the ASGI app; what it holds and how it misbehaves is in the attributes."""

    def __init__(self) -> None:
        self.desktops: dict[str, FakeDesktop] = {}
        self.pools = {
            name: PoolStatus(template=name, pool=Pool(), state="idle") for name in SCREENS
        }
        self.start_seconds = 0.0
        self.fails_to_start = False
        self.crashes = False
        workspace = "/v1/workspaces/{id}"
        self.app = Starlette(
            routes=[
                Route("/v1/whoami", self.whoami),
                Route("/v1/templates", self.templates),
                Route("/v1/pools", self.list_pools),
                Route("/v1/pools/{template}", self.scale, methods=["PATCH"]),
                Route("/v1/workspaces", self.create, methods=["POST"]),
                Route("/v1/workspaces", self.list),
                Route(workspace, self.get),
                Route(workspace, self.release, methods=["DELETE"]),
                Route(f"{workspace}/extend", self.extend, methods=["POST"]),
                Route(f"{workspace}/actions", self.act, methods=["POST"]),
                Route(f"{workspace}/screenshot", self.screenshot),
                Route(f"{workspace}/processes", self.start, methods=["POST"]),
                Route(f"{workspace}/processes/{{job}}", self.poll),
                Route(f"{workspace}/processes/{{job}}/signal", self.signal, methods=["POST"]),
                Route(f"{workspace}/files", self.read),
                Route(f"{workspace}/files", self.write, methods=["PUT"]),
                Route(f"{workspace}/files/stat", self.stat),
                Route(f"{workspace}/files/list", self.files),
                Route(f"{workspace}/ui", self.ui),
                Route(f"{workspace}/ui/find", self.ui),
                Route(f"{workspace}/ui/marks", self.ui_marks),
                Route(f"{workspace}/windows", self.windows),
                Route(
                    f"{workspace}/windows/{{window:int}}/{{how}}", self.arrange, methods=["POST"]
                ),
                Route(f"{workspace}/applications", self.applications),
                Route(f"{workspace}/applications", self.launch, methods=["POST"]),
                Route(f"{workspace}/clipboard", self.clipboard),
                Route(f"{workspace}/clipboard", self.copy, methods=["PUT"]),
                Route(f"{workspace}/wait", self.wait, methods=["POST"]),
                Route(f"{workspace}/ide", self.ide, methods=["GET", "POST"]),
                Route(f"{workspace}/requests", self.ask_human, methods=["POST"]),
                Route(f"{workspace}/requests/{{ticket}}", self.human, methods=["GET"]),
            ],
            exception_handlers={errors.CarrelError: _problem},
        )

    def live(self) -> list[str]:
        states = ("starting", "ready")
        return [id_ for id_, it in self.desktops.items() if it.workspace.state in states]

    def _authorize(self, request: Request) -> None:
        if self.crashes:
            raise errors.Internal("The store is gone.")
        if request.headers.get("authorization") != f"Bearer {KEY}":
            raise errors.Unauthorized("That key is not known.")

    def _desktop(self, request: Request) -> FakeDesktop:
        self._authorize(request)
        desktop = self.desktops.get(request.path_params["id"])
        if desktop is None:
            raise errors.WorkspaceNotFound("There is no such desktop.")
        ready = desktop.workspace.state == "starting" and (
            (now() - desktop.workspace.created_at).total_seconds() >= self.start_seconds
        )
        if ready:
            state = "failed" if self.fails_to_start else "ready"
            error = ErrorInfo(code="start_failed", message="X did not start.", hint="Try again.")
            desktop.workspace = desktop.workspace.model_copy(
                update={"state": state, "error": error if self.fails_to_start else None}
            )
        return desktop

    def _live(self, request: Request) -> FakeDesktop:
        desktop = self._desktop(request)
        if desktop.workspace.state != "ready":
            raise errors.WorkspaceEnded(f"The desktop is {desktop.workspace.state}.")
        return desktop

    async def whoami(self, request: Request) -> Response:
        self._authorize(request)
        return JSONResponse({"name": "tester", "role": "admin"})

    async def templates(self, request: Request) -> Response:
        self._authorize(request)
        return JSONResponse([{"name": name} for name in SCREENS] + [{"name": "code", "ide": {}}])

    async def list_pools(self, request: Request) -> Response:
        self._authorize(request)
        return JSONResponse([pool.model_dump(mode="json") for pool in self.pools.values()])

    async def scale(self, request: Request) -> Response:
        self._authorize(request)
        name = request.path_params["template"]
        if name not in self.pools:
            raise errors.TemplateNotFound(f"There is no template {name!r}.")
        change = PoolChange.model_validate_json(await request.body())
        pool = Pool.model_validate(
            {**self.pools[name].pool.model_dump(), **change.model_dump(exclude_unset=True)}
        )
        self.pools[name] = PoolStatus(
            template=name, pool=pool, state="filling", target=max(pool.warm, pool.floor)
        )
        return _model(self.pools[name])

    async def create(self, request: Request) -> Response:
        self._authorize(request)
        body = await request.json()
        if body["template"] not in SCREENS:
            raise errors.TemplateNotFound(
                f"There is no template {body['template']!r}.", hint="There are: desktop, large."
            )
        assert body["wait"] is False
        taken = (it.workspace for it in self.desktops.values() if it.workspace.ended_at is None)
        if body["volume"] is not None and body["volume"] in [it.volume for it in taken]:
            raise errors.VolumeInUse(f"Volume {body['volume']!r} is in use by another workspace.")
        id_ = f"fake{len(self.desktops):04}"
        workspace = Workspace(
            id=id_,
            name=body.get("name", ""),
            state="starting" if self.start_seconds or self.fails_to_start else "ready",
            template=body["template"],
            screen=SCREENS[body["template"]],
            created_at=now(),
            expires_at=now() + timedelta(seconds=body["ttl_seconds"]),
            watch_url=f"http://127.0.0.1:8700/watch/{id_}#token",
            volume=body["volume"],
            idle_seconds=body["idle_seconds"],
            when_idle=body["when_idle"] or "release",
        )
        self.desktops[id_] = FakeDesktop(workspace)
        return _model(workspace, 201)

    async def list(self, request: Request) -> Response:
        self._authorize(request)
        live = [self.desktops[id_].workspace.model_dump(mode="json") for id_ in self.live()]
        begin = int(request.query_params.get("after", 0))  # pages of two, to be paged through
        after = str(begin + 2) if begin + 2 < len(live) else None
        return JSONResponse({"workspaces": live[begin : begin + 2], "after": after})

    async def get(self, request: Request) -> Response:
        return _model(self._desktop(request).workspace)

    async def release(self, request: Request) -> Response:
        desktop = self._desktop(request)
        desktop.workspace = desktop.workspace.model_copy(
            update={"state": "released", "ended_at": now()}
        )
        return Response(status_code=204)

    async def extend(self, request: Request) -> Response:
        desktop = self._live(request)
        expires_at = now() + timedelta(seconds=(await request.json())["ttl_seconds"])
        desktop.workspace = desktop.workspace.model_copy(update={"expires_at": expires_at})
        return _model(desktop.workspace)

    async def act(self, request: Request) -> Response:
        desktop = self._live(request)
        if desktop.asked is not None and not desktop.asked.is_over:
            raise errors.HumanInControl(
                "You asked for a person.", details={"ticket": desktop.asked.ticket}
            )
        asked = a.ACTIONS.validate_json(await request.body())
        return _model(await desktop.act(asked, request.query_params.get("observe", "none")))

    async def ide(self, request: Request) -> Response:
        """As the controller: handed on to the desktop's daemon, and what it answers handed back."""
        daemon = self._live(request).daemon
        if daemon is None:
            raise errors.NoIde("This desktop has no IDE.")
        answer = await daemon.request(request.method, "/ide", content=await request.body())
        return Response(answer.content, answer.status_code, media_type="application/json")

    async def ask_human(self, request: Request) -> Response:
        desktop = self._live(request)
        body = await request.json()
        desktop.asked = HumanRequest(
            ticket="ticket01",
            workspace_id=desktop.workspace.id,
            reason=body["reason"],
            state="open",
            asked_by="tester",
            created_at=now(),
            expires_at=now() + timedelta(seconds=body["seconds"]),
        )
        return _model(desktop.asked, 201)

    async def human(self, request: Request) -> Response:
        """It does not wait: what there is to be told is told at once."""
        desktop = self._live(request)
        if desktop.asked is None or request.path_params["ticket"] != desktop.asked.ticket:
            raise errors.NotFound("There is no such request.")
        return _model(desktop.asked)

    async def screenshot(self, request: Request) -> Response:
        return Response(self._live(request).picture(a.Screenshot()).data, media_type="image/jpeg")

    async def start(self, request: Request) -> Response:
        """``echo X`` prints, ``sleep N`` takes time, ``flood N`` prints N numbered lines."""
        desktop = self._live(request)
        command = (await request.json())["command"]
        word, _, rest = command.partition(" ")
        job = FakeJob(command, time.monotonic() + (float(rest) if word == "sleep" else 0))
        if word == "echo":
            job.stdout = rest + "\n"
        if word == "flood":
            job.stdout = "".join(f"line {number} ü\n" for number in range(int(rest)))
            job.stderr = "e" * int(rest)
        id_ = f"j{len(desktop.jobs)}"
        desktop.jobs[id_] = job
        return _model(job.seen(id_))

    async def poll(self, request: Request) -> Response:
        desktop, id_ = self._live(request), request.path_params["job"]
        job = desktop.jobs.get(id_)
        if job is None:
            raise errors.ProcessNotFound(f"There is no job {id_}.")
        query = request.query_params
        begin, patience = time.monotonic(), float(query.get("wait_seconds", 0))
        while time.monotonic() < min(begin + patience, job.ends_at):  # noqa: ASYNC110  # a clock
            await asyncio.sleep(0.01)
        offsets = int(query.get("stdout_from", 0)), int(query.get("stderr_from", 0))
        return _model(job.seen(id_, *offsets))

    async def signal(self, request: Request) -> Response:
        desktop = self._live(request)
        desktop.jobs[request.path_params["job"]].ends_at = 0
        return Response(status_code=204)

    def _file(self, request: Request) -> tuple[str, bytes]:
        path = request.query_params["path"]
        files = self._live(request).files
        if path not in files:
            raise errors.FileMissing(f"There is no file {path}.")
        return path, files[path]

    async def read(self, request: Request) -> Response:
        return Response(self._file(request)[1])

    async def stat(self, request: Request) -> Response:
        path, data = self._file(request)
        return _model(_info(path, data))

    async def write(self, request: Request) -> Response:
        path, data = request.query_params["path"], await request.body()
        self._live(request).files[path] = data
        return _model(_info(path, data))

    async def files(self, request: Request) -> Response:
        files = sorted(self._live(request).files.items())
        entries = [_info(path, data).model_dump(mode="json") for path, data in files]
        return JSONResponse({"entries": entries, "after": None})

    async def ui(self, request: Request) -> Response:
        name = request.query_params.get("name", "")
        there = [each for each in self._live(request).elements if name in each.name]
        return JSONResponse(ElementTree(elements=there).model_dump(mode="json"))

    async def ui_marks(self, request: Request) -> Response:
        desktop = self._live(request)
        picture = desktop.picture(a.Screenshot(scale=float(request.query_params["scale"])))
        marks = Marks.model_construct(screenshot=picture, elements=desktop.elements)
        return Response(marks.model_dump_json(), media_type="application/json")

    async def windows(self, request: Request) -> Response:
        windows = self._live(request).windows.values()
        return JSONResponse([window.model_dump() for window in windows])

    async def arrange(self, request: Request) -> Response:
        windows, id_ = self._live(request).windows, request.path_params["window"]
        if id_ not in windows:
            raise errors.WindowNotFound(f"There is no window {id_}.")
        how = request.path_params["how"]
        if how == "close":
            del windows[id_]
            return Response(status_code=204)
        if how == "focus":
            change: dict[str, Any] = {"is_focused": True}
        else:
            change = await request.json()
        if how == "state":
            state = change["state"]
            change = {"state": [] if state == "normal" else [state]}
        windows[id_] = windows[id_].model_copy(update=change)
        return Response(status_code=204) if how == "focus" else _model(windows[id_])

    async def applications(self, request: Request) -> Response:
        self._live(request)
        found = Application(name="org.xfce.mousepad", title="Mousepad")
        return _model(ApplicationList(applications=[found]))

    async def launch(self, request: Request) -> Response:
        """``mousepad`` opens a window, ``sleep`` none, ``false`` ends at once."""
        desktop = self._live(request)
        asked = Launch.model_validate_json(await request.body())
        if asked.name not in ("mousepad", "sleep", "false"):
            raise errors.ApplicationNotFound(f"There is no {asked.name}.", hint="Use mousepad.")
        window = None
        if asked.name == "mousepad":
            title = " ".join(["Mousepad", *asked.arguments])
            box = {"x": -20, "y": 30, "width": 640, "height": 480}
            window = Window(id=7, title=title, window_class="Mousepad", **box)
            desktop.windows[7] = window
        has_ended = asked.name == "false"
        job = Job(id="j0", command=asked.name, state="exited" if has_ended else "running")
        job = job.model_copy(update={"exit_code": 1 if has_ended else None})
        return _model(Launched(job=job, window=window))

    async def clipboard(self, request: Request) -> Response:
        held = self._live(request).clipboard.get(request.query_params["selection"])
        if held is None:
            return _model(ClipboardContents())
        told = ClipboardContents.model_construct(
            text=held.text or "", html=held.html, image=held.image, targets=["X"]
        )
        return _model(told)

    async def copy(self, request: Request) -> Response:
        held = Clipboard.model_validate_json(await request.body())
        self._live(request).clipboard[request.query_params["selection"]] = held
        return Response(status_code=204)

    async def wait(self, request: Request) -> Response:
        desktop = self._live(request)
        desktop.waits.append(WAIT.validate_json(await request.body()))
        if desktop.waited is None:
            raise errors.TimedOut("It was not so.", hint="There was something else.")
        return _model(desktop.waited)


def _info(path: str, data: bytes) -> FileInfo:
    name = path.rpartition("/")[2]
    return FileInfo(
        path=f"/home/user/{name}",
        name=name,
        kind="file",
        size=len(data),
        mode="644",
        modified_at=now(),
    )


def _model(model: Any, status: int = 200) -> Response:  # Any: every model has the same method
    return Response(model.model_dump_json(), status, media_type="application/json")


async def _problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, errors.CarrelError)
    return JSONResponse(error.to_wire(), error.status)
