"""What is asked of the Kubernetes API for desktops, with its refusals as Carrel's errors."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence

from workspace.backends import manifests
from workspace.backends.base import Mount
from workspace.backends.kube import pods, rights
from workspace.backends.kube.faults import Answer, is_soon, is_taken, no_class, refused
from workspace.backends.kube.link import Followed, Link
from workspace.backends.kube.options import Options
from workspace.errors import (
    BackendUnavailable,
    CarrelError,
    StartFailed,
    VolumeInUse,
    VolumeNotFound,
)

NETWORK = "networking.k8s.io"
FIRST = "networkpolicies"  # of a desktop's objects: it owns the others
SOON_SECONDS = 6.0  # a namespace that is new is complete within
CANCEL_SECONDS = 5.0
log = logging.getLogger(__name__)


class Taken(StartFailed):
    """There is a first object of that name: another start has made it, and this one nothing."""


class Calls:
    """By the link of one node, with the desktops of one cluster."""

    def __init__(self, link: Link, options: Options) -> None:
        self.link = link
        self.options = options

    async def create(
        self, group: str, resource: str, spec: manifests.Spec, *, has_rivals: bool = False
    ) -> manifests.Spec:
        """Make an object; one that this very start has made already is success.

        With ``has_rivals`` so is one that anybody has made.
        """
        path = self.path(group, resource)
        what = f"The {spec['kind']} {spec['metadata']['name']} could not be made"
        until = time.monotonic() + SOON_SECONDS
        while True:
            answer = await self._made(path, spec)
            if not is_soon(answer) or time.monotonic() > until:
                break
            await asyncio.sleep(0.3)
        is_there = is_taken(answer)
        if is_there and resource == "secrets":
            return spec  # its name is this start's own
        if is_there:
            there = await self.link.ask("GET", f"{path}/{spec['metadata']['name']}")
            given = (there.body.get("metadata") or {}).get("annotations") or {}
            is_ours = given.get(manifests.START) == spec["metadata"]["annotations"][manifests.START]
            if there.status == 200 and (is_ours or has_rivals):
                return there.body | {"apiVersion": spec["apiVersion"], "kind": spec["kind"]}
            kind = Taken if resource == FIRST else StartFailed
            raise kind(f"{what}: there is one already.", hint="")
        if answer.status in (200, 201, 202):
            return answer.body
        raise await self._explained(refused(what, answer), answer)

    async def _made(self, path: str, spec: manifests.Spec) -> Answer:
        """Whoever is cancelled meanwhile deletes it next: so not before the API has answered."""
        asking = asyncio.ensure_future(self.link.ask("POST", path, spec))
        try:
            return await asyncio.shield(asking)
        except asyncio.CancelledError:
            await asyncio.wait([asking], timeout=CANCEL_SECONDS)
            asking.cancel()
            raise

    async def _explained(self, error: CarrelError, answer: Answer) -> CarrelError:
        """With the classes there are, where ours is not one."""
        if "RuntimeClass" not in answer.message:
            return error
        told = await self.link.list(rights.path("node.k8s.io", "runtimeclasses"), {})
        names = tuple(str(each["metadata"]["name"]) for each in told.body.get("items") or ())
        return no_class(self.options.runtime_class, names) if told.status == 200 else error

    async def delete(self, group: str, resource: str, name: str) -> None:
        path = self.path(group, resource, name)
        answer = await self.link.ask("DELETE", path, manifests.DELETE_OPTIONS)
        if answer.status not in (200, 202, 404):
            raise refused(f"{name} cannot be deleted", answer)

    async def label(self, workspace_id: str, labels: Mapping[str, str]) -> None:
        """Add them to a desktop's pod, where there is one."""
        path = self.path("", "pods", manifests.name_of(workspace_id))
        answer = await self.link.ask("PATCH", path, manifests.labelled(labels))
        if answer.status not in (200, 404):
            raise refused(f"Pod {manifests.name_of(workspace_id)} cannot be labelled", answer)

    async def until_gone(self, name: str, followed: Followed | None) -> None:
        """Its end is on its way in any case; what takes longer, ``list`` goes on naming."""
        until = time.monotonic() + self.options.stop_seconds
        while time.monotonic() < until:
            if followed is not None and followed.is_gone:
                return
            answer = await self.link.ask("GET", self.path("", "pods", name))
            if answer.status == 404:
                return
            if followed is None:
                await asyncio.sleep(0.5)
                continue
            followed.changed.clear()
            await followed.change(2.0)
        log.warning("pod %s is being deleted, and takes its time", name)

    async def sandboxes(self, cluster: str) -> set[str]:
        """Of whatever there still is of desktops: pods, and what owns them."""
        found: set[str] = set()
        query = {"labelSelector": manifests.selector(cluster)}
        for group, resource in (("", "pods"), (NETWORK, "networkpolicies")):
            answer = await self.link.list(self.path(group, resource), query)
            if answer.status != 200:
                raise refused(f"The {resource} of desktops cannot be listed", answer)
            for each in answer.body["items"]:
                found.add(str(each["metadata"]["labels"].get(manifests.SANDBOX, "")))
        return found

    async def claim(self, wanted: manifests.Sandbox, volume: Mount) -> None:
        await self.check_free(volume.id)
        if volume.is_new:
            claim = manifests.claim(wanted, self.options)
            await self.create("", "persistentvolumeclaims", claim, has_rivals=True)
            return
        path = self.path("", "persistentvolumeclaims", manifests.claim_name(volume.id))
        answer = await self.link.ask("GET", path)
        if answer.status == 404:
            raise VolumeNotFound(f"Its PersistentVolumeClaim is not there: {answer.message}.")

    async def check_free(self, volume_id: str) -> None:
        query = {"labelSelector": f"{manifests.VOLUME}={volume_id}"}
        answer = await self.link.list(self.path("", "pods"), query)
        if answer.status != 200:
            raise refused("Who has the volume cannot be asked", answer)
        if not all(pods.is_over(pod) for pod in answer.body["items"]):
            raise VolumeInUse(f"Volume {volume_id} is in use.")

    async def events(self, wanted: manifests.Sandbox) -> Sequence[manifests.Spec]:
        """None where they cannot be had: they say why, and decide nothing."""
        query = {"fieldSelector": f"involvedObject.name={manifests.name_of(wanted.id)}"}
        try:
            answer = await self.link.list(self.path("", "events"), query)
        except BackendUnavailable as error:
            log.warning("the Events of desktop %s cannot be had: %s", wanted.id, error)
            return ()
        return answer.body.get("items") or () if answer.status == 200 else ()

    async def last_log(self, wanted: manifests.Sandbox) -> str:
        path = self.path("", "pods", manifests.name_of(wanted.id)) + "/log"
        query = {"container": manifests.CONTAINER, "tailLines": "20", "limitBytes": "4000"}
        try:
            return (await self.link.text(path, query)).strip()[-2000:]
        except BackendUnavailable as error:
            log.warning("the log of desktop %s cannot be had: %s", wanted.id, error)
            return ""

    def path(self, group: str, resource: str, name: str = "") -> str:
        return rights.path(group, resource, namespace=self.options.namespace, name=name)
