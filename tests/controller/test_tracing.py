"""Traces, as a real OTLP receiver gets them: one call over MCP is one trace down to the desktop."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from opentelemetry.sdk.trace import TracerProvider
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agent_bridge.server import Bridge
from controller import tracing
from controller.app import create_app
from controller.settings import Settings
from tests.agent_bridge.conftest import connected
from tests.controller.conftest import BEARER, KEY, URL, LocalCluster, claim, serving
from tests.serving import listening, listening_in_thread
from workspace.client import Carrel

pytestmark = pytest.mark.anyio
SECRET = "xyzzy-4711"
ACTIONS = "POST /v1/workspaces/{workspace_id}/actions"


class Receiver:
    """Takes what is exported, as a collector does."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.bodies: list[bytes] = []
        self.resource: dict[str, str] = {}
        self.is_down = False
        self.app = Starlette(routes=[Route("/v1/traces", self._take, methods=["POST"])])

    async def _take(self, request: Request) -> Response:
        if self.is_down:
            await asyncio.sleep(60)
        assert request.headers["content-type"] == "application/x-protobuf"
        self.bodies.append(await request.body())
        message = ExportTraceServiceRequest.FromString(self.bodies[-1])
        for each in message.resource_spans:
            self.resource = {a.key: a.value.string_value for a in each.resource.attributes}
            self.spans += [span for scope in each.scope_spans for span in scope.spans]
        told = ExportTraceServiceResponse().SerializeToString()
        return Response(told, media_type="application/x-protobuf")


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    """A receiver, and this process's spans sent there: that can be set once."""
    found = Receiver()
    with listening_in_thread(found.app) as (port, _):
        with tracing.exporting(f"http://127.0.0.1:{port}", instance="one"):
            yield found


async def exported(receiver: Receiver) -> dict[str, list[Span]]:
    provider = trace.get_tracer_provider()
    assert isinstance(provider, TracerProvider)
    assert await asyncio.to_thread(provider.force_flush, 10_000)
    found: dict[str, list[Span]] = {}
    for span in receiver.spans:
        found.setdefault(span.name, []).append(span)
    return found


@asynccontextmanager
async def service(settings: Settings, cluster: LocalCluster) -> AsyncIterator[FastAPI]:
    """The controller with the bridge over it, in one process as `carrel up` has them."""
    made: list[FastAPI] = []
    bridge = Bridge(
        lambda key: Carrel(URL, key, transport=httpx.ASGITransport(made[0])),
        public_url=URL,
        allowed_hosts=["127.0.0.1:*"],
        allowed_origins=["http://127.0.0.1:*"],
    )
    traced = settings.model_copy(update={"otlp_endpoint": "http://127.0.0.1:1"})
    made.append(create_app(traced, cluster, bridge=bridge))
    async with serving(made[0]):
        yield made[0]


def attributes(span: Span) -> dict[str, object]:
    return {
        each.key: getattr(each.value, each.value.WhichOneof("value") or "string_value")
        for each in span.attributes
    }


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_one_call_over_mcp_is_one_trace_down_to_the_desktop(
    receiver: Receiver, settings: Settings, cluster: LocalCluster, mode: str
) -> None:
    receiver.spans.clear()
    async with service(settings, cluster) as app, listening(app) as port:
        async with connected(port, key=KEY, mode=mode) as mcp, serving_client(app) as http:
            made = await claim(http)
            typing = {"desktop_id": made["id"], "action": "type", "text": SECRET}
            result = await mcp.call_tool("computer", typing)
            assert not result.is_error
            assert (await mcp.call_tool("x" * 5000, {})).is_error
    found = await exported(receiver)
    chain = [
        found["MCP send tools/call computer"][-1],
        found["tools/call computer"][-1],
        found[ACTIONS][-1],
        found["POST /actions"][-1],
        found["desktopd /actions"][-1],
    ]
    assert len({span.trace_id for span in chain}) == 1
    for parent, child in pairwise(chain):
        assert child.parent_span_id == parent.span_id, (parent.name, child.name)
        assert parent.start_time_unix_nano <= child.start_time_unix_nano
        assert child.end_time_unix_nano <= parent.end_time_unix_nano
    kinds = [span.kind for span in chain[1:]]
    server, caller = Span.SPAN_KIND_SERVER, Span.SPAN_KIND_CLIENT
    assert kinds == [server, server, caller, server]
    tool, request, call, _ = map(attributes, chain[1:])
    assert tool["gen_ai.tool.name"] == "computer"
    assert tool["carrel.workspace.id"] == made["id"]
    assert request["http.route"] == "/v1/workspaces/{workspace_id}/actions"
    assert request["http.response.status_code"] == 200
    assert request["carrel.workspace.id"] == call["carrel.workspace.id"] == made["id"]
    assert "type" in str(request["carrel.action.types"])
    assert receiver.resource["service.name"] == "carrel"
    assert receiver.resource["service.instance.id"] == "one"
    assert max(len(name) for name in found if name.startswith("tools/call")) == tracing.MAX_TEXT
    sent = b"".join(receiver.bodies)
    assert SECRET.encode() not in sent
    assert KEY.encode() not in sent


