"""A node's one process that talks to the Kubernetes API, for the actors of all its desktops.

``python -m workspace.backends.kube.agent`` reads its :class:`Given` from standard input, listens on
a unix socket that only its own user reaches, and answers lines of JSON (:class:`Agent`). The first
actor starts it (:mod:`workspace.backends.kube.link`); a lock sees to it that there is one. So the
client of the API is loaded once on a node and not once for each desktop, and there is one watch.

It is also what a supervisor is to a sandbox of this machine: who follows a desktop holds it, and
when that connection breaks off and nobody follows it again for some seconds, its actor is dead and
the pod is deleted. If the agent itself dies, actors start another and follow their desktops again;
what nobody follows then is the reaper's. It ends when nobody has been connected for a while.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import random
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from workspace import locks
from workspace.backends import manifests
from workspace.backends.kube import rights
from workspace.backends.kube.faults import Away, away
from workspace.errors import CarrelError, InvalidRequest

if TYPE_CHECKING:
    from workspace.backends.kube.api import Api, Event

Wire = dict[str, Any]  # Any: JSON values

MAX_LINE_BYTES = 8 << 20
MAX_CLIENTS = 4096
THREADS = 8
IDLE_SECONDS = 60.0
ORPHAN_SECONDS = 5.0  # an actor whose connection broke has so long to come again
DELETE_SECONDS = 60.0
_FIRST_PAUSE, _MOST_PAUSE = 0.2, 5.0
_SHORT_SECONDS = 1.0  # of a watch that brought nothing
log = logging.getLogger("carrel.kube")


class Given(BaseModel):
    """What an agent is started with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    socket: str
    kubeconfig: str = ""
    namespace: str
    cluster: str
    node: str = ""
    idle_seconds: float = IDLE_SECONDS
    orphan_seconds: float = ORPHAN_SECONDS


class Watched:
    """The desktops' pods of this node as the API last told of them, from one watch in a thread."""

    def __init__(
        self,
        api: Api,
        given: Given,
        tell: Callable[[str, Wire | None], None],
        listed: Callable[[], None],
    ) -> None:
        self._api = api
        self._path = rights.path("", "pods", namespace=given.namespace)
        self._query = {"labelSelector": manifests.selector(given.cluster, given.node)}
        self._tell = tell
        self._listed = listed
        self._version = ""
        self.pods: dict[str, Wire] = {}
        self.is_ending = False

    def run(self) -> None:
        """Watch, whatever comes, until ``is_ending``. In a thread of its own."""
        pause = _FIRST_PAUSE
        while not self.is_ending:
            began = time.monotonic()
            trouble: Away | None = None
            try:
                if not self._version:
                    self._list()
                for event in self._api.watch(self._path, query=self._query, version=self._version):
                    if self.is_ending or not self._take(event):
                        break
                    pause = _FIRST_PAUSE
            except Away as error:
                trouble = error
                if error.status == 410:
                    self._version = ""
            except Exception:
                log.exception("the watch of desktops' pods")
                self._version = ""
            if time.monotonic() - began > _SHORT_SECONDS:  # else it may end each one at once
                pause = _FIRST_PAUSE
            if trouble is not None:
                level = logging.WARNING if pause == _FIRST_PAUSE else logging.DEBUG
                log.log(level, "the watch of desktops' pods: %s", trouble)
            threading.Event().wait(pause * random.uniform(0.8, 1.2))
            pause = min(pause * 2, _MOST_PAUSE)

    def _list(self) -> None:
        answer = self._api.list_all(self._path, query=self._query, seconds=30)
        if answer.status != 200:
            raise Away(f"pods cannot be listed: {answer.message}", answer.status)
        there = {_sandbox(pod): pod for pod in answer.body["items"]}
        for gone in self.pods.keys() - there.keys():
            self._put(gone, None)
        for sandbox, pod in there.items():
            self._put(sandbox, pod)
        self._version = str((answer.body.get("metadata") or {}).get("resourceVersion") or "0")
        self._listed()

    def _take(self, event: Event) -> bool:
        """Whether the watch goes on; after 410 all is listed again."""
        if event.type == "ERROR":
            log.info("the watch of desktops' pods ends: %s", event.object.get("message"))
            self._version = ""
            return False
        self._version = str(event.object["metadata"]["resourceVersion"])
        if event.type != "BOOKMARK":
            self._put(_sandbox(event.object), None if event.type == "DELETED" else event.object)
        return True

    def _put(self, sandbox: str, pod: Wire | None) -> None:
        if pod is None:
            self.pods.pop(sandbox, None)
        else:
            self.pods[sandbox] = pod
        self._tell(sandbox, pod)


