"""The kata backend: each desktop a Pod of its own, in a virtual machine by Kata Containers.

The pod runs on the Kubernetes node that this process runs on, and no other: Ray has placed it. All
that is asked of the Kubernetes API goes through the node's one agent (:mod:`.kube.agent`), which
has the only watch and deletes the pod of an actor that dies. What outlives even that, the reaper
finds by labels; and what nobody finds ends by the pod's own ``activeDeadlineSeconds``.

A start that fails or is cancelled has deleted everything by the time it raises. It writes to the
API three times, and twice more to end (once more with a volume that is new); a desktop that lives
asks nothing.

Its way out is the same proxy as everywhere, in this process: the pod's NetworkPolicy lets it
connect to that one port, and the proxy serves nobody but the pod's address.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import ssl
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from workspace import settings
from workspace.backends import manifests, sandbox
from workspace.backends.base import Endpoint, Mount, PauseResult
from workspace.backends.kube import agent, pods, reaching
from workspace.backends.kube.calls import NETWORK, Calls, Taken
from workspace.backends.kube.faults import refused
from workspace.backends.kube.link import Followed, Link
from workspace.backends.kube.options import Options, Place
from workspace.backends.kube.starting import Starting
from workspace.desktopd import locality
from workspace.egress import Egress, Secret
from workspace.errors import (
    CarrelError,
    InvalidRequest,
    StartFailed,
    Unsupported,
    WorkspaceNotFound,
)
from workspace.models import WORKSPACE_ID, Stats, Template
from workspace.proxy import joining
from workspace.proxy.addresses import networks
from workspace.proxy.held import Held
from workspace.proxy.policy import Policy
from workspace.proxy.resolving import Resolve
from workspace.proxy.service import Proxy
from workspace.proxy.tally import Tally

BACKGROUND_PATIENCE = 1.6  # times as long, where others come first
_GONE = "There is no such sandbox."
_UNITS = {"Ki": 1 / 1024, "Mi": 1.0, "Gi": 1024.0, "": 1 / (1 << 20), "k": 1000 / (1 << 20)}
_ID = re.compile(WORKSPACE_ID)
log = logging.getLogger(__name__)


class KataBackend:
    """Runs sandboxes as pods.

    Args:
        run_dir: where the agent's socket is; its path must be short.
        options: :class:`~workspace.backends.kube.options.Options`, as JSON.
        cluster: whose desktops these are, where several controllers share a namespace.
        egress_private: private networks that desktops may be let reach, as public ones are.
        place: where this process runs; by default what the downward API says.
        resolve, upstream: see :class:`workspace.proxy.service.Proxy`.
        agent_seconds: how long the agent stays without anybody, and waits for a lost actor.
    """

    def __init__(
        self,
        run_dir: str | Path,
        options: Mapping[str, Any],  # Any: JSON values
        cluster: str,
        *,
        egress_private: Sequence[str] = (),
        place: Mapping[str, str] | None = None,
        resolve: Resolve | None = None,
        upstream: Callable[[], ssl.SSLContext] = ssl.create_default_context,
        agent_seconds: tuple[float, float] = (agent.IDLE_SECONDS, agent.ORPHAN_SECONDS),
    ) -> None:
        self._options = Options.model_validate(options)
        self._place = Place.model_validate(settings.kata_place() if place is None else place)
        self._cluster = cluster
        self._private = networks(egress_private)
        self._resolve, self._upstream = resolve, upstream
        self._running: dict[str, Followed] = {}
        self._outside: dict[str, Held] = {}  # the proxies
        idle, orphan = agent_seconds
        self._link = Link(
            Path(run_dir),
            self._options,
            self._place,
            cluster,
            idle_seconds=idle,
            orphan_seconds=orphan,
        )
        self._calls = Calls(self._link, self._options)

    async def start(
        self,
        workspace_id: str,
        template: Template,
        *,
        background: bool = False,
        volume: Mount | None = None,
    ) -> Endpoint:
        """See :class:`~workspace.backends.base.Backend`."""
        _check(workspace_id)
        locality.check(
            locale=template.locale, timezone=template.timezone, keyboard=template.keyboard
        )
        wanted = manifests.Sandbox(
            workspace_id,
            template,
            self._cluster,
            start=secrets.token_hex(4),
            volume=volume.id if volume is not None else None,
        )
        patience = BACKGROUND_PATIENCE if background else 1.0
        deadline = time.monotonic() + self._options.start_seconds * patience
        token = secrets.token_urlsafe(32)
        if workspace_id in self._running:
            raise StartFailed(f"There is a sandbox {workspace_id} already.", hint="")
        try:
            # Followed before it exists: from here on the agent deletes it if this process dies.
            followed = self._running[workspace_id] = await self._link.follow(workspace_id)
            starting = Starting(
                self._calls, wanted, followed, place=self._place, token=token, deadline=deadline
            )
            if volume is not None:
                await self._calls.claim(wanted, volume)
            await starting.make(await self._open(workspace_id, template))
            host = await starting.until_address(partial(self._admit, workspace_id))
            await starting.until_ready(host)
        except Taken:
            await self._let_go(workspace_id)
            await self._link.leave(workspace_id)
            raise
        except BaseException:
            try:
                await self.stop(workspace_id)
            except CarrelError as error:  # it is still followed: the agent deletes it after us
                log.error("what was started of %s stays for now: %s", workspace_id, error)
            raise
        return Endpoint(url=f"http://{reaching.netloc(host, self._options.port)}", token=token)

    async def stop(self, workspace_id: str) -> None:
        """See :class:`~workspace.backends.base.Backend`."""
        _check(workspace_id)
        ending = asyncio.ensure_future(self._stop(workspace_id))
        try:
            await asyncio.shield(ending)
        except asyncio.CancelledError:
            await asyncio.wait([ending])
            raise

    async def wait(self, workspace_id: str) -> str:
        """See :class:`~workspace.backends.base.Backend`."""
        followed = self._running.get(workspace_id)
        while followed is not None and self._running.get(workspace_id) is followed:
            followed.changed.clear()
            if followed.is_gone:
                return "Its pod was deleted from the cluster."
            if followed.pod is not None and (why := pods.ended(followed.pod)) is not None:
                return why
            await followed.change()
        return _GONE

    async def list(self) -> Sequence[str]:
        """See :class:`~workspace.backends.base.Backend`. Of the whole cluster: a node that is gone
        tells of nothing.
        """
        found = await self._calls.sandboxes(self._cluster)
        return sorted(each for each in found if _ID.match(each))

    async def pause(self, workspace_id: str) -> PauseResult:
        """See :class:`~workspace.backends.base.Backend`."""
        raise Unsupported("Kubernetes cannot pause a pod.", hint="Let idle desktops be released.")

    async def resume(self, workspace_id: str) -> None:
        """See :class:`~workspace.backends.base.Backend`."""
        raise Unsupported("Kubernetes cannot pause a pod.")

    async def foreground(
        self, workspace_id: str, *, whose: Mapping[str, str] | None = None
    ) -> None:
        """See :class:`~workspace.backends.base.Backend`. A pod's share of the processor
        stays; whose it is stands in its labels.
        """
        _check(workspace_id)
        if whose:
            await self._calls.label(workspace_id, whose)

    async def set_egress(
        self,
        workspace_id: str,
        *,
        egress: Egress | None = None,
        secrets: Sequence[Secret] | None = None,
    ) -> None:
        """See :class:`~workspace.backends.base.Backend`."""
        outside = self._outside.get(workspace_id)
        if outside is None and workspace_id in self._running:
            raise Unsupported(
                "The desktops of this node have no way out: it does not know its own address.",
                hint="Give Ray's pods CARREL_KATA_POD_IP by the downward API, as deploy/ does.",
            )
        if outside is None:
            raise WorkspaceNotFound(f"There is no sandbox {workspace_id}.")
        await outside.change(egress=egress, secrets=secrets)

    def tally(self, workspace_id: str) -> Tally | None:
        """See :class:`~workspace.backends.base.Backend`."""
        outside = self._outside.get(workspace_id)
        return outside.tally if outside is not None else None

    async def stats(self, workspace_id: str) -> Stats:
        """See :class:`~workspace.backends.base.Backend`. Its memory, where the cluster has a
        metrics server.
        """
        _check(workspace_id)
        name = manifests.name_of(workspace_id)
        if workspace_id not in self._running:
            answer = await self._link.ask("GET", self._calls.path("", "pods", name))
            if answer.status == 404:
                raise WorkspaceNotFound(f"There is no sandbox {workspace_id}.")
        told = await self._link.ask(
            "GET", self._calls.path("metrics.k8s.io", "pods", name), seconds=2
        )
        if told.status != 200:
            return Stats()
        return Stats(memory_mib=_used_mib(told.body))

    async def remove_volume(self, volume_id: str) -> None:
        """Remove a volume and all in it. One that is gone is success.

        Raises:
            VolumeInUse: a desktop has it.
        """
        await self._calls.check_free(volume_id)
        path = self._calls.path("", "persistentvolumeclaims", manifests.claim_name(volume_id))
        answer = await self._link.ask("DELETE", path)
        if answer.status not in (200, 202, 404):
            raise refused(f"Volume {volume_id} cannot be removed", answer)

    async def aclose(self) -> None:
        """Leave the agent. What runs is deleted soon after."""
        await self._link.aclose()

    async def _open(self, workspace_id: str, template: Template) -> manifests.WayOut:
        """Its proxy, which serves nobody until its pod has an address."""
        address = self._place.pod_ip
        if not address:
            return manifests.WayOut(policy=sandbox.POLICY)
        authority, bundle = await asyncio.to_thread(sandbox.authority)
        listener = reaching.listen(address, self._options.ports)
        policy = Policy(template.egress, self._private, template.egress_limits)
        proxy = Proxy(policy, Tally(), authority, resolve=self._resolve, upstream=self._upstream)
        outside = Held(proxy)
        outside.serve_only(())
        outside.start(listener)
        self._outside[workspace_id] = outside
        certificate = authority.certificate.decode() if authority is not None else ""
        port = int(listener.getsockname()[1])
        at = reaching.netloc(address, port)
        return manifests.WayOut(
            port=port,
            policy=sandbox.POLICY | joining.browser_policy(certificate, at=at),
            authority=certificate,
            bundle=bundle + certificate if certificate else "",
        )

    def _admit(self, workspace_id: str, addresses: Iterable[str]) -> None:
        outside = self._outside.get(workspace_id)
        if outside is not None:
            outside.serve_only(addresses)

    # Its end.

    async def _stop(self, workspace_id: str) -> None:
        followed = await self._let_go(workspace_id)
        name = manifests.name_of(workspace_id)
        await self._calls.delete("", "pods", name)
        await self._calls.until_gone(name, followed)
        await self._calls.delete(NETWORK, "networkpolicies", name)
        await self._link.leave(workspace_id)

    async def _let_go(self, workspace_id: str) -> Followed | None:
        outside = self._outside.pop(workspace_id, None)
        if outside is not None:
            await outside.close()
        followed = self._running.pop(workspace_id, None)
        if followed is not None:
            followed.changed.set()
        return followed


def _check(workspace_id: str) -> None:
    if not _ID.match(workspace_id):
        raise InvalidRequest(f"{workspace_id!r} is no workspace id.")


def _used_mib(metrics: Mapping[str, Any]) -> float | None:  # Any: JSON values
    """The memory of a pod's containers, as the metrics server counts it."""
    total = 0.0
    for each in metrics.get("containers") or ():
        amount = re.fullmatch(r"(\d+)([A-Za-z]*)", str((each.get("usage") or {}).get("memory")))
        if amount is None or amount[2] not in _UNITS:
            return None
        total += int(amount[1]) * _UNITS[amount[2]]
    return round(total, 1)
