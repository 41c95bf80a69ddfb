"""A small Kubernetes API in memory, for what a real one does only when it is broken.

It has what the backend uses: create, get, list in pages, watch with versions and bookmarks, delete
with grace and the garbage collector, 409, 410, RuntimeClass admission, roles (RBAC), and a kubelet
that a test writes. What it has not (schemas, defaults, schedulers, other admission) only a real
cluster shows. It can be away, slow, and refuse.
"""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from workspace.testing import FakeDesktop, serving

Spec = dict[str, Any]
Kubelet = Callable[["KubernetesApi", Spec], Awaitable[None]]

NODE = "node-a"
_KINDS = {
    "pods": ("v1", "Pod"),
    "secrets": ("v1", "Secret"),
    "events": ("v1", "Event"),
    "nodes": ("v1", "Node"),
    "namespaces": ("v1", "Namespace"),
    "persistentvolumeclaims": ("v1", "PersistentVolumeClaim"),
    "networkpolicies": ("networking.k8s.io/v1", "NetworkPolicy"),
    "runtimeclasses": ("node.k8s.io/v1", "RuntimeClass"),
}


@dataclass
class Request:
    verb: str
    group: str
    resource: str
    namespace: str
    name: str
    query: dict[str, str] = field(default_factory=dict)

    @property
    def is_write(self) -> bool:
        return self.verb in ("create", "delete", "patch", "update")


@dataclass
class Fault:
    """What a matching request is answered; ``does`` it first (a lost reply), or not."""

    verb: str
    resource: str
    status: int
    message: str
    times: int
    does: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    reason: str = ""


