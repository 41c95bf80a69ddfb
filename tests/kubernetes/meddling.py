"""What stands before the real API and is broken in ways that the real one cannot be told to be.

All that is asked goes through to the real API and back, but for the faults that a test sets: a
status in place of an answer, before or after it was done; a watch whose lines come late.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.serving import listening_in_thread

_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
_DROPPED = {"host", "connection", "content-length", "transfer-encoding", "accept-encoding"}


@dataclass
class Fault:
    """Of requests by ``method`` whose path contains ``part``, so many ``times``."""

    method: str
    part: str
    status: int
    times: int = 1
    does: bool = False  # the real API does it first: a lost reply
    reason: str = ""
    message: str = "injected"
    headers: dict[str, str] = field(default_factory=dict)
    happened: int = 0


class Meddling:
    """``url`` is where it answers."""

    def __init__(self, real: str, authority: Path) -> None:
        self._real = real
        self._context = ssl.create_default_context(cafile=str(authority))
        self._client: httpx.AsyncClient | None = None
        self.faults: list[Fault] = []
        self.watch_delay = 0.0  # of each line, in seconds
        self.asked: list[tuple[str, str]] = []
        self.url = ""
        self.app = Starlette(routes=[Route("/{path:path}", self._pass, methods=_METHODS)])

    def fail(self, method: str, part: str, status: int, **how: object) -> Fault:
        fault = Fault(method, part, status, **how)  # type: ignore[arg-type]
        self.faults.append(fault)
        return fault

    async def _pass(self, request: Request) -> Response:
        path, method = request.url.path, request.method
        self.asked.append((method, path))
        fault = next(
            (
                each
                for each in self.faults
                if each.times and each.method == method and each.part in path
            ),
            None,
        )
        if fault is not None:
            fault.times -= 1
            fault.happened += 1
            if not fault.does:
                return _refused(fault)
        headers = {name: value for name, value in request.headers.items() if name not in _DROPPED}
        if self._client is None:
            self._client = httpx.AsyncClient(verify=self._context, trust_env=False, timeout=None)
        asked = self._client.build_request(
            method,
            httpx.URL(self._real).copy_with(path=path, query=request.url.query.encode()),
            headers=headers,
            content=await request.body(),
        )
        answer = await self._client.send(asked, stream=True)
        given = {"content-type": answer.headers.get("content-type", "application/json")}
        if "watch=true" in request.url.query and answer.status_code == 200:
            return StreamingResponse(self._late(answer), 200, given)
        body = await answer.aread()
        await answer.aclose()
        return _refused(fault) if fault is not None else Response(body, answer.status_code, given)

    async def _late(self, answer: httpx.Response) -> AsyncIterator[bytes]:
        try:
            async for line in answer.aiter_lines():
                await asyncio.sleep(self.watch_delay)
                yield line.encode() + b"\n"
        finally:
            await answer.aclose()

    async def aclose(self) -> None:
        if self._client is not None:
            await self._client.aclose()


def _refused(fault: Fault) -> Response:
    status = {
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": fault.status,
        "reason": fault.reason, "message": fault.message,
    }  # fmt: skip
    return JSONResponse(status, fault.status, fault.headers)


@contextmanager
def meddling(real: str, authority: Path) -> Iterator[Meddling]:
    made = Meddling(real, authority)
    with listening_in_thread(made.app) as (port, portal):
        made.url = f"http://127.0.0.1:{port}"
        try:
            yield made
        finally:
            portal.call(made.aclose)
