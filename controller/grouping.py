"""Work that is cheaper together: what waits when the one task comes round is done in one go.

A busy controller so pays for a commit once, and a quiet one waits for nobody. Each caller gets its
own result; if the work fails, all of its group get the same error.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

import anyio

from workspace.errors import CarrelError, Internal, Unavailable

T = TypeVar("T")
R = TypeVar("R")
_log = logging.getLogger(__name__)


class Grouped(Generic[T, R]):
    """Does things in groups, one group at a time; ``run`` it as long as they come."""

    def __init__(
        self,
        work: Callable[[Sequence[T]], Awaitable[Sequence[R]]],
        *,
        what: str,
        group: int = 500,
        waiting: int = 10_000,
        turns: int = 0,
    ) -> None:
        """``turns`` of the event loop are waited before each group, for those who are on their way:
        who just got a result and asks again comes into the next group, not the one after it.
        """
        self._work = work
        self._what = what
        self._group = group
        self._most = waiting
        self._turns = turns
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._wake = asyncio.Event()
        self._is_open = False

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Work for as long as the block runs, and do what is left at its end."""
        self._is_open = True
        worker = asyncio.create_task(self._run(), name=self._what)
        try:
            yield
        finally:
            self._is_open = False
            self._wake.set()
            with anyio.CancelScope(shield=True):  # each group is bounded by the database's timeout
                await worker

    async def do(self, item: T) -> R:
        """Its result, once its group is done. It is done too if the caller goes away meanwhile.

        Raises:
            Unavailable: too many wait, or it has been closed.
            CarrelError: what its group failed of.
        """
        if not self._is_open or len(self._waiting) >= self._most:
            raise Unavailable(f"{self._what} takes no more now.", hint="Try again in a moment.")
        done: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, done))
        self._wake.set()
        return await done

    async def _run(self) -> None:
        while self._is_open or self._waiting:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                for _ in range(self._turns):
                    await asyncio.sleep(0)
                group, self._waiting = self._waiting[: self._group], self._waiting[self._group :]
                await self._do(group)

    async def _do(self, group: Sequence[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            results = await self._work([item for item, _ in group])
        except Exception as error:  # its callers are told, and the next group comes
            failure = error if isinstance(error, CarrelError) else _defect(self._what, error)
            for _, done in group:
                if not done.done():
                    done.set_exception(failure)
            return
        for (_, done), result in zip(group, results, strict=True):
            if not done.done():  # its caller went away
                done.set_result(result)


def _defect(what: str, error: Exception) -> CarrelError:
    _log.error("%s failed", what, exc_info=error)
    return Internal(f"{what} failed: {type(error).__name__}.")
