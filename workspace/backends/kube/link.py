"""An actor's connection to its node's agent (:mod:`workspace.backends.kube.agent`).

The first to need it starts the agent. When the connection breaks, because the agent was killed or
is being replaced, it is made anew, what is being asked is asked again, and what is followed is
followed again: a pod that ended in between is noticed.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import sys
import time
from itertools import count
from pathlib import Path
from typing import Any

from workspace.backends import manifests
from workspace.backends.kube import rights
from workspace.backends.kube.agent import MAX_LINE_BYTES, Given
from workspace.backends.kube.faults import Answer
from workspace.backends.kube.options import Options, Place
from workspace.errors import BY_CODE, BackendUnavailable, CarrelError
from workspace.folders import private_folder

Wire = dict[str, Any]  # Any: JSON values

START_SECONDS = 20.0
ASK_SECONDS = 25.0  # that the agent asks again for, while the API is away
GRACE_SECONDS = 30.0  # beyond that, for the agent itself
_PAUSE_SECONDS = 0.1
_AGAIN_SECONDS = 2.0  # between looks at a pod of which nothing can be learned
_MAX_SOCKET_PATH = 107
log = logging.getLogger(__name__)


class Followed:
    """A pod, as it was last told of."""

    def __init__(self) -> None:
        self.pod: Wire | None = None
        self.is_gone = False
        self.changed = asyncio.Event()

    def put(self, pod: Wire | None) -> None:
        """The pod as it is now; None: it was deleted, and none of that name comes again."""
        self.pod = pod if pod is not None else self.pod
        self.is_gone = self.is_gone or pod is None
        self.changed.set()

    def look(self, before: Wire | None, answer: Answer) -> None:
        """The answer to a GET that was asked when ``before`` was known; what was told since then is
        newer.
        """
        if self.pod is not before:
            return
        if answer.status == 200:
            self.put(answer.body)
        elif answer.status == 404 and before is not None:
            self.put(None)

    async def change(self, seconds: float | None = None) -> None:
        """Until something is told after ``changed`` was cleared, or so long."""
        await _done(asyncio.ensure_future(self.changed.wait()), seconds)


async def _done(waited: asyncio.Future[Any], seconds: float | None) -> bool:  # Any: not used
    """Whether it came in time. Unlike ``wait_for`` (before Python 3.12) it never loses a
    cancellation that comes together with what is waited for.
    """
    try:
        await asyncio.wait([waited], timeout=seconds)
        return waited.done()
    finally:
        waited.cancel()


class Link:
    """Made on the loop that it is used on; closed by :meth:`aclose`."""

    def __init__(
        self,
        run_dir: Path,
        options: Options,
        place: Place,
        cluster: str,
        *,
        idle_seconds: float | None = None,
        orphan_seconds: float | None = None,
    ) -> None:
        self._run_dir = run_dir
        self._namespace = options.namespace
        wanted = [options.kubeconfig, options.namespace, cluster, place.node]
        digest = hashlib.sha256(json.dumps(wanted).encode()).hexdigest()[:10]
        self._socket = str(run_dir / f"kube-{digest}.sock")
        times = {"idle_seconds": idle_seconds, "orphan_seconds": orphan_seconds}
        self._given = Given(
            socket=self._socket,
            kubeconfig=options.kubeconfig,
            namespace=options.namespace,
            cluster=cluster,
            node=place.node,
            **{name: value for name, value in times.items() if value is not None},
        )
        self._numbers = count(1)
        self._waiting: dict[int, asyncio.Future[Wire]] = {}
        self._followed: dict[str, Followed] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._looking: set[asyncio.Task[None]] = set()
        self._opening = asyncio.Lock()
        self._is_closed = False

    async def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        query: dict[str, str] | None = None,
        seconds: float | None = None,
    ) -> Answer:
        """What the API answers, whatever that is; asked again for ``seconds``, else ASK_SECONDS.

        Raises:
            BackendUnavailable: it cannot be reached.
        """
        seconds = ASK_SECONDS if seconds is None else seconds
        told = await self._say({"ask": [method, path, body, query, seconds]}, seconds)
        return Answer(told["status"], told["body"])

    async def list(self, path: str, query: dict[str, str]) -> Answer:
        """Every item of a list. Raises like :meth:`ask`."""
        told = await self._say({"list": [path, query, ASK_SECONDS]}, ASK_SECONDS)
        return Answer(told["status"], told["body"])

    async def text(self, path: str, query: dict[str, str]) -> str:
        """What is no JSON; empty if it cannot be had. Raises like :meth:`ask`."""
        return str((await self._say({"text": [path, query]}, ASK_SECONDS))["text"])

    async def follow(self, sandbox: str) -> Followed:
        """A pod, told of from now on: it is this process' own, and is deleted when this dies."""
        followed = self._followed.setdefault(sandbox, Followed())
        told = await self._say({"follow": sandbox}, ASK_SECONDS)
        if told["pod"] is not None:
            followed.put(told["pod"])
        return followed

    async def leave(self, sandbox: str) -> None:
        """No longer: it is deleted, or somebody else's."""
        followed = self._followed.pop(sandbox, None)
        if followed is not None:
            followed.changed.set()
            with contextlib.suppress(CarrelError):
                await self._say({"leave": sandbox}, 1.0)

    async def aclose(self) -> None:
        self._is_closed = True
        tasks = [*self._looking, *([self._reading] if self._reading is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._drop()

    async def _say(self, what: Wire, seconds: float) -> Wire:
        """Ask the agent, and again if it dies meanwhile."""
        until = time.monotonic() + seconds + GRACE_SECONDS
        while True:
            number = next(self._numbers)
            answer = asyncio.get_running_loop().create_future()
            self._waiting[number] = answer
            try:
                await self._open()
                assert self._writer is not None, "it is open"
                self._writer.write(json.dumps({"n": number} | what).encode() + b"\n")
                if not await _done(answer, max(0.1, until - time.monotonic())):
                    raise BackendUnavailable("The node's agent for Kubernetes hangs.")
                told: Wire = answer.result()
            except ConnectionError:
                if self._is_closed or time.monotonic() > until:
                    raise BackendUnavailable("The node's agent for Kubernetes dies.") from None
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            finally:
                self._waiting.pop(number, None)
            if "error" in told:
                error = told["error"]
                kind = BY_CODE.get(error["code"], BackendUnavailable)
                raise kind(error["message"], hint=error["hint"])
            return told

    async def _open(self) -> None:
        """A connection, with an agent at its other end."""
        async with self._opening:
            if self._writer is not None and not self._writer.is_closing():
                return
            until = time.monotonic() + START_SECONDS
            why = ""
            while time.monotonic() < until:
                with contextlib.suppress(OSError):
                    reader, writer = await asyncio.open_unix_connection(
                        self._socket, limit=MAX_LINE_BYTES
                    )
                    self._writer = writer
                    self._reading = asyncio.ensure_future(self._read(reader, writer))
                    return
                why = await self._start()
                await asyncio.sleep(_PAUSE_SECONDS)
            raise BackendUnavailable(f"The node's agent for Kubernetes does not start: {why}")

    async def _start(self) -> str:
        """Have an agent run; what it said if it does not."""
        if len(self._socket.encode()) > _MAX_SOCKET_PATH:
            raise BackendUnavailable(
                f"The path {self._socket} is too long for a unix socket.",
                hint="Choose a shorter folder for sockets (CARREL_RUN_DIR).",
            )
        await asyncio.to_thread(private_folder, self._run_dir)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            Given.__module__,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
        )
        try:
            given = self._given.model_dump_json().encode()
            await asyncio.wait_for(process.communicate(given), START_SECONDS)
        except asyncio.TimeoutError:
            process.kill()
            await process.wait()
        return "" if process.returncode == 0 else f"exit code {process.returncode}"

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                told: Wire = json.loads(line)
                if "look" in told:
                    self._look_at(told["look"], is_followed=True)
                elif (number := told.get("n")) is None:
                    if (followed := self._followed.get(told["sandbox"])) is not None:
                        followed.put(told["pod"])
                elif (answer := self._waiting.get(number)) is not None and not answer.done():
                    answer.set_result(told)
        except (OSError, ValueError) as error:
            log.warning("the node's agent for Kubernetes: %s", error)
        finally:
            if self._writer is writer:
                self._drop()
        for sandbox in self._followed:
            self._look_at(sandbox, is_followed=False)

    def _drop(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()
            self._writer = None
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(ConnectionResetError())

    def _look_at(self, sandbox: str, *, is_followed: bool) -> None:
        task = asyncio.ensure_future(self._looked_at(sandbox, is_followed=is_followed))
        self._looking.add(task)
        task.add_done_callback(self._looking.discard)

    async def _looked_at(self, sandbox: str, *, is_followed: bool) -> None:
        """After the agent died, hold what is held; and see whether it has ended meanwhile, until
        that is known.
        """
        path = rights.path("", "pods", namespace=self._namespace, name=manifests.name_of(sandbox))
        while (followed := self._followed.get(sandbox)) is not None and not self._is_closed:
            before = followed.pod
            try:
                if not is_followed:
                    await self._say({"follow": sandbox}, ASK_SECONDS)
                is_followed = True
                followed.look(before, await self.ask("GET", path))
                return
            except (CarrelError, OSError) as error:
                log.error("desktop %s is not followed: %s", sandbox, error)
                await asyncio.sleep(_AGAIN_SECONDS)
