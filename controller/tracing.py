"""What OpenTelemetry is told: a span of each request, and of each call to a desktop within it.

A tool's call over MCP has a span by the MCP library; the request that it makes in this process is
its child, the call to the desktop the child of that, and what desktopd did the last: it knows no
OpenTelemetry and says by ``Server-Timing`` how long it took. Spans hold ids, routes, types of
actions and codes of errors; never a text, a key that was pressed, or a picture.

Spans are sent by a thread of their own and dropped where nobody takes them: nothing waits for it.
Without an endpoint no span is made.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING

import httpx
from opentelemetry import context, trace
from opentelemetry.trace import Span as Span
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import Scope

from workspace import desktop, logs

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import Span as SdkSpan
    from opentelemetry.sdk.trace import SpanProcessor

    from workspace.backends.base import Endpoint
    from workspace.desktop import Desktop

SEND_SECONDS = 5.0  # for what sends spans, a batch
CLOSE_SECONDS = 2.0  # for what is left at the end
MAX_TEXT = 256
_UNTRACED = ("/healthz", "/readyz", "/metrics", "/static/", "/v1/leases/")
_TIMING = re.compile(r"desktopd;dur=([0-9]{1,9}(?:\.[0-9]{1,6})?)")
_tracer = trace.get_tracer("carrel", version("carrel"))
_headers = TraceContextTextMapPropagator()
_log = logging.getLogger(__name__)


@contextmanager
def exporting(endpoint: str, *, instance: str = "") -> Iterator[None]:
    """Send spans to ``endpoint``, by OTLP over HTTP, as long as the block runs; none without one.

    Once in a process: the MCP library's spans go where OpenTelemetry's global provider says.
    """
    if not endpoint:
        yield
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import SpanLimits, SpanProcessor, TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        _log.warning("no traces are sent: install the extra 'otel' (pip install 'carrel[otel]')")
        yield
        return
    who = {"service.name": "carrel", "service.version": version("carrel")}
    who |= {"service.instance.id": instance} if instance else {}
    provider = TracerProvider(
        # What OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say comes first.
        resource=Resource.create(who).merge(OTELResourceDetector().detect()),
        span_limits=SpanLimits(max_attribute_length=MAX_TEXT),
        shutdown_on_exit=False,
    )
    exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=SEND_SECONDS)
    provider.add_span_processor(_bounding(SpanProcessor))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    # One line for each batch that is lost is enough.
    logging.getLogger("opentelemetry.exporter").setLevel(logging.ERROR)
    try:
        yield
    finally:
        # It may wait long for an endpoint that is away.
        closing = threading.Thread(target=provider.shutdown, name="last spans", daemon=True)
        closing.start()
        closing.join(CLOSE_SECONDS)


def _bounding(base: type[SpanProcessor]) -> SpanProcessor:
    """What bounds names too: the MCP library takes a tool's as it comes."""

    class Bounding(base):  # type: ignore[misc, valid-type]  # known once it is installed
        def on_start(self, span: SdkSpan, parent_context: Context | None = None) -> None:
            if len(span.name) > MAX_TEXT:
                span.update_name(span.name[:MAX_TEXT])

    return Bounding()


@contextmanager
def answering(scope: Scope, request: logs.Request) -> Iterator[Span | None]:
    """The span of a request, for as long as it is answered; None for one that has none."""
    path = scope["path"]
    if scope["type"] != "http" or path.startswith(_UNTRACED):
        yield None
        return
    parent = _parent(scope)
    if path == "/mcp":  # the MCP library makes one for each message in it
        token = context.attach(parent or context.get_current())
        try:
            yield None
        finally:
            context.detach(token)
        return
    with _tracer.start_as_current_span(
        scope["method"][:16],
        context=parent,
        kind=SpanKind.SERVER,
        attributes={"carrel.request.id": request.id},
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        yield span


def tell(span: Span, request: logs.Request, *, method: str, route: str, status: int) -> None:
    """Say what a request was, once that is known, by the conventions for HTTP."""
    span.update_name(f"{method} {route}")
    span.set_attribute("http.request.method", method)
    span.set_attribute("http.route", route)
    span.set_attribute("http.response.status_code", status)
    if request.workspace_id:
        span.set_attribute("carrel.workspace.id", request.workspace_id)
    if request.actions:
        span.set_attribute("carrel.action.types", request.actions)
    if request.error:
        span.set_attribute("error.type", request.error)
    if status >= 500:
        span.set_status(StatusCode.ERROR)


def connect(endpoint: Endpoint) -> Desktop:
    """A client straight to the daemon at ``endpoint``, whose calls are named and traced."""
    return desktop.connect(endpoint, through=_Calls)


class _Calls(httpx.AsyncBaseTransport):
    """Carries calls to a desktop, with the id of the request that each is made for."""

    def __init__(self, wire: httpx.AsyncBaseTransport) -> None:
        self._wire = wire

    async def aclose(self) -> None:
        await self._wire.aclose()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        current = logs.current()
        if current is None:
            return await self._wire.handle_async_request(request)
        request.headers["X-Request-Id"] = current.id
        if not trace.get_current_span().is_recording():
            return await self._wire.handle_async_request(request)
        what = f"/{request.url.path.split('/')[1][:40]}"
        with _tracer.start_as_current_span(
            f"{request.method} {what}",
            kind=SpanKind.CLIENT,
            attributes={
                "http.request.method": request.method,
                "url.template": what,
                "carrel.workspace.id": current.workspace_id,
            },
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            _headers.inject(request.headers)
            began = time.time_ns()
            try:
                response = await self._wire.handle_async_request(request)
            except BaseException as error:
                span.set_attribute("error.type", type(error).__name__)
                span.set_status(StatusCode.ERROR)
                raise
            _tell_answer(span, what, response, began)
            return response


def _tell_answer(span: Span, what: str, response: httpx.Response, began: int) -> None:
    span.set_attribute("http.response.status_code", response.status_code)
    if response.status_code >= 400:
        span.set_attribute("error.type", str(response.status_code))
        span.set_status(StatusCode.ERROR)
    timing = _TIMING.fullmatch(response.headers.get("server-timing", ""))
    if timing is None:
        return
    # When it began by its own clock is nobody's business: it lies in the middle of the call.
    over = time.time_ns()
    took = min(int(float(timing[1]) * 1e6), over - began)
    start = began + (over - began - took) // 2
    inner = _tracer.start_span(
        f"desktopd {what}",
        context=trace.set_span_in_context(span),
        kind=SpanKind.SERVER,
        start_time=start,
        attributes={"url.template": what},
    )
    inner.end(start + took)


def _parent(scope: Scope) -> Context | None:
    """The trace that a request says it is part of; None if it says none, or nonsense."""
    carrier = {
        name.decode("ascii"): value.decode("latin-1")
        for name, value in scope["headers"]
        if name in (b"traceparent", b"tracestate")
    }
    if "traceparent" not in carrier:
        return None
    found = _headers.extract(carrier)
    return found if trace.get_current_span(found).get_span_context().is_valid else None
