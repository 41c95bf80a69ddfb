"""One start of a pod, from its objects to a desktop that is ready to act."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from workspace.backends import manifests
from workspace.backends.kube import pods, reaching
from workspace.backends.kube.calls import NETWORK, Calls
from workspace.backends.kube.link import Followed
from workspace.backends.kube.options import Place
from workspace.desktopd.config import config_for
from workspace.errors import BackendUnavailable, StartFailed
from workspace.proxy import joining

_LOOK_SECONDS, _MOST_LOOK_SECONDS = 3.0, 15.0  # beside the watch: at Events, and at the pod
_POLL_SECONDS = 0.05
log = logging.getLogger(__name__)


class Starting:
    """What is made for ``wanted``, and waited for until ``deadline`` (of the monotonic clock)."""

    def __init__(
        self,
        calls: Calls,
        wanted: manifests.Sandbox,
        followed: Followed,
        *,
        place: Place,
        token: str,
        deadline: float,
    ) -> None:
        self._calls = calls
        self._options = calls.options
        self._wanted = wanted
        self._followed = followed
        self._place = place
        self._token = token
        self._deadline = deadline

    async def make(self, out: manifests.WayOut) -> None:
        """Its objects, of which the first owns the others.

        Raises:
            Taken: there is one that another start has made; nothing was changed.
        """
        wanted, options, place = self._wanted, self._options, self._place
        seconds = max(5.0, self._deadline - time.monotonic())
        defaults: dict[str, str] = {}
        if out.port:
            defaults = joining.environment(
                has_authority=bool(out.authority),
                at=reaching.netloc(place.pod_ip, out.port),
                bundle=f"{manifests.TRUST}/{manifests.BUNDLE}",
                certificate=f"{manifests.TRUST}/{manifests.AUTHORITY}",
            )
        config = config_for(
            wanted.template, token=self._token, defaults=defaults, start_seconds=min(600.0, seconds)
        )
        policy = manifests.network_policy(wanted, options, place, out)
        made = await self._calls.create(NETWORK, "networkpolicies", policy)
        metadata = made["metadata"]
        owner = manifests.owner(made["apiVersion"], made["kind"], metadata["name"], metadata["uid"])
        secret = manifests.secret(wanted, options, place, config.model_dump_json(), out, owner)
        await self._calls.create("", "secrets", secret)
        pod = await self._calls.create(
            "", "pods", manifests.pod(wanted, options, place, out, owner)
        )
        if self._followed.pod is None:
            self._followed.put(pod)

    async def until_address(self, told: Callable[[Iterable[str]], None]) -> str:
        """Where the pod is, once its desktop's container runs; all its addresses are ``told``."""
        followed = self._followed
        began = time.monotonic()
        pause = _LOOK_SECONDS
        look_at = began + pause
        while True:
            followed.changed.clear()
            now = time.monotonic()
            if followed.is_gone:
                raise StartFailed("Its pod was deleted while it started.")
            pod = followed.pod or {}
            await self._check(pod, now - began)
            if (host := pods.address(pod)) is not None:
                told(_addresses(pod))
                return host
            if now >= self._deadline:
                raise await self._too_late(pod)
            if now >= look_at:
                pause = min(pause * 2, _MOST_LOOK_SECONDS)
                look_at = now + pause
                await self._look()
                continue
            await followed.change(min(self._deadline, look_at, now + 1.0) - now)

    async def until_ready(self, host: str) -> None:
        """Ask desktopd itself: Kubernetes' own probe comes once a second."""
        followed = self._followed
        began = time.monotonic()
        why = ""
        while True:
            try:
                status = await reaching.health(host, self._options.port, self._token)
                if status == 200:
                    return
                if status == 401:
                    raise StartFailed("What answers in the pod is not the desktop of this start.")
                why = f"it answers {status}"
            except (OSError, ValueError) as error:
                why = getattr(error, "strerror", None) or str(error)
            if followed.is_gone:
                raise StartFailed("Its pod was deleted while it started.")
            await self._check(followed.pod or {}, time.monotonic() - began)
            if time.monotonic() >= self._deadline:
                words = await self._calls.last_log(self._wanted)
                raise StartFailed(
                    f"The pod runs, and its desktop was not ready in time: {why}."
                    + (f" Its last words:\n{words}" if words else ""),
                    hint="If it cannot be connected to, look at the cluster's NetworkPolicies.",
                )
            await asyncio.sleep(_POLL_SECONDS)

    async def _check(self, pod: Mapping[str, Any], waited: float) -> None:  # Any: JSON values
        error = pods.failure(pod, image=self._options.image, waited=waited)
        if error is None:
            return
        if isinstance(error, StartFailed) and (words := await self._calls.last_log(self._wanted)):
            error = StartFailed(f"{error.message} Its last words:\n{words}", hint=error.hint)
        raise error

    async def _look(self) -> None:
        """What the watch may not have told yet, and what it never tells. While the API is away,
        nothing: a pod that was made may come to run all the same.
        """
        events = await self._calls.events(self._wanted)
        error = pods.told(events, runtime_class=self._options.runtime_class)
        if error is not None:
            raise error
        path = self._calls.path("", "pods", manifests.name_of(self._wanted.id))
        before = self._followed.pod
        try:
            answer = await self._calls.link.ask("GET", path)
        except BackendUnavailable as away:
            log.warning("the pod of desktop %s cannot be looked at: %s", self._wanted.id, away)
            return
        self._followed.look(before, answer)

    async def _too_late(self, pod: Mapping[str, Any]) -> StartFailed:  # Any: JSON values
        words = pods.last_words(await self._calls.events(self._wanted)) or pods.unschedulable(pod)
        message = f"The desktop's pod did not run in time ({pods.phase(pod)})."
        return StartFailed(f"{message} The cluster says: {words}" if words else message)


def _addresses(pod: Mapping[str, Any]) -> list[str]:  # Any: JSON values
    status = pod.get("status") or {}
    return [str(each["ip"]) for each in status.get("podIPs") or ()] or [str(status["podIP"])]
