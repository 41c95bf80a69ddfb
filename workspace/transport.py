"""The one way Carrel's clients speak HTTP: timeouts, and errors as the tree of workspace.errors.

Nothing is retried: an action's lost reply is an error that the caller sees.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any, ParamSpec, TypeVar

import anyio
import httpx
from pydantic import ValidationError

from workspace import errors

MAX_JSON_BYTES = 32 << 20
CONNECT_SECONDS = 10.0
BODY_SECONDS = 60.0  # that an answer may take to come, once it has begun

P = ParamSpec("P")
T = TypeVar("T")


def asked(make: Callable[P, T], *args: P.args, **fields: P.kwargs) -> T:
    """What ``make`` makes of the caller's own words.

    Raises:
        InvalidRequest: they are wrong; said here as the server would say it.
    """
    try:
        return make(*args, **fields)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in fault["loc"])
        told = str(fault["msg"]).removeprefix("Value error, ")
        raise errors.InvalidRequest(f"{where}: {told}" if where else told) from error


def timeout(seconds: float) -> httpx.Timeout:
    """Wait ``seconds`` for an answer."""
    return httpx.Timeout(seconds, connect=CONNECT_SECONDS, pool=CONNECT_SECONDS)


@asynccontextmanager
async def stream(
    http: httpx.AsyncClient, method: str, url: str, **options: Any
) -> AsyncIterator[httpx.Response]:  # Any: httpx's own request options
    """An answered request whose body is still to be read; an error's answer is raised.

    304 is none: who asks for what is new gets to see it.

    Raises:
        DesktopLost: the connection broke or could not be made.
        TimedOut: no answer in time.
        CarrelError: what the server answered, by its code.
        InvalidRequest: what is asked cannot be sent.
    """
    headers = {"Accept-Encoding": "identity", **options.pop("headers", {})}
    try:
        request = http.build_request(method, url, headers=headers, **options)
    except UnicodeEncodeError as error:
        raise errors.InvalidRequest("A text holds half of a pair of surrogates.") from error
    try:
        response = await http.send(request, stream=True)
        async with aclosing(response):
            if response.headers.get("content-encoding", "identity") != "identity":
                raise errors.DesktopLost(f"The answer to {method} {url} is compressed unasked.")
            if not (response.is_success or response.status_code == httpx.codes.NOT_MODIFIED):
                body = await read(response)  # what a command that timed out had written is in it
                raise errors.from_body(body, status=response.status_code)
            yield response
    except httpx.TimeoutException as error:
        raise errors.TimedOut(
            f"{method} {url} was not answered in time.", hint=errors.DesktopLost.default_hint
        ) from error
    except (httpx.TransportError, httpx.StreamError) as error:
        raise errors.DesktopLost(
            f"The connection for {method} {url} broke: {type(error).__name__} {error}".strip()
        ) from error


async def read(response: httpx.Response, limit: int = MAX_JSON_BYTES) -> bytes:
    """The whole body, at most ``limit`` bytes."""
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > limit:
            raise errors.TooLarge(f"The answer is larger than {limit} bytes.")
    return bytes(body)


async def request(
    http: httpx.AsyncClient, method: str, url: str, **options: Any
) -> bytes:  # Any: as above
    """Like :func:`stream`, with the body read."""
    return (await answer(http, method, url, **options))[1]


async def answer(
    http: httpx.AsyncClient, method: str, url: str, **options: Any
) -> tuple[httpx.Response, bytes]:  # Any: as above
    """Like :func:`stream`: the answer's head, and its body."""
    limit: httpx.Timeout = options.setdefault("timeout", http.timeout)
    seconds = None if limit.read is None else limit.read + BODY_SECONDS
    with anyio.move_on_after(seconds):
        async with stream(http, method, url, **options) as response:
            return response, await read(response)
    raise errors.TimedOut(
        f"The answer to {method} {url} did not end in time.", hint=errors.DesktopLost.default_hint
    )