class Refusal(Exception):
    def __init__(self, status: int, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


class KubernetesApi:
    """One API server; its state outlives its being away."""

    def __init__(self, kubelet: Kubelet | None = None) -> None:
        self.objects: dict[tuple[str, str, str], Spec] = {}  # resource, namespace, name
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.kubelet: Kubelet = kubelet or run_pod
        # Of roles; None: everything is allowed. `roles` is what a reset goes back to.
        self.rules: list[Spec] | None = None
        self.roles: list[Spec] | None = None
        self.user = "system:serviceaccount:carrel:carrel"
        self.watch_delay = 0.0  # of each event, in seconds
        self.create_seconds = 0.0
        self.delete_seconds = 0.02  # that the kubelet takes to end a pod
        self.answering = asyncio.Event()  # else it takes requests and says nothing
        self.answering.set()
        self.port = 0
        self.version = 1000
        self.oldest = 0  # of the versions that a watch may begin with
        self._history: list[tuple[int, str, str, Spec]] = []
        self._changed = asyncio.Condition()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.errors: list[str] = []  # of kubelets
        self.metrics: dict[str, Spec] = {}  # of pods, by name
        self.pods_run: dict[str, asyncio.Event] = {}  # by uid: is to end
        self.default = self.kubelet
        self.reset()

    def reset(self) -> None:
        """As it was at first, with nothing of anybody's; the agent stays connected."""
        for resource, namespace, name in list(self.objects):
            self.remove(resource, namespace, name)
        self.requests.clear()
        self.faults.clear()
        self.errors.clear()
        self.kubelet, self.rules = self.default, self.roles
        if self.watch_delay:
            self.cut()
        self.watch_delay, self.create_seconds, self.delete_seconds = 0.0, 0.0, 0.02
        for namespace in ("carrel", "carrel-desktops"):
            self.put("namespaces", {"metadata": {"name": namespace}})
        self.put("runtimeclasses", {"metadata": {"name": "kata-clh"}, "handler": "kata-clh"})
        self.put(
            "nodes",
            {
                "metadata": {"name": NODE, "labels": {"katacontainers.io/kata-runtime": "true"}},
                "status": {
                    "nodeInfo": {"kernelVersion": "6.1.0-host"},
                    "capacity": {"memory": "8388608Ki"},
                    "conditions": [{"type": "Ready", "status": "True"}],
                },
            },
        )

    # Its life.

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def go_away(self) -> None:
        """Nothing listens any more, and what was connected is cut off."""
        assert self._server is not None
        self._server.close()
        self.cut()

    def cut(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def stop(self) -> None:
        for event in self.pods_run.values():
            event.set()
        await self.go_away()
        for _ in range(200):
            if not self._tasks:
                break
            await asyncio.sleep(0.01)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def kubeconfig(self, folder: Path) -> str:
        path = folder / "kubeconfig"
        server = f"http://127.0.0.1:{self.port}"
        path.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "test",
                    "clusters": [{"name": "test", "cluster": {"server": server}}],
                    "users": [{"name": "test", "user": {"token": "a-token"}}],
                    "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
                }
            )
        )
        return str(path)

    # What a test looks at and does.

    def names(self, resource: str) -> list[str]:
        return sorted(name for kind, _, name in self.objects if kind == resource)

    def get(self, resource: str, name: str, namespace: str = "carrel-desktops") -> Spec:
        return self.objects[resource, namespace, name]

    def writes(self) -> Counter[tuple[str, str]]:
        return Counter((each.verb, each.resource) for each in self.requests if each.is_write)

    def fail(
        self,
        verb: str,
        resource: str,
        status: int,
        *,
        message: str = "injected",
        times: int = 1,
        does: bool = False,
        reason: str = "",
        **headers: str,
    ) -> None:
        self.faults.append(Fault(verb, resource, status, message, times, does, headers, reason))

    def forget_versions(self) -> None:
        """Versions of until now are too old to watch from, and what is being watched from them."""
        self.oldest = self.version
        self._history.clear()

    def put(self, resource: str, spec: Spec, namespace: str = "") -> Spec:
        """Make or replace an object, as a component of the cluster does."""
        api_version, kind = _KINDS[resource]
        name = spec["metadata"]["name"]
        known = self.objects.get((resource, namespace, name))
        self.version += 1
        metadata = {"uid": str(uuid.uuid4()), "namespace": namespace} | spec["metadata"]
        metadata["resourceVersion"] = str(self.version)
        made = {"apiVersion": api_version, "kind": kind} | spec | {"metadata": metadata}
        self.objects[resource, namespace, name] = made
        self._note("MODIFIED" if known else "ADDED", resource, made)
        return made

    def status(self, pod: Spec, **status: Any) -> None:
        """Change a pod's status, if it is still there."""
        metadata = pod["metadata"]
        known = self.objects.get(("pods", metadata["namespace"], metadata["name"]))
        if known is not None and known["metadata"]["uid"] == metadata["uid"]:
            changed = known | {"status": known.get("status", {}) | status}
            self.put("pods", changed, metadata["namespace"])

    def event(self, pod: Spec, reason: str, message: str, type: str = "Warning") -> None:
        metadata = pod["metadata"]
        name = f"{metadata['name']}.{uuid.uuid4().hex[:8]}"
        self.put(
            "events",
            {
                "metadata": {"name": name},
                "involvedObject": {"name": metadata["name"], "uid": metadata["uid"]},
                "reason": reason,
                "message": message,
                "type": type,
                "lastTimestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            },
            metadata["namespace"],
        )

    def remove(self, resource: str, namespace: str, name: str) -> None:
        """Remove an object now, and in a moment what it owns."""
        gone = self.objects.pop((resource, namespace, name), None)
        if gone is None:
            return
        self.version += 1
        gone = gone | {"metadata": gone["metadata"] | {"resourceVersion": str(self.version)}}
        self._note("DELETED", resource, gone)
        if (running := self.pods_run.pop(gone["metadata"]["uid"], None)) is not None:
            running.set()
        for (kind, where, what), each in list(self.objects.items()):
            owners = each["metadata"].get("ownerReferences") or ()
            if any(owner["uid"] == gone["metadata"]["uid"] for owner in owners):
                self.remove(kind, where, what)

    def _note(self, type: str, resource: str, made: Spec) -> None:
        self._history.append((self.version, resource, type, made))
        self._spawn(self._wake())

    async def _wake(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _spawn(self, work: Any) -> None:
        with suppress(RuntimeError):  # no loop yet
            task = asyncio.get_running_loop().create_task(work)
            self._tasks.add(task)
            task.add_done_callback(self._done)
            return
        work.close()

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.errors.append(repr(error))

    # HTTP.

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                method, target, _ = head[0].split(" ")
                lengths = [line[15:] for line in head if line.lower().startswith("content-length:")]
                body = await reader.readexactly(int(lengths[0])) if lengths else b""
                await self.answering.wait()
                is_known = "authorization: bearer a-token" in (line.lower() for line in head)
                given = json.loads(body) if body else None
                await self._answer(writer, method, target, given, is_known)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _answer(
        self,
        writer: asyncio.StreamWriter,
        method: str,
        target: str,
        body: Spec | None,
        is_known: bool,
    ) -> None:
        headers: dict[str, str] = {}
        try:
            request = _parse(method, target)
            self.requests.append(request)
            if not is_known:
                raise Refusal(401, "Unauthorized")
            fault = self._fault(request)
            if fault is not None and not fault.does:
                headers = fault.headers
                raise Refusal(fault.status, fault.message, fault.reason)
            self._authorize(request)
            if request.verb == "watch":
                return await self._watch(writer, request)
            if request.verb == "create":
                await asyncio.sleep(self.create_seconds)
            status, told = self._do(request, body)
            if fault is not None:
                raise Refusal(fault.status, fault.message)
        except Refusal as error:
            status = error.status
            told = {"kind": "Status", "code": status, "message": str(error), "status": "Failure"}
            told["reason"] = error.reason
        data = told.encode() if isinstance(told, str) else json.dumps(told).encode()
        extra = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        writer.write(
            f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n{extra}"
            f"Content-Length: {len(data)}\r\n\r\n".encode()
            + data
        )
        await writer.drain()

    def _fault(self, request: Request) -> Fault | None:
        for fault in self.faults:
            if fault.verb == request.verb and fault.resource == request.resource and fault.times:
                fault.times -= 1
                return fault
        return None

    def _authorize(self, request: Request) -> None:
        if self.rules is None or request.group == "authorization.k8s.io" or not request.resource:
            return
        for rule in self.rules:
            if (
                request.group in rule["apiGroups"]
                and request.resource in rule["resources"]
                and request.verb in rule["verbs"]
                and rule.get("namespace", "") in ("", request.namespace)
            ):
                return
        where = f' in the namespace "{request.namespace}"' if request.namespace else ""
        raise Refusal(
            403,
            f'{request.resource} is forbidden: User "{self.user}" cannot {request.verb} '
            f'resource "{request.resource}" in API group "{request.group}"{where}',
        )

    # The API.

    def _do(self, request: Request, body: Spec | None) -> tuple[int, Spec | str]:
        if not request.resource:
            return 200, {"gitVersion": "v1.36.2"}
        if request.group == "authorization.k8s.io":
            assert body is not None
            asked = body["spec"]["resourceAttributes"]
            try:
                self._authorize(
                    Request(
                        asked["verb"],
                        asked["group"],
                        asked["resource"]
                        + (f"/{asked['subresource']}" if asked.get("subresource") else ""),
                        asked.get("namespace", ""),
                        "",
                    )
                )
                is_allowed = True
            except Refusal:
                is_allowed = False
            return 201, {"status": {"allowed": is_allowed}}
        key = (request.resource, request.namespace, request.name)
        if request.group == "metrics.k8s.io":
            if request.name not in self.metrics:
                raise Refusal(404, "the server could not find the requested resource")
            return 200, self.metrics[request.name]
        if request.resource == "pods/log":
            return 200, self.get("pods", request.name, request.namespace).get("log", "")
        if request.verb == "list":
            return 200, self._list(request)
        if request.verb == "create":
            assert body is not None
            return 201, self._create(request, body)
        if key not in self.objects:
            raise Refusal(404, f'{request.resource} "{request.name}" not found')
        if request.verb == "delete":
            return 200, self._delete(key, body or {})
        if request.verb == "patch":
            assert body is not None
            there = self.objects[key]
            metadata = dict(there["metadata"])
            metadata["labels"] = metadata.get("labels", {}) | body["metadata"]["labels"]
            return 200, self.put(
                request.resource, there | {"metadata": metadata}, request.namespace
            )
        return 200, self.objects[key]

    def _create(self, request: Request, body: Spec) -> Spec:
        if ("namespaces", "", request.namespace) not in self.objects:
            raise Refusal(404, f'namespaces "{request.namespace}" not found')
        name = body["metadata"]["name"]
        assert body["metadata"]["namespace"] == request.namespace
        if (request.resource, request.namespace, name) in self.objects:
            there_is = f'{request.resource} "{name}" already exists'
            raise Refusal(409, there_is, "AlreadyExists")
        if request.resource == "pods":
            wanted = body["spec"].get("runtimeClassName")
            if wanted and ("runtimeclasses", "", wanted) not in self.objects:
                raise Refusal(
                    403,
                    f'pods "{name}" is forbidden: pod rejected: RuntimeClass "{wanted}" not found',
                )
            body = body | {"status": {"phase": "Pending"}}
        made = self.put(request.resource, body, request.namespace)
        if request.resource == "pods":
            self._spawn(self.kubelet(self, made))
        return made

    def _delete(self, key: tuple[str, str, str], options: Spec) -> Spec:
        there = self.objects[key]
        if key[0] == "pods" and options.get("gracePeriodSeconds") != 0:
            if "deletionTimestamp" not in there["metadata"]:
                marked = there["metadata"] | {"deletionTimestamp": "2026-01-01T00:00:00Z"}
                there = self.put("pods", there | {"metadata": marked}, key[1])
                self._spawn(self._end(key))
            return there
        self.remove(*key)
        return {"kind": "Status", "status": "Success"}

    async def _end(self, key: tuple[str, str, str]) -> None:
        await asyncio.sleep(self.delete_seconds)
        self.remove(*key)

    def _list(self, request: Request) -> Spec:
        found = [
            each
            for (resource, namespace, _), each in sorted(self.objects.items())
            if resource == request.resource
            and namespace == request.namespace
            and _is_selected(each, request.query)
        ]
        start = int(request.query.get("continue", "0"))
        limit = int(request.query.get("limit", "100000"))
        metadata = {"resourceVersion": str(self.version)}
        if start + limit < len(found):
            metadata["continue"] = str(start + limit)
        return {"metadata": metadata, "items": found[start : start + limit]}

    async def _watch(self, writer: asyncio.StreamWriter, request: Request) -> None:
        since = int(request.query["resourceVersion"])
        if since < self.oldest:
            raise Refusal(410, f"too old resource version: {since} ({self.oldest})")
        until = time.monotonic() + float(request.query.get("timeoutSeconds", "3600"))
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")

        async def say(type: str, told: Spec) -> None:
            line = json.dumps({"type": type, "object": told}).encode() + b"\n"
            writer.write(b"%x\r\n%b\r\n" % (len(line), line))
            await writer.drain()

        while time.monotonic() < until:
            if since < self.oldest:
                return await say("ERROR", {"code": 410, "message": "too old resource version"})
            known = list(self._history)
            for version, resource, type, told in known:
                if version > since and resource == request.resource:
                    since = version
                    if _is_selected(told, request.query):
                        await asyncio.sleep(self.watch_delay)
                        await say(type, told)
            since = max(since, known[-1][0] if known else since)
            async with self._changed:
                if not self._history or self._history[-1][0] <= since:
                    with suppress(asyncio.TimeoutError):
                        await asyncio.wait_for(self._changed.wait(), 1.0)
            if writer.is_closing():
                raise ConnectionResetError
        await say("BOOKMARK", {"metadata": {"resourceVersion": str(since)}})
        writer.write(b"0\r\n\r\n")


def _parse(method: str, target: str) -> Request:
    url = urlsplit(target)
    query = dict(parse_qsl(url.query))
    parts = url.path.strip("/").split("/")
    if parts[0] not in ("api", "apis"):
        return Request("get", "", "", "", "")
    group, rest = ("", parts[2:]) if parts[0] == "api" else (parts[1], parts[3:])
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    name = rest[1] if len(rest) > 1 else ""
    resource = rest[0] + (f"/{rest[2]}" if len(rest) > 2 else "")
    verb = {"POST": "create", "DELETE": "delete", "PATCH": "patch", "PUT": "update"}.get(method)
    if verb is None:
        verb = "get" if name else "watch" if query.get("watch") == "true" else "list"
    return Request(verb, group, resource, namespace, name, query)


def _is_selected(each: Spec, query: dict[str, str]) -> bool:
    labels = each["metadata"].get("labels") or {}
    for term in filter(None, query.get("labelSelector", "").split(",")):
        key, _, value = term.partition("=")
        if labels.get(key, None if value else "") != value:
            return False
    for term in filter(None, query.get("fieldSelector", "").split(",")):
        path, _, value = term.partition("=")
        found: Any = each
        for step in path.split("."):
            found = found.get(step, {})
        if found != value:
            return False
    return True


# Kubelets.

_addresses: Iterator[str] = (
    f"127.77.{high}.{low}" for high in range(1, 255) for low in range(1, 255)
)


async def run_pod(api: KubernetesApi, pod: Spec, *, seconds: float = 0.0) -> None:
    """Run a pod: what answers in it says that it is ready, to who has its Secret's token."""
    address, port, token = _given(api, pod)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        is_known = f"Authorization: Bearer {token}\r\n".encode() in head
        status = 200 if is_known and head.startswith(b"GET /health ") else 401
        writer.write(f"HTTP/1.0 {status} X\r\nContent-Length: 2\r\n\r\n{{}}".encode())
        writer.close()

    await asyncio.sleep(seconds)
    server = await asyncio.start_server(answer, address, port)
    await _until_deleted(api, pod, address)
    server.close()


async def run_desktop(api: KubernetesApi, pod: Spec) -> None:
    """Run a pod with a whole fake desktop in it."""
    address, port, token = _given(api, pod)
    desktop = FakeDesktop(token)
    async with serving(desktop.app, socket.create_server((address, port))):
        await _until_deleted(api, pod, address)
        desktop.hands.close()


def _given(api: KubernetesApi, pod: Spec) -> tuple[str, int, str]:
    """A new address; and the port and the token, as desktopd would be given them."""
    spec, namespace = pod["spec"], pod["metadata"]["namespace"]
    [given] = [each for each in spec["volumes"] if each["name"] == "given"]
    secret = api.get("secrets", given["secret"]["secretName"], namespace)
    config = json.loads(base64.b64decode(secret["data"]["config.json"]))
    arguments = spec["containers"][0]["args"]
    port = int(arguments[arguments.index("--listen") + 1].rpartition(":")[2])
    api.status(pod, conditions=[{"type": "PodScheduled", "status": "True"}])
    return next(_addresses), port, config["token"]


async def _until_deleted(api: KubernetesApi, pod: Spec, address: str) -> None:
    """It is Running from now on."""
    is_to_end = api.pods_run[pod["metadata"]["uid"]] = asyncio.Event()
    api.status(
        pod,
        phase="Running",
        podIP=address,
        podIPs=[{"ip": address}],
        containerStatuses=[{"name": "desktop", "state": {"running": {}}, "ready": True}],
    )
    await is_to_end.wait()


def waiting(reason: str, message: str = "") -> Kubelet:
    """A container that does not come to run."""

    async def kubelet(api: KubernetesApi, pod: Spec) -> None:
        state = {"waiting": {"reason": reason, "message": message}}
        api.status(pod, containerStatuses=[{"name": "desktop", "state": state}])

    return kubelet


def failing(**terminated: Any) -> Kubelet:
    """A container that runs for a moment and ends."""

    async def kubelet(api: KubernetesApi, pod: Spec) -> None:
        state = {"terminated": terminated}
        api.status(pod, phase="Failed", containerStatuses=[{"name": "desktop", "state": state}])

    return kubelet