class Agent:
    """Serves actors. What they say is ``{"n": 1, ...}`` and is answered ``{"n": 1, ...}``:

    - ``"ask": [method, path, body, query, seconds]``: ``{"status", "body"}``, or ``{"error"}``;
    - ``"list": [path, query, seconds]``: every item of a list, likewise;
    - ``"text": [path, query]``: ``{"text"}``;
    - ``"follow": sandbox``: ``{"pod"}`` as it is known, and from then on, by itself, ``{"sandbox",
      "pod"}`` whenever it changes: null when it was deleted; or ``{"look": sandbox}`` where it came
      and went while nothing was watched, if it was there at all;
    - ``"leave": sandbox``: no longer, and it is not deleted with the connection.
    """

    def __init__(self, api: Api, given: Given) -> None:
        self._api = api
        self._given = given
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="api")
        self._watched = Watched(api, given, self._told, self._listed)
        self._clients: set[_Client] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()  # who is connected, or what is being done
        self._is_told_to_end = False

    async def run(self, listener: socket.socket) -> None:
        """Serve until nobody has been there for ``idle_seconds``, or until SIGTERM."""
        self._loop.add_signal_handler(signal.SIGTERM, self._end)
        threading.Thread(target=self._watched.run, name="watch", daemon=True).start()
        server = await asyncio.start_unix_server(self._accept, sock=listener, limit=MAX_LINE_BYTES)
        try:
            while not self._is_told_to_end:
                self._changed.clear()
                is_busy = bool(self._clients or self._tasks)
                seconds = None if is_busy else self._given.idle_seconds
                try:
                    await asyncio.wait_for(self._changed.wait(), seconds)
                except asyncio.TimeoutError:
                    break
        finally:
            self._watched.is_ending = True
            server.close()

    def _end(self) -> None:
        self._is_told_to_end = True
        self._changed.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = _Client(writer)
        if len(self._clients) >= MAX_CLIENTS:
            writer.transport.abort()
            return
        self._clients.add(client)
        self._changed.set()
        answering: set[asyncio.Task[None]] = set()
        try:
            while line := await reader.readline():
                task = asyncio.ensure_future(self._answer(client, line))
                answering.add(task)
                task.add_done_callback(answering.discard)
        except (OSError, ValueError) as error:
            log.warning("an actor said what cannot be read: %s", error)
        finally:
            for task in answering:
                task.cancel()
            self._clients.discard(client)
            writer.transport.abort()
            for sandbox in client.follows:
                self._spawn(sandbox)
            self._changed.set()

    async def _answer(self, client: _Client, line: bytes) -> None:
        said: Wire = json.loads(line)
        try:
            answer = await self._do(client, said)
        except Away as error:
            answer = {"error": away(error).to_wire()}
        except CarrelError as error:
            answer = {"error": error.to_wire()}
        except Exception as error:
            log.exception("an actor asked")
            answer = {"error": CarrelError(f"The node's agent failed: {error!r}.").to_wire()}
        client.say({"n": said.get("n")} | answer)

    async def _do(self, client: _Client, said: Wire) -> Wire:
        if "ask" in said:
            method, path, body, query, seconds = said["ask"]
            told = await self._in_thread(
                lambda: self._api.ask(method, path, body, query=query, seconds=seconds)
            )
            return {"status": told.status, "body": told.body}
        if "list" in said:
            path, query, seconds = said["list"]
            told = await self._in_thread(
                lambda: self._api.list_all(path, query=query, seconds=seconds)
            )
            return {"status": told.status, "body": told.body}
        if "text" in said:
            path, query = said["text"]
            return {"text": await self._in_thread(lambda: self._api.text(path, query=query))}
        if "follow" in said:
            client.follows.add(said["follow"])
            return {"pod": self._watched.pods.get(said["follow"])}
        if "leave" in said:
            client.follows.discard(said["leave"])
            return {}
        raise InvalidRequest("The node's agent does not know what is asked.")

    async def _in_thread(self, work: Callable[[], Any]) -> Any:  # Any: whatever it returns
        return await self._loop.run_in_executor(self._threads, work)

    def _told(self, sandbox: str, pod: Wire | None) -> None:
        """From the thread that watches."""
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._pass_on, sandbox, pod)

    def _listed(self) -> None:
        """Likewise: what was followed before, and is not among what there is."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._have_looked_for)

    def _have_looked_for(self) -> None:
        for client in self._clients:
            for sandbox in client.follows:
                if sandbox not in self._watched.pods:
                    client.say({"look": sandbox})

    def _pass_on(self, sandbox: str, pod: Wire | None) -> None:
        for client in self._clients:
            if sandbox in client.follows:
                client.say({"sandbox": sandbox, "pod": pod})

    def _spawn(self, sandbox: str) -> None:
        task = asyncio.ensure_future(self._end_orphan(sandbox))
        self._tasks.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._changed.set()

    async def _end_orphan(self, sandbox: str) -> None:
        await asyncio.sleep(self._given.orphan_seconds)
        if any(sandbox in client.follows for client in self._clients):
            return
        log.warning("desktop %s has lost its actor: it is deleted", sandbox)
        try:
            await self._in_thread(lambda: delete(self._api, self._given.namespace, sandbox))
        except Away as error:
            log.error("desktop %s is left: %s", sandbox, error)


class _Client:
    """One actor's connection."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self.follows: set[str] = set()

    def say(self, told: Wire) -> None:
        transport = self._writer.transport
        if transport.is_closing():
            return
        if transport.get_write_buffer_size() > MAX_LINE_BYTES:
            transport.abort()  # it does not read: it is stopped, or dead
            return
        self._writer.write(json.dumps(told).encode() + b"\n")


