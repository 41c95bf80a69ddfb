"""How a command reaches the controller, and runs its asynchronous part.

A command talks to ``CARREL_URL``, or to the controller of this home, wherever it serves.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from workspace.client import Carrel

T = TypeVar("T")


def run(main: Callable[[], Coroutine[object, object, T]]) -> T:
    """Run a command's asynchronous part.

    Raises:
        InvalidRequest: an argument is not what the models allow.
        CarrelError: what the controller answered.
    """
    import anyio
    import httpx
    from pydantic import ValidationError

    from workspace.errors import DesktopLost, InvalidRequest, Unavailable
    from workspace.settings import controller_url

    try:
        return anyio.run(main)
    except DesktopLost as error:
        if isinstance(error.__cause__, httpx.ConnectError):  # nothing was sent
            raise Unavailable(
                f"No controller answers at {controller_url()}.", hint="Start it with `carrel up`."
            ) from error
        raise
    except ValidationError as error:
        first = error.errors()[0]
        # Of a union of models the first part of the place is the model's own name.
        where = ".".join(str(part) for part in first["loc"][-1:] if isinstance(part, str))
        raise InvalidRequest(f"{where or 'The request'}: {first['msg']}.") from error


@asynccontextmanager
async def controller() -> AsyncIterator[Carrel]:
    """A client of the controller."""
    from workspace.client import Carrel

    async with Carrel() as carrel:
        yield carrel
