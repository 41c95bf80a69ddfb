"""Asking Ray, and what runs in it: never without an end, and never with the process at stake.

When Ray itself does not answer, whatever is asked raises :class:`~workspace.errors.Unavailable` and
the process lives on: Ray's blocking calls run in threads of their own, the head is looked at (a
plain connect) before each, and ``ray.nodes()`` and its like are not used, because they abort the
whole process when the head has been restarted. Nothing is asked twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from ray_cluster.connection import is_served
from workspace.errors import CarrelError, DesktopLost, TimedOut, Unavailable, from_wire

Wire = dict[str, Any]  # Any: JSON values
RAY_SECONDS = 10.0  # one question to Ray or to an actor

T = TypeVar("T")


class Asking:
    """The Ray at an address, that this process has joined."""

    def __init__(self, address: str) -> None:
        import ray

        self._ray = ray
        self._address = address

    async def ask(self, answer: Any, *, seconds: float = RAY_SECONDS) -> Wire:
        """What an actor answers (``answer``: Ray's reference); an error it tells of is raised.

        Raises:
            DesktopLost: the actor died, or may have: see :meth:`may_live`.
            TimedOut: it did not answer.
        """
        exceptions = self._ray.exceptions
        try:
            said: Wire = await asyncio.wait_for(answer, max(0.0, seconds))
        except asyncio.CancelledError:
            self._ray.cancel(answer)  # else it holds up the actor's end
            raise
        except exceptions.ActorUnavailableError as error:
            await self.call(lambda: None)  # the head's absence is the better explanation
            raise DesktopLost("The desktop's actor cannot be reached.") from error
        except exceptions.RayActorError as error:
            await self.call(lambda: None)
            raise DesktopLost(_said(error)) from error
        except asyncio.TimeoutError as error:
            await self.call(lambda: None)
            raise TimedOut(f"The desktop's actor did not answer in {seconds:.0f} s.") from error
        except exceptions.ActorUnschedulableError as error:  # its node died before Ray placed it
            raise DesktopLost(f"The actor never ran: {_said(error)}") from error
        except exceptions.RayError as error:
            raise Unavailable(f"Ray failed: {_said(error)}") from error
        if isinstance(said.get("error"), dict):
            raise from_wire(said["error"], status=500)
        return said

    def may_live(self, error: DesktopLost) -> bool:
        """Whether the actor could only not be reached: it may live, and have done as asked."""
        return isinstance(error.__cause__, self._ray.exceptions.ActorUnavailableError)

    async def call(self, function: Callable[[], T]) -> T:
        """One of Ray's blocking calls, in a thread that may be left behind when Ray hangs."""
        loop = asyncio.get_running_loop()
        result: asyncio.Future[T] = loop.create_future()

        def settle(value: T | None, error: BaseException | None) -> None:
            if result.done():
                return
            if error is not None:
                result.set_exception(error)
            else:
                result.set_result(value)  # type: ignore[arg-type]  # T may be None itself

        def run() -> None:
            value, error = None, None
            try:
                look_at_head(self._address)
                value = function()
            except CarrelError as failure:
                error = failure
            except Exception as failure:
                # Ray raises what it likes here: RpcError, ValueError, its own, all without a base.
                error = Unavailable(f"Ray failed: {_said(failure)}")
                error.__cause__ = failure
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(settle, value, error)

        threading.Thread(target=run, name="ray-call", daemon=True).start()
        try:
            return await asyncio.wait_for(result, RAY_SECONDS)
        except asyncio.TimeoutError as error:
            raise Unavailable(f"Ray did not answer within {RAY_SECONDS:.0f} seconds.") from error


def look_at_head(address: str) -> None:
    """Raises Unavailable when nothing listens at Ray's head, before Ray waits for it for long."""
    if not is_served(address):
        raise Unavailable(
            f"Ray does not answer at {address}.",
            hint="Try again in a moment: the controller joins the next one as soon as it is there.",
        )


def _said(error: BaseException) -> str:
    """Ray's explanation, without the indented lines of ids."""
    lines = [line for line in str(error).splitlines() if line and not line.startswith(("\t", " "))]
    return f"{type(error).__name__}: {' '.join(lines)}"[:500]