def delete(api: Api, namespace: str, sandbox: str) -> None:
    """Delete a desktop's pod, and what owns it. What is gone is success.

    Raises:
        Away.
    """
    name = manifests.name_of(sandbox)
    for group, resource in (("", "pods"), ("networking.k8s.io", "networkpolicies")):
        path = rights.path(group, resource, namespace=namespace, name=name)
        answer = api.ask("DELETE", path, manifests.DELETE_OPTIONS, seconds=DELETE_SECONDS)
        if answer.status not in (200, 202, 404):
            log.error("%s of desktop %s is left: %s", resource, sandbox, answer.message)


def _sandbox(pod: Wire) -> str:
    return str(pod["metadata"]["labels"].get(manifests.SANDBOX, ""))


def main() -> int:
    """Become a process of nobody's that serves; 0 at once where there is one already."""
    given = Given.model_validate_json(sys.stdin.buffer.read(1 << 20))
    lock = locks.take(f"{given.socket}.lock")
    if lock is None:
        return 0
    with contextlib.suppress(FileNotFoundError):
        os.unlink(given.socket)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(given.socket)
    os.chmod(given.socket, 0o600)
    listener.listen(256)
    if os.fork():  # who started it goes on: it can be connected to
        os._exit(0)
    os.setsid()
    with open(os.devnull, "r+b") as nothing:
        os.dup2(nothing.fileno(), 0)
        os.dup2(nothing.fileno(), 1)
    os.chdir("/")
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    try:
        asyncio.run(_serve(given, listener))
    except Exception:
        log.exception("the node's agent failed")
    finally:
        for path in (given.socket, f"{given.socket}.lock"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
    return 0


async def _serve(given: Given, listener: socket.socket) -> None:
    from workspace.backends.kube.api import Api  # after the fork: it takes a while

    await Agent(await asyncio.to_thread(Api, given.kubeconfig), given).run(listener)


if __name__ == "__main__":
    sys.exit(main())
