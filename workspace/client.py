"""Carrel: the asynchronous client of the controller.

``async with Carrel() as carrel, await carrel.claim("desktop") as desktop:`` gives a desktop for
the block's duration and releases it at its end, however the block ends. A workspace is asked for
without waiting and then watched, so that its id is known from the first moment: when the start
fails or the caller goes away, it is released and not left to its deadline. Nothing is retried.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any

import anyio
import httpx
from pydantic import TypeAdapter

from workspace import errors, settings, transport
from workspace.calls.artifacts import ArtifactCalls
from workspace.calls.egress import EgressCalls
from workspace.calls.events import EventCalls
from workspace.calls.keys import KeyCalls, ShareCalls
from workspace.calls.tools import ToolCalls
from workspace.calls.volumes import VolumeCalls
from workspace.control import HumanRequest, HumanRequestList
from workspace.desktop import Desktop
from workspace.egress import Egress, Secret
from workspace.fleet import NodeChange, PoolChange, PoolStatus, Status
from workspace.http1 import client_transport
from workspace.models import (
    TEMPLATE_NAME,
    WORKSPACE_ID,
    Extend,
    Identity,
    IdleAction,
    KeepFrames,
    Node,
    ScreenChange,
    Stats,
    Template,
    Theme,
    Workspace,
    WorkspaceList,
    WorkspaceRequest,
)
from workspace.transport import asked

REQUEST_SECONDS = 20.0
RELEASE_SECONDS = 20.0
PAUSE_SECONDS = 40.0  # memory is taken back
READY_SECONDS = 300.0
QUEUE_SECONDS = 60.0
MAX_LISTED = 10_000
_WAIT_SECONDS = 15.0  # one request for what is to come
_AGAIN_SECONDS = 0.02
_TEMPLATES = TypeAdapter(list[Template])
_NODES = TypeAdapter(list[Node])
_POOLS = TypeAdapter(list[PoolStatus])


class Carrel(VolumeCalls, EventCalls, KeyCalls, ShareCalls, ArtifactCalls, ToolCalls, EgressCalls):
    """Claims, lists and releases desktops of one controller, with one key.

    Every method may raise :class:`~workspace.errors.Unavailable` (no controller answers there),
    :class:`~workspace.errors.Unauthorized` and :class:`~workspace.errors.DesktopLost`.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Without arguments: ``CARREL_URL`` and ``CARREL_API_KEY``, or this machine's own.

        Raises:
            Unauthorized: there is no key.
        """
        self.url = (url or settings.controller_url()).rstrip("/")
        key = settings.api_key() if key is None else key  # an empty key is no key
        if not key or not key.isascii():
            raise errors.Unauthorized(
                f"There is no usable key for {self.url}.",
                hint="Set CARREL_API_KEY, or start a controller with `carrel up`, "
                f"which writes one to {settings.home() / 'api-key'}.",
            )
        try:
            base = httpx.URL(self.url)
            if base.scheme not in ("http", "https") or not base.host:
                raise ValueError("it is not like http://127.0.0.1:8700")
            self._http = httpx.AsyncClient(
                base_url=base,
                headers={"Authorization": f"Bearer {key}"},
                transport=transport or client_transport(self.url),
                trust_env=False,  # no proxy stands between a client and its loopback
            )
        except (httpx.InvalidURL, ValueError) as error:
            raise errors.InvalidRequest(f"{self.url!r} is not a usable URL: {error}") from error

    async def __aenter__(self) -> Carrel:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections. Desktops that were not released live until their deadline."""
        await self._http.aclose()

    async def claim(
        self,
        template: str | None = None,
        *,
        capabilities: Sequence[str] = (),
        name: str = "",
        ttl_seconds: float = 1800,
        metadata: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        setup: Sequence[str] = (),
        screen: Mapping[str, int] | None = None,
        theme: Theme | None = None,
        locale: str | None = None,
        timezone: str | None = None,
        keyboard: str | None = None,
        volume: str | None = None,
        idle_seconds: float | None = None,
        when_idle: IdleAction | None = None,
        keep_frames: KeepFrames | None = None,
        egress: Egress | None = None,
        secrets: Sequence[Secret | Mapping[str, str]] = (),
        key: str | None = None,
        queue_seconds: float = QUEUE_SECONDS,
        timeout_seconds: float = READY_SECONDS,
    ) -> ClaimedDesktop:
        """A desktop that is ready to act; as a context manager it is released at the end.

        Raises: what :meth:`create` does.
        """
        workspace = await self.create(
            template,
            capabilities=capabilities,
            name=name,
            ttl_seconds=ttl_seconds,
            metadata=metadata,
            environment=environment,
            setup=setup,
            screen=screen,
            theme=theme,
            locale=locale,
            timezone=timezone,
            keyboard=keyboard,
            volume=volume,
            idle_seconds=idle_seconds,
            when_idle=when_idle,
            keep_frames=keep_frames,
            egress=egress,
            secrets=secrets,
            key=key,
            queue_seconds=queue_seconds,
            timeout_seconds=timeout_seconds,
        )
        return ClaimedDesktop(self, self._http, workspace)

    async def create(
        self,
        template: str | None = None,
        *,
        capabilities: Sequence[str] = (),
        name: str = "",
        ttl_seconds: float = 1800,
        metadata: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        setup: Sequence[str] = (),
        screen: Mapping[str, int] | None = None,
        theme: Theme | None = None,
        locale: str | None = None,
        timezone: str | None = None,
        keyboard: str | None = None,
        volume: str | None = None,
        idle_seconds: float | None = None,
        when_idle: IdleAction | None = None,
        keep_frames: KeepFrames | None = None,
        egress: Egress | None = None,
        secrets: Sequence[Secret | Mapping[str, str]] = (),
        key: str | None = None,
        queue_seconds: float = QUEUE_SECONDS,
        wait: bool = True,
        timeout_seconds: float = READY_SECONDS,
    ) -> Workspace:
        """A workspace that lives until it is released or its time runs out.

        It is of the ``template`` of that name ("desktop"), or of the smallest that has all
        ``capabilities`` (["vscode"]; which there are, the templates say). With ``wait`` it is ready
        to act; without, it may still be starting. ``screen`` (width,
        height, dpi: any of them), ``theme``, ``locale`` ("de_DE.UTF-8"), ``timezone``
        ("Europe/Berlin") and ``keyboard`` ("de", "us(intl)") stand in place of the template's.
        ``volume`` names a home that stays when the workspace ends; it is made if there is none.
        Once nobody has used or watched it for ``idle_seconds`` it is released, or with
        ``when_idle="pause"`` paused until it is used again. ``keep_frames`` ("changed", "all")
        keeps pictures of before and after its actions, as :meth:`artifacts`. It reaches what
        ``egress`` says ("none", "internet", or a list of hosts) within what its template permits;
        each of ``secrets`` (name, host, value; header) is put into requests to its host on the way
        out, and is never in the desktop. The same ``key`` again answers with the same workspace,
        not another one. It waits ``queue_seconds`` for a place at most.

        Raises:
            TemplateNotFound: there is no such template, or none with those capabilities.
            Forbidden: its template does not permit that egress.
            InvalidRequest: there is no such locale, time zone or keyboard layout.
            VolumeInUse: another workspace has the volume.
            NoCapacity: no node has room.
            StartFailed: it did not come up.
            TimedOut: it was not ready in time, and was released, unless it has a key.
        """
        request = asked(
            WorkspaceRequest,
            **({} if template is None else {"template": template}),
            capabilities=list(capabilities),
            name=name,
            ttl_seconds=ttl_seconds,
            metadata=dict(metadata or {}),
            environment=dict(environment or {}),
            setup=list(setup),
            screen=None if screen is None else asked(ScreenChange, **screen),
            theme=theme,
            locale=locale,
            timezone=timezone,
            keyboard=keyboard,
            volume=volume,
            idle_seconds=idle_seconds,
            when_idle=when_idle,
            keep_frames=keep_frames,
            egress=egress,
            secrets=[_secret(it) for it in secrets],
            key=key,
            queue_seconds=queue_seconds,
            wait=False,
        )
        # Shielded, and bounded by the request's own timeout: a caller that goes away now would
        # leave a workspace behind whose id nobody knows.
        with anyio.CancelScope(shield=True):
            told = request.model_dump(
                mode="json", exclude={"template" if capabilities else "capabilities"}
            )
            body = await self._call("POST", "/v1/workspaces", json=told)
        workspace = Workspace.model_validate_json(body)
        if not wait:
            return workspace
        try:
            return await self.wait_ready(workspace, timeout_seconds=timeout_seconds)
        except BaseException:
            if key is None:
                with suppress(errors.CarrelError):  # what went wrong first is what is told
                    await self._give_back(workspace.id)
            raise

    async def wait_ready(
        self, workspace: Workspace | str, *, timeout_seconds: float = READY_SECONDS
    ) -> Workspace:
        """The workspace once it is ready to act; a paused one is.

        Raises:
            WorkspaceEnded, StartFailed: it ended or never came up; the message says why.
            TimedOut: it is still starting.
        """
        current = workspace if isinstance(workspace, Workspace) else await self.get(workspace)
        deadline = time.monotonic() + timeout_seconds
        # While it is being taken down it does not say why yet.
        while current.state in ("queued", "starting", "releasing"):
            if time.monotonic() >= deadline:
                raise errors.TimedOut(
                    f"Desktop {current.id} is not ready after {timeout_seconds:.0f} s.",
                    hint="It may need more time: look at its state again.",
                )
            left = max(0.0, deadline - time.monotonic())
            current = await self._after(current.id, min(left, _WAIT_SECONDS))
        if current.state not in ("ready", "paused"):
            raise _why_ended(current)
        return current

    async def _after(self, workspace_id: str, seconds: float) -> Workspace:
        """It, once it has started or ended, or after that time."""
        url, params = _path(workspace_id), {"wait_seconds": seconds}
        body = await self._call("GET", url, params=params, seconds=REQUEST_SECONDS + seconds)
        found = Workspace.model_validate_json(body)
        if found.state in ("queued", "starting", "releasing"):
            await anyio.sleep(_AGAIN_SECONDS)  # a server that does not wait is not run down
        return found

    async def templates(self) -> list[Template]:
        return _TEMPLATES.validate_json(await self._call("GET", "/v1/templates"))

    async def add_template(self, template: Template) -> Template:
        """Add a template.

        Raises:
            TemplateExists: there is another one of that name.
        """
        body = await self._call("POST", "/v1/templates", json=template.model_dump(mode="json"))
        return Template.model_validate_json(body)

    async def nodes(self) -> Sequence[Node]:
        """The machines that run desktops."""
        return _NODES.validate_json(await self._call("GET", "/v1/nodes"))

    async def drain(self, node_id: str, *, draining: bool = True) -> Node:
        """Have a node get no new desktops, or with ``draining=False`` get them again.

        Its warm desktops are ended; the claimed ones live until they end.

        Raises:
            NotFound: there is no such node.
        """
        if not node_id.isalnum():
            raise errors.NotFound(f"There is no node {node_id[:80]!r}.")
        change = NodeChange(draining=draining).model_dump()
        body = await self._call("PATCH", f"/v1/nodes/{node_id}", json=change)
        return Node.model_validate_json(body)

    async def status(self) -> Status:
        """Controllers, nodes, pools, the queue and strays, at a glance."""
        return Status.model_validate_json(await self._call("GET", "/v1/status"))

    async def pools(self) -> Sequence[PoolStatus]:
        """How many desktops of each template are kept warm, and how that goes."""
        return _POOLS.validate_json(await self._call("GET", "/v1/pools"))

    async def scale(
        self,
        template: str,
        *,
        warm: int | None = None,
        floor: int | None = None,
        max: int | None = None,
        surge: int | None = None,
        idle_seconds: float | None = None,
        max_age_seconds: float | None = None,
    ) -> PoolStatus:
        """Change a template's pool (:class:`~workspace.models.Pool`); what is None stays.

        A quarantine ends, whatever is changed.

        Raises:
            TemplateNotFound: there is no such template.
        """
        change = asked(
            PoolChange,
            warm=warm,
            floor=floor,
            max=max,
            surge=surge,
            idle_seconds=idle_seconds,
            max_age_seconds=max_age_seconds,
        ).model_dump(exclude_none=True)
        if not re.fullmatch(TEMPLATE_NAME, template):
            raise errors.TemplateNotFound(f"There is no template {template[:80]!r}.")
        body = await self._call("PATCH", f"/v1/pools/{template}", json=change)
        return PoolStatus.model_validate_json(body)

    async def human_requests(self) -> Sequence[HumanRequest]:
        """The requests for a person that wait, the oldest first."""
        body = await self._call("GET", "/v1/requests")
        return HumanRequestList.model_validate_json(body).requests

    async def whoami(self) -> Identity:
        """Whose key this is."""
        return Identity.model_validate_json(await self._call("GET", "/v1/whoami"))

    async def list(self, *, state: str | None = None) -> Sequence[Workspace]:
        """The live workspaces that this key sees, or those in ``state`` ("all" for every one).

        Newest first; of very many the first ``MAX_LISTED``.
        """
        found: list[Workspace] = []
        after: str | None = None
        while len(found) < MAX_LISTED:
            asked = {"state": state, "after": after}
            params = {name: value for name, value in asked.items() if value is not None}
            body = await self._call("GET", "/v1/workspaces", params=params)
            page = WorkspaceList.model_validate_json(body)
            found += page.workspaces
            after = page.after
            if after is None:
                break
        return found

    async def get(self, workspace_id: str) -> Workspace:
        """A workspace, live or ended.

        Raises:
            WorkspaceNotFound: there never was one of that id, or it is another tenant's.
        """
        return Workspace.model_validate_json(await self._call("GET", _path(workspace_id)))

    async def release(self, workspace_id: str) -> None:
        """Destroy a workspace; one already released is success."""
        await self._call("DELETE", _path(workspace_id), seconds=RELEASE_SECONDS)

    async def extend(self, workspace_id: str, seconds: float) -> Workspace:
        """Let it live ``seconds`` from now."""
        body = asked(Extend, ttl_seconds=seconds).model_dump()
        return Workspace.model_validate_json(
            await self._call("POST", _path(workspace_id) + "/extend", json=body)
        )

    async def pause(self, workspace_id: str) -> Workspace:
        """Have it stand still, using no processor, until it is used or watched.

        Its time goes on.

        Raises:
            Unsupported: its machine cannot.
        """
        body = await self._call("POST", _path(workspace_id) + "/pause", seconds=PAUSE_SECONDS)
        return Workspace.model_validate_json(body)

    async def resume(self, workspace_id: str) -> Workspace:
        """Have it go on; whatever is done in it does so too."""
        body = await self._call("POST", _path(workspace_id) + "/resume", seconds=PAUSE_SECONDS)
        return Workspace.model_validate_json(body)

    async def stats(self, workspace_id: str) -> Stats:
        """What it uses now of its machine. It is no use of it."""
        return Stats.model_validate_json(await self._call("GET", _path(workspace_id) + "/stats"))

    def desktop(self, workspace_id: str) -> Desktop:
        """The desktop of a workspace; it uses this client's connections and closes with it."""
        return Desktop(lambda: self._http, prefix=_path(workspace_id))

    async def _give_back(self, workspace_id: str) -> None:
        """Release, even while being cancelled; what cannot be released ends at its deadline."""
        with anyio.CancelScope(shield=True):  # bounded by the request's own timeout
            await self.release(workspace_id)

    async def _call(
        self, method: str, url: str, *, seconds: float = REQUEST_SECONDS, **options: Any
    ) -> bytes:  # Any: httpx's own request options
        try:
            return await transport.request(
                self._http, method, url, timeout=transport.timeout(seconds), **options
            )
        except (errors.DesktopLost, errors.TimedOut) as error:
            if isinstance(error.__cause__, (httpx.ConnectError, httpx.ConnectTimeout)):
                raise errors.Unavailable(
                    f"No controller answers at {self.url}.", hint="Start it with `carrel up`."
                ) from error
            raise


