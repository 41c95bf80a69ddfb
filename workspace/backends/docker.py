"""The docker backend: each desktop a container of this machine, by Docker or Podman.

Each sandbox has a supervisor of its own (:mod:`workspace.backends.containers.supervisor`) that is
held by a pipe from this process: when this process dies, however that happens, the supervisor has
the engine remove the container. Should the supervisor be killed too, desktopd ends by itself, and
:meth:`DockerBackend.list` names what is left until :meth:`DockerBackend.stop` has removed it, from
any process of the same user.

A start that fails or is cancelled has removed everything by the time it raises, unless the engine
does not answer: then :meth:`DockerBackend.list` names it. Nothing is ever fetched: an image of
gigabytes would not come in the time that a start has.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import resource
import secrets
import ssl
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from workspace.backends import manifests, remains, runtime, sandbox, supervised, volumes
from workspace.backends.base import Endpoint, Mount, PauseResult
from workspace.backends.containers import leftovers, specs, supervisor
from workspace.backends.containers.api import Answer, Away, Engine
from workspace.backends.containers.options import Options
from workspace.desktopd import locality
from workspace.desktopd.config import config_for
from workspace.egress import Egress, Secret
from workspace.errors import (
    BackendUnavailable,
    CarrelError,
    InvalidRequest,
    StartFailed,
    Unavailable,
    Unsupported,
    WorkspaceNotFound,
)
from workspace.folders import check_own
from workspace.models import WORKSPACE_ID, Stats, Template
from workspace.proxy.addresses import networks
from workspace.proxy.certificates import Authority
from workspace.proxy.held import Held
from workspace.proxy.policy import Policy
from workspace.proxy.resolving import Resolve
from workspace.proxy.service import Proxy
from workspace.proxy.tally import Tally

BACKGROUND_PATIENCE = 1.6  # times as long, where others come first
BACKGROUND_SHARES, NORMAL_SHARES = 102, 1024
_SHORT_SECONDS = 10.0
_ONE_SHOT = {"stream": "false", "one-shot": "true"}
_ID = re.compile(WORKSPACE_ID)
_GONE = "There is no such sandbox."
log = logging.getLogger(__name__)


class DockerBackend:
    """Runs sandboxes as containers.

    Args:
        run_dir: state and sockets, one folder per sandbox; its path must be short.
        disk_dir: the home folders. Only sandboxes may lie in it.
        options: :class:`~workspace.backends.containers.options.Options`, as JSON.
        cluster: whose desktops these are, where several controllers share an engine.
        volume_dir: the volumes; without it there are none.
        tool_dir: packages of tool servers, seen by desktops whose template names such servers.
        egress_private: private networks that desktops may be let reach, as public ones are.
        resolve, upstream: see :class:`workspace.proxy.service.Proxy`.
    """

    def __init__(
        self,
        run_dir: str | Path,
        disk_dir: str | Path,
        options: Mapping[str, Any],  # Any: JSON values
        cluster: str,
        volume_dir: str | Path | None = None,
        tool_dir: str | Path | None = None,
        *,
        egress_private: Sequence[str] = (),
        resolve: Resolve | None = None,
        upstream: Callable[[], ssl.SSLContext] = ssl.create_default_context,
    ) -> None:
        self._run_dir = Path(run_dir)
        self._disk_dir = Path(disk_dir)
        self._options = Options.model_validate(options)
        self._cluster = cluster
        self._volume_dir = Path(volume_dir) if volume_dir else None
        self._tool_dir = Path(tool_dir) if tool_dir else None
        self._private = networks(egress_private)
        self._resolve, self._upstream = resolve, upstream
        self._engine = Engine(self._options.socket)
        self._known: specs.Engine | None = None
        self._outside: dict[str, Held] = {}  # the proxies
        self._running: dict[str, supervised.Supervised] = {}

    async def start(
        self,
        workspace_id: str,
        template: Template,
        *,
        background: bool = False,
        volume: Mount | None = None,
    ) -> Endpoint:
        """See :class:`~workspace.backends.base.Backend`."""
        folder, _ = self._places(workspace_id)
        token = secrets.token_urlsafe(32)
        authority, bundle = await asyncio.to_thread(sandbox.authority)
        spec = await asyncio.to_thread(
            self._spec, workspace_id, template, token, volume, authority, bundle, background
        )
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            raise StartFailed(f"There is a sandbox {workspace_id} already.", hint="") from None
        except OSError as error:
            raise supervised.cannot_write(error) from error
        try:
            running = await supervised.Supervised.spawn(spec, supervisor.__file__)
            self._running[workspace_id] = running
            policy = Policy(template.egress, self._private, template.egress_limits)
            outside = self._outside[workspace_id] = Held(
                Proxy(policy, Tally(), authority, resolve=self._resolve, upstream=self._upstream)
            )
            await running.until_ready(spec["ready_seconds"])
            if (listener := running.way_out()) is not None:
                outside.start(listener)
        except BaseException:
            try:
                await self.stop(workspace_id)
            except CarrelError as error:  # the cause is what counts; `list` names what is left
                log.warning("sandbox %s is not removed yet: %s", workspace_id, error)
            raise
        return Endpoint(url=f"unix://{folder}/{remains.SOCKET}", token=token)

    async def stop(self, workspace_id: str) -> None:
        """See :class:`~workspace.backends.base.Backend`."""
        ending = asyncio.ensure_future(self._stop(workspace_id))
        try:
            await asyncio.shield(ending)
        except asyncio.CancelledError:
            await asyncio.wait([ending])
            raise

    async def wait(self, workspace_id: str) -> str:
        """See :class:`~workspace.backends.base.Backend`."""
        running = self._running.get(workspace_id)
        return await running.until_ended() if running is not None else _GONE

    async def list(self) -> Sequence[str]:
        """See :class:`~workspace.backends.base.Backend`.

        Raises:
            BackendUnavailable: the engine does not answer.
        """
        return await asyncio.to_thread(self._list)

    async def pause(self, workspace_id: str) -> PauseResult:
        """See :class:`~workspace.backends.base.Backend`. What it gives back is not known."""
        await asyncio.to_thread(self._freeze, workspace_id, "pause", True)
        return PauseResult()

    async def resume(self, workspace_id: str) -> None:
        """See :class:`~workspace.backends.base.Backend`."""
        await asyncio.to_thread(self._freeze, workspace_id, "unpause", False)

    async def foreground(
        self, workspace_id: str, *, whose: Mapping[str, str] | None = None
    ) -> None:
        """See :class:`~workspace.backends.base.Backend`. Podman tells it apart since 5.0."""
        self._places(workspace_id)
        with contextlib.suppress(BackendUnavailable):
            body = {"CpuShares": NORMAL_SHARES}
            await asyncio.to_thread(self._ask, "POST", workspace_id, "update", body)

    async def stats(self, workspace_id: str) -> Stats:
        """See :class:`~workspace.backends.base.Backend`. The disk's use is some seconds old, and
        unknown where the home is the engine's own.
        """
        return await asyncio.to_thread(self._stats, workspace_id)

    async def set_egress(
        self,
        workspace_id: str,
        *,
        egress: Egress | None = None,
        secrets: Sequence[Secret] | None = None,
    ) -> None:
        """See :class:`~workspace.backends.base.Backend`."""
        outside = self._outside.get(workspace_id)
        if outside is None:
            raise WorkspaceNotFound(f"There is no sandbox {workspace_id}.")
        await outside.change(egress=egress, secrets=secrets)

    def tally(self, workspace_id: str) -> Tally | None:
        """See :class:`~workspace.backends.base.Backend`."""
        outside = self._outside.get(workspace_id)
        return outside.tally if outside is not None else None

    # Its end.

    async def _stop(self, workspace_id: str) -> None:
        folder, disk = self._places(workspace_id)
        outside = self._outside.pop(workspace_id, None)
        if outside is not None:
            await outside.close()
        running = self._running.pop(workspace_id, None)
        if running is not None:
            await running.let_go()
        await asyncio.to_thread(
            supervised.end, folder, disk, lambda: self._remove(workspace_id, folder)
        )

    def _remove(self, workspace_id: str, folder: Path) -> None:
        """What its supervisor, if it was killed, has left to the engine that it used."""
        told: Mapping[str, Any] = remains.load(str(folder)) or {}  # Any: a leftovers.State
        engine = Engine(told.get("engine") or self._engine.path)
        name = told.get("container") or specs.name_of(self._cluster, workspace_id)
        try:
            leftovers.remove(engine, name)
        except Away as error:
            raise _away(error, engine) from error
        except OSError as error:
            raise CarrelError(f"{error}.", hint="Stop it again.") from error

    # What the engine is asked.

    def _ask(
        self,
        method: str,
        workspace_id: str,
        what: str,
        body: object = None,
        query: dict[str, str] | None = None,
    ) -> Answer:
        path = f"/containers/{specs.name_of(self._cluster, workspace_id)}/{what}"
        try:
            return self._engine.ask(method, path, body, query=query, seconds=_SHORT_SECONDS)
        except Away as error:
            raise _away(error, self._engine) from error

    def _look(self, workspace_id: str) -> Mapping[str, Any]:  # Any: JSON values
        """The state of a container."""
        self._places(workspace_id)
        answer = self._ask("GET", workspace_id, "json")
        if answer.status == 404:
            raise WorkspaceNotFound(f"There is no sandbox {workspace_id}.")
        if not answer.is_done:
            raise Unavailable(f"Sandbox {workspace_id} cannot be looked at: {answer.message}.")
        state: Mapping[str, Any] = answer.body["State"]  # Any: as above
        return state

    def _freeze(self, workspace_id: str, what: str, is_wanted: bool) -> None:
        if bool(self._look(workspace_id).get("Paused")) == is_wanted:
            return
        answer = self._ask("POST", workspace_id, what)
        if answer.is_done:
            return
        state = self._look(workspace_id)  # it may have ended, or another was faster
        if bool(state.get("Paused")) == is_wanted:
            return
        if not state.get("Running"):
            raise WorkspaceNotFound(f"Sandbox {workspace_id} has ended.")
        raise Unsupported(
            f"The engine cannot {what} desktops: {answer.message}.", hint="It needs control groups."
        )

    def _stats(self, workspace_id: str) -> Stats:
        if not self._look(workspace_id).get("Running"):
            raise WorkspaceNotFound(f"Sandbox {workspace_id} has ended.")
        told = self._ask("GET", workspace_id, "stats", query=_ONE_SHOT)
        found = specs.stats(told.body) if told.status == 200 and told.body else {}
        disk = None
        with contextlib.suppress(OSError, ValueError):
            path = self._run_dir / workspace_id / remains.DISK_USE
            disk = int(path.read_text()) / (1 << 20)
        return Stats.model_validate({**found, "disk_mib": disk})

    def _list(self) -> Sequence[str]:
        query = {"all": "1", "filters": specs.filters(self._cluster)}
        try:
            answer = self._engine.ask("GET", "/containers/json", query=query)
        except Away as error:
            raise _away(error, self._engine) from error
        if answer.status != 200:
            raise BackendUnavailable(f"The engine does not list containers: {answer.message}.")
        found = {str((each.get("Labels") or {}).get(manifests.SANDBOX)) for each in answer.body}
        found |= remains.named(self._run_dir) | remains.named(self._disk_dir)
        return sorted(each for each in found if _ID.match(each))

    # Its start.

    def _places(self, workspace_id: str) -> tuple[Path, Path]:
        if not _ID.match(workspace_id):
            raise InvalidRequest(f"{workspace_id!r} is no workspace id.")
        return self._run_dir / workspace_id, self._disk_dir / workspace_id

    def _spec(
        self,
        workspace_id: str,
        template: Template,
        token: str,
        mount: Mount | None,
        authority: Authority | None,
        bundle: str,
        background: bool,
    ) -> supervisor.Spec:
        """What the supervisor is to make; looks at the engine on the first call."""
        folder, disk = self._places(workspace_id)
        door = f"{folder}/{remains.DOOR}/{specs.DOOR_SOCKET}"
        supervised.check_path(door)
        locality.check(
            locale=template.locale, timezone=template.timezone, keyboard=template.keyboard
        )
        if self._known is None:
            try:
                self._known = specs.engine(*self._engine.who())
            except Away as error:
                raise _away(error, self._engine) from error
        engine = self._known
        try:
            self._run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            runtime.make_folder(self._disk_dir, 0o711)
            for own in (self._run_dir, self._disk_dir):
                check_own(own)
        except OSError as error:
            raise supervised.cannot_write(error) from error
        owns = engine.owns(os.geteuid())
        volume = self._volume(mount, owns) if mount is not None else None
        home = f"{disk}/{remains.HOME}" if owns else ""
        certificate = authority.certificate.decode() if authority is not None else ""
        wanted = specs.Wanted(
            workspace_id,
            template,
            self._cluster,
            folder=str(folder),
            home=f"{volume['folder']}/{volumes.HOME}" if volume else home,
            authority=certificate,
            bundle=bundle + certificate,
            tools=self._tools() if template.tools else "",
        )
        patience = BACKGROUND_PATIENCE if background else 1.0
        config = config_for(
            template,
            token=token,
            defaults=specs.environment(has_authority=bool(certificate)),
            start_seconds=self._options.start_seconds * patience,
        )
        _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
        try:
            body = specs.create(
                wanted, self._options, engine, most_files=most_files, most_tasks=_most_tasks()
            )
        except OSError as error:
            raise BackendUnavailable(
                f"The seccomp profile cannot be read: {error}.", hint="See CARREL_DOCKER_SECCOMP."
            ) from error
        return {
            "id": workspace_id,
            "folder": str(folder),
            "disk": str(disk),
            "volume": volume,
            "config": config.model_dump_json(),
            "disk_mib": template.disk_mib,
            "ready_seconds": self._options.start_seconds * patience,
            "egress": -1,  # Supervised knows
            "engine": self._engine.path,
            "name": specs.name_of(self._cluster, workspace_id),
            "body": body,
            "door": door,
            "runtime": self._options.runtime,
            "files": specs.files(wanted, self._options),
            "uid": specs.UID if os.geteuid() == 0 and not engine.keeps_id else -1,
            "has_home": owns,
            "shares": BACKGROUND_SHARES if background else None,
        }

    def _tools(self) -> str:
        """The packages of tool servers, if there are any on this node."""
        if self._tool_dir is None or not self._tool_dir.is_dir():
            return ""
        check_own(self._tool_dir)
        return str(self._tool_dir)

    def _volume(self, mount: Mount, owns: bool) -> volumes.Volume:
        if self._volume_dir is None:
            raise Unsupported("This node has no folder for volumes.")
        if not owns:
            raise Unsupported(
                "This engine's desktops cannot have volumes: their files would be another user's.",
                hint=f"Run Carrel as root or as the user with the id {specs.UID}, or use "
                "Podman without root.",
            )
        runtime.make_folder(self._volume_dir, 0o711)
        check_own(self._volume_dir)
        return {"folder": str(self._volume_dir / mount.id), "is_new": mount.is_new}


def _most_tasks() -> int:
    """How many processes a container may be given at all.

    Podman limits itself to as many as there can be ids.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NPROC)
    ids = int(Path("/proc/sys/kernel/pid_max").read_text())
    return min(most, ids) if most >= 0 else ids


def _away(error: Away, engine: Engine) -> BackendUnavailable:
    return BackendUnavailable(
        f"Docker or Podman does not answer: {error}.", hint=leftovers.away_hint(engine.path)
    )