@asynccontextmanager
async def serving_client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url=URL, headers=BEARER, timeout=20
    ) as http:
        yield http


async def test_a_request_goes_on_with_its_callers_trace_and_an_error_is_one(
    receiver: Receiver, settings: Settings, cluster: LocalCluster
) -> None:
    receiver.spans.clear()
    theirs = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"
    async with service(settings, cluster) as app, serving_client(app) as http:
        made = await claim(http)
        answer = await http.post(
            f"/v1/workspaces/{made['id']}/actions",
            json={"type": "click", "x": 5000, "y": 1},
            headers={"traceparent": theirs},
        )
        assert answer.status_code == 422
        assert answer.headers["x-request-id"] == "ab" * 16
        for nonsense in ("00-zz", "ff" + theirs[2:], theirs.replace("ab", "00")):
            await http.get("/v1/whoami", headers={"traceparent": nonsense})
        await http.get("/metrics")
    found = await exported(receiver)
    (acted,) = found[ACTIONS]
    assert (acted.trace_id.hex(), acted.parent_span_id.hex()) == ("ab" * 16, "cd" * 8)
    assert attributes(acted)["error.type"] == "off_screen"
    assert acted.status.code == Status.STATUS_CODE_UNSET  # the caller's fault
    (called,) = found["POST /actions"]
    assert called.parent_span_id == acted.span_id
    assert called.status.code == Status.STATUS_CODE_ERROR
    own = found["GET /v1/whoami"]
    assert len(own) == 3
    assert all(span.parent_span_id == b"" for span in own)
    assert not [name for name in found if "metrics" in name]


async def test_a_claim_has_what_brings_its_desktop_up_and_nothing_later(
    receiver: Receiver, settings: Settings, cluster: LocalCluster
) -> None:
    receiver.spans.clear()
    async with service(settings, cluster) as app, serving_client(app) as http:
        made = await claim(http, setup=["true"])
        await http.delete(f"/v1/workspaces/{made['id']}")
    found = await exported(receiver)
    (claimed,) = found["POST /v1/workspaces"]
    (set_up,) = found["POST /processes"]
    assert set_up.parent_span_id == claimed.span_id
    assert attributes(claimed)["carrel.workspace.id"] == made["id"]


async def test_a_receiver_that_hangs_slows_and_fails_nothing(
    receiver: Receiver, settings: Settings, cluster: LocalCluster
) -> None:
    async with service(settings, cluster) as app, serving_client(app) as http:
        base = f"/v1/workspaces/{(await claim(http))['id']}"

        async def slowest() -> float:
            times = []
            for _ in range(30):
                began = time.perf_counter()
                acted = await http.post(f"{base}/actions", json={"type": "move", "x": 1, "y": 1})
                assert acted.status_code == 200
                times.append(time.perf_counter() - began)
            return sorted(times)[len(times) // 2]

        receiver.is_down = True
        try:
            assert await slowest() < 0.5
        finally:
            receiver.is_down = False


def test_the_end_waits_for_no_receiver(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hanging:  # it takes and never answers
        script = tmp_path / "end.py"
        script.write_text(
            "import time\n"
            "from opentelemetry import trace\n"
            "from controller.tracing import exporting\n"
            f"with exporting('http://127.0.0.1:{hanging.getsockname()[1]}'):\n"
            "    trace.get_tracer('x').start_span('x').end()\n"
            "    began = time.monotonic()\n"
            "print(time.monotonic() - began)\n"
        )
        done = subprocess.run(
            [sys.executable, str(script)], capture_output=True, text=True, timeout=30, check=False
        )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < tracing.CLOSE_SECONDS + 1