class ClaimedDesktop(Desktop):
    """A claimed workspace's desktop; leaving its ``async with`` block releases it."""

    def __init__(self, carrel: Carrel, http: httpx.AsyncClient, workspace: Workspace) -> None:
        super().__init__(lambda: http, prefix=_path(workspace.id))
        self._carrel = carrel
        self.workspace = workspace

    @property
    def id(self) -> str:
        return self.workspace.id

    @property
    def watch_url(self) -> str:
        """Where a person watches it in a browser."""
        return self.workspace.watch_url

    async def extend(self, seconds: float) -> Workspace:
        """Let it live ``seconds`` from now."""
        self.workspace = await self._carrel.extend(self.id, seconds)
        return self.workspace

    async def aclose(self) -> None:
        """Release it. The connections are the Carrel's and stay open."""
        await self._carrel._give_back(self.id)

    async def __aenter__(self) -> ClaimedDesktop:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await self.aclose()
        except errors.CarrelError:
            if error is None:  # else the block's own error is what is told
                raise


def _path(workspace_id: str) -> str:
    if re.fullmatch(WORKSPACE_ID, workspace_id) is None:
        raise errors.WorkspaceNotFound(f"There is no desktop {workspace_id[:80]!r}.")
    return f"/v1/workspaces/{workspace_id}"


def _secret(given: Secret | Mapping[str, str]) -> Secret:
    return asked(Secret.model_validate, given)


def _why_ended(workspace: Workspace) -> errors.CarrelError:
    if workspace.error is not None:
        return errors.from_wire(workspace.error.model_dump(), status=500)
    return errors.WorkspaceEnded(f"Desktop {workspace.id} is {workspace.state}.")
