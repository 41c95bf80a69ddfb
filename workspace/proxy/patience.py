"""How long a connection is waited for on which nothing moves."""

from __future__ import annotations

import asyncio


class Watch:
    """Cancels the task that starts it once nothing has moved for too long. One timer, not one for
    each read: that would take longer than the reading.
    """

    def __init__(self) -> None:
        self.is_late = False
        self._loop = asyncio.get_running_loop()
        self._at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[object] | None = None

    def start(self, seconds: float) -> None:
        self._task = asyncio.current_task()
        self.moved(seconds)
        self._look()

    def moved(self, seconds: float) -> None:
        """Something moved; something else has to within ``seconds``."""
        at = self._loop.time() + seconds
        if at < self._at and self._timer is not None:
            self._timer.cancel()
            self._timer = self._loop.call_at(at, self._look)
        self._at = at

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        if self._loop.time() < self._at:
            self._timer = self._loop.call_at(self._at, self._look)
        elif self._task is not None:
            self.is_late = True
            self._task.cancel()
