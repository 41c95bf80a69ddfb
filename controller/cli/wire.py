"""A WebSocket to the controller, with this caller's key, and errors as the tree."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from workspace import errors, settings

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

OPEN_SECONDS = 15.0
MAX_MESSAGE_BYTES = 16 << 20


@asynccontextmanager
async def websocket(path: str) -> AsyncIterator[ClientConnection]:
    """An open WebSocket at ``path``.

    Raises:
        CarrelError: what the controller answered, by its code.
        Unavailable: no controller answers.
        DesktopLost: the connection broke while it was being opened.
    """
    from websockets.asyncio.client import connect
    from websockets.exceptions import InvalidHandshake, InvalidStatus

    url = settings.controller_url().rstrip("/")
    opening = connect(
        "ws" + url.removeprefix("http") + path,
        additional_headers={"Authorization": f"Bearer {settings.api_key() or ''}"},
        open_timeout=OPEN_SECONDS,
        close_timeout=2,
        max_size=MAX_MESSAGE_BYTES,
        compression=None,
        proxy=None,
    )
    try:
        socket = await opening
    except InvalidStatus as error:
        answer = error.response
        raise errors.from_body(answer.body, status=answer.status_code) from error
    except (ConnectionError, TimeoutError) as error:
        raise errors.Unavailable(
            f"No controller answers at {url}.", hint="Start it with `carrel up`."
        ) from error
    except (OSError, InvalidHandshake) as error:
        raise errors.DesktopLost(f"The connection for {path} broke: {error}.") from error
    try:
        yield socket
    finally:
        await socket.close()
