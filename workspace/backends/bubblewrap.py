"""The bubblewrap backend: desktops as isolated processes of this machine.

Each sandbox has a supervisor of its own (see :mod:`workspace.backends.supervisor`) that is held by
a pipe from this process: when this process dies, however that happens, the sandbox dies within
100 ms. If the supervisor itself was killed, :meth:`BubblewrapBackend.list` goes on naming what is
left and :meth:`BubblewrapBackend.stop` removes it, from any process of the same user.

A start that fails or is cancelled has removed everything by the time it raises.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import re
import secrets
import ssl
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from workspace.backends import (
    cgroups,
    ides,
    pausing,
    remains,
    runtime,
    sandbox,
    supervisor,
    trees,
    volumes,
)
from workspace.backends.base import Endpoint, Mount, PauseResult
from workspace.backends.supervised import Supervised, cannot_write, check_path, end
from workspace.desktopd import locality
from workspace.desktopd.config import config_for
from workspace.egress import Egress, Secret
from workspace.errors import (
    BackendUnavailable,
    InvalidRequest,
    StartFailed,
    Unavailable,
    Unsupported,
    WorkspaceNotFound,
)
from workspace.folders import check_own
from workspace.models import WORKSPACE_ID, Stats, Template
from workspace.proxy import joining
from workspace.proxy.addresses import networks
from workspace.proxy.certificates import Authority, NoCertificate
from workspace.proxy.held import Held
from workspace.proxy.policy import Policy
from workspace.proxy.resolving import Resolve
from workspace.proxy.service import Proxy
from workspace.proxy.tally import Tally

READY_SECONDS = 60.0
DESKTOP_SECONDS = 30.0  # of those, for the desktop's own programs
BACKGROUND_PATIENCE = 2.5  # times as long, where others come first
MEASURE_SECONDS = 1.0
_ID = re.compile(WORKSPACE_ID)
_GONE = "There is no such sandbox."
log = logging.getLogger(__name__)


class BubblewrapBackend:
    """Runs sandboxes on this machine.

    Args:
        run_dir: state and sockets, one folder per sandbox; its path must be short.
        disk_dir: the home folders. Only sandboxes may lie in it. As root, desktops have uids of
            their own, so every parent of it must let others pass (``/var/lib/...``, not ``/root``).
        runtime_dir: what set-up built; passable for others as well. IDEs lie beside it.
        volume_dir: the volumes, as the homes; without it there are none.
        tool_dir: packages of tool servers, seen by desktops whose template names such servers.
        egress_private: private networks that desktops may be let reach, as public ones are.
        resolve, upstream: see :class:`workspace.proxy.service.Proxy`.
        command: what is run inside in place of desktopd.
    """

    def __init__(
        self,
        run_dir: str | Path,
        disk_dir: str | Path,
        runtime_dir: str | Path | None = None,
        volume_dir: str | Path | None = None,
        tool_dir: str | Path | None = None,
        *,
        egress_private: Sequence[str] = (),
        resolve: Resolve | None = None,
        upstream: Callable[[], ssl.SSLContext] = ssl.create_default_context,
        ready_seconds: float = READY_SECONDS,
        command: Sequence[str] = sandbox.DESKTOPD,
    ) -> None:
        self._run_dir = Path(run_dir)
        self._disk_dir = Path(disk_dir)
        self._runtime_dir = Path(runtime_dir) if runtime_dir else runtime.default_dir()
        self._volume_dir = Path(volume_dir) if volume_dir else None
        self._tool_dir = Path(tool_dir) if tool_dir else None
        self._ready_seconds = ready_seconds
        self._command = tuple(command)
        self._private = networks(egress_private)
        self._resolve, self._upstream = resolve, upstream
        self._outside: dict[str, Held] = {}  # the proxies
        self._running: dict[str, Supervised] = {}
        self._host: tuple[sandbox.Host, cgroups.Group] | None = None

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
        patience = BACKGROUND_PATIENCE if background else 1.0
        authority = await asyncio.to_thread(self._authority)
        spec = await asyncio.to_thread(
            self._spec, workspace_id, template, token, volume, patience, authority
        )
        if background:
            spec["weight"] = cgroups.BACKGROUND_WEIGHT
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            raise StartFailed(f"There is a sandbox {workspace_id} already.", hint="") from None
        except OSError as error:
            raise cannot_write(error) from error
        try:
            running = await Supervised.spawn(
                spec, supervisor.__file__, kept=cgroups.needed(spec["parents"])
            )
            self._running[workspace_id] = running
            self._open(workspace_id, template, authority)
            await running.until_ready(spec["ready_seconds"])
            self._serve(workspace_id)
        except BaseException as error:
            await self.stop(workspace_id)
            if isinstance(error, StartFailed):
                await self._explain(error)
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

    async def _stop(self, workspace_id: str) -> None:
        folder, disk = self._places(workspace_id)
        outside = self._outside.pop(workspace_id, None)
        if outside is not None:
            await outside.close()
        running = self._running.pop(workspace_id, None)
        if running is not None:
            await running.let_go()
        await asyncio.to_thread(end, folder, disk)

    async def wait(self, workspace_id: str) -> str:
        """See :class:`~workspace.backends.base.Backend`."""
        running = self._running.get(workspace_id)
        return await running.until_ended() if running is not None else _GONE

    async def list(self) -> Sequence[str]:
        """See :class:`~workspace.backends.base.Backend`."""
        return await asyncio.to_thread(self._list)

    async def pause(self, workspace_id: str) -> PauseResult:
        """See :class:`~workspace.backends.base.Backend`."""
        with self._freezing(workspace_id) as state:
            reclaimed = await asyncio.to_thread(pausing.pause, state)
            return PauseResult(reclaimed_mib=reclaimed)

    async def resume(self, workspace_id: str) -> None:
        """See :class:`~workspace.backends.base.Backend`."""
        with self._freezing(workspace_id) as state:
            await asyncio.to_thread(pausing.resume, state)

    async def foreground(
        self, workspace_id: str, *, whose: Mapping[str, str] | None = None
    ) -> None:
        """See :class:`~workspace.backends.base.Backend`."""
        with contextlib.suppress(WorkspaceNotFound):
            state = self._state(workspace_id)
            await asyncio.to_thread(cgroups.set_weight, state["group"], cgroups.NORMAL_WEIGHT)

    async def stats(self, workspace_id: str) -> Stats:
        """See :class:`~workspace.backends.base.Backend`. The disk's use is some seconds old."""
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

    def _authority(self) -> Authority | None:
        """Of a new desktop; without one, secrets go into plain HTTP alone."""
        if self._host is None:
            self._host = (sandbox.look(), cgroups.find_parents())
        if not self._host[0].bundle:
            return None
        try:
            return Authority.make()
        except NoCertificate as error:
            log.warning("no certificates for desktops: %s", error)
            return None

    def _open(self, workspace_id: str, template: Template, authority: Authority | None) -> None:
        policy = Policy(template.egress, self._private, template.egress_limits)
        proxy = Proxy(policy, Tally(), authority, resolve=self._resolve, upstream=self._upstream)
        self._outside[workspace_id] = Held(proxy)

    def _serve(self, workspace_id: str) -> None:
        listener = self._running[workspace_id].way_out()
        if listener is not None:
            self._outside[workspace_id].start(listener)

    def _list(self) -> Sequence[str]:
        found = remains.named(self._run_dir) | remains.named(self._disk_dir)
        return sorted(each for each in found if _ID.match(each))

    @contextlib.contextmanager
    def _freezing(self, workspace_id: str) -> Iterator[remains.State]:
        try:
            yield self._state(workspace_id)
        except pausing.NotPaused as error:
            raise Unavailable(f"Sandbox {workspace_id} is not paused: {error}.") from error
        except OSError as error:
            self._state(workspace_id)  # it may have ended meanwhile
            raise Unsupported(
                f"This node cannot pause desktops: {error}.", hint="It needs control groups."
            ) from error

    def _stats(self, workspace_id: str) -> Stats:
        state = self._state(workspace_id)
        disk: float | None = None
        with contextlib.suppress(OSError, ValueError):
            used = self._volume_use(workspace_id)
            if used is None:
                used = int((self._run_dir / workspace_id / remains.DISK_USE).read_text())
            disk = used / (1 << 20)
        return Stats(**cgroups.usage(state["group"]), disk_mib=disk)

    def _volume_use(self, workspace_id: str) -> int | None:
        """A volume's bytes now: it is told what they were when the sandbox is gone."""
        running = self._running.get(workspace_id)
        if running is None or running.volume is None:
            return None
        until, used = time.monotonic() + MEASURE_SECONDS, 0
        for size in trees.measure(f"{running.volume['folder']}/{volumes.HOME}"):
            used += size
            if time.monotonic() > until:
                return None
        return used

    def _state(self, workspace_id: str) -> remains.State:
        folder, _ = self._places(workspace_id)
        state = remains.load(str(folder))
        if state is None:
            raise WorkspaceNotFound(f"There is no sandbox {workspace_id}.")
        return state

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
        patience: float,
        authority: Authority | None,
    ) -> supervisor.Spec:
        """What the supervisor is to make; looks at the machine on the first call."""
        folder, disk = self._places(workspace_id)
        check_path(f"{folder}/{remains.SOCKET}")
        if self._host is None:
            self._host = (sandbox.look(), cgroups.find_parents())
        host, parents = self._host
        try:
            source = runtime.ensure_source(self._runtime_dir)
            self._run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            runtime.make_folder(self._disk_dir, 0o711)
            for own in (self._run_dir, self._disk_dir):
                check_own(own)
            volume = self._volume(mount) if mount is not None else None
        except OSError as error:
            raise cannot_write(error) from error
        limits = cgroups.Limits(
            memory_mib=template.memory_mib, pids=template.pids, cpus=template.cpus
        )
        locality.check(
            locale=template.locale, timezone=template.timezone, keyboard=template.keyboard
        )
        config = config_for(
            template,
            token=token,
            defaults=joining.environment(has_authority=authority is not None),
            start_seconds=DESKTOP_SECONDS * patience,
        )
        argv, data = sandbox.command_line(
            host,
            home=Path(volume["folder"], volumes.HOME) if volume else disk / "home",
            source=source,
            dependencies=runtime.dependencies(self._runtime_dir),
            memory_mib=template.memory_mib,
            machine_id=uuid.uuid4().hex,
            tools=self._tools() if template.tools else None,
            ide=ides.built(self._runtime_dir) if ides.is_mounted_for(template.ide) else None,
            certificate=authority.certificate.decode() if authority is not None else "",
            command=self._command,
        )
        if parents["kind"] == "scope":
            argv = [*cgroups.scope_command(f"carrel-{workspace_id}", limits), *argv]
        return {
            "id": workspace_id,
            "folder": str(folder),
            "disk": str(disk),
            "volume": volume,
            "argv": argv,
            "data": data,
            "config": config.model_dump_json(),
            "seccomp": base64.b64encode((source / runtime.FILTER).read_bytes()).decode(),
            "parents": parents,
            "limits": limits,
            "weight": cgroups.NORMAL_WEIGHT,
            "disk_mib": template.disk_mib,
            "ready_seconds": self._ready_seconds * patience,
            "egress": -1,  # Supervised knows
        }

    def _tools(self) -> Path | None:
        """The packages of tool servers, if there are any on this node."""
        if self._tool_dir is None or not self._tool_dir.is_dir():
            return None
        check_own(self._tool_dir)
        return self._tool_dir

    def _volume(self, mount: Mount) -> volumes.Volume:
        if self._volume_dir is None:
            raise Unsupported("This node has no folder for volumes.")
        runtime.make_folder(self._volume_dir, 0o711)
        check_own(self._volume_dir)
        return {"folder": str(self._volume_dir / mount.id), "is_new": mount.is_new}

    async def _explain(self, error: StartFailed) -> None:
        """Whether the machine itself is why a start failed; then that is what is raised."""
        from workspace.backends import doctor

        lacking = await asyncio.to_thread(doctor.reason)
        if lacking is not None:
            raise BackendUnavailable(
                f"{lacking.detail} ({error.message})", hint=lacking.mend
            ) from error
