"""A desktop's proxy in a thread of its own, so that no storm in it keeps its owner from its work.

The thread begins when the desktop's listening socket has come (:mod:`workspace.proxy.joining`) and
ends with :meth:`Held.close`.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Iterable, Sequence

from workspace.egress import Egress, Secret
from workspace.errors import Unavailable
from workspace.proxy.policy import Policy
from workspace.proxy.service import Proxy
from workspace.proxy.tally import Tally

_CLOSE_SECONDS = 5.0
log = logging.getLogger(__name__)


class Held:
    """Made, and closed, on its owner's loop."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="egress", daemon=True)

    @property
    def tally(self) -> Tally:
        return self._proxy.tally

    @property
    def policy(self) -> Policy:
        return self._proxy.policy

    def start(self, listener: socket.socket) -> None:
        """Serve it; the socket is the proxy's from here on."""
        self._thread.start()
        self._loop.call_soon_threadsafe(self._proxy.start, listener)

    def serve_only(self, clients: Iterable[str]) -> None:
        """From now on only those addresses' connections are served."""
        self._proxy.clients = frozenset(clients)

    async def change(
        self, *, egress: Egress | None = None, secrets: Sequence[Secret] | None = None
    ) -> None:
        """Other rules, other secrets; in force when this returns.

        Raises:
            Unavailable: the thread does not answer; they may come into force yet.
        """
        policy = self._proxy.policy
        if egress is not None:
            policy = policy.with_egress(egress)
        if secrets is not None:
            policy = policy.with_secrets(secrets)

        async def change() -> None:
            self._proxy.change(policy)

        if not self._thread.is_alive():  # it serves nobody yet
            return self._proxy.change(policy)
        changing = asyncio.run_coroutine_threadsafe(change(), self._loop)
        try:
            await asyncio.wait_for(asyncio.wrap_future(changing), _CLOSE_SECONDS)
        except asyncio.TimeoutError as error:
            raise Unavailable("The desktop's proxy does not answer.") from error

    async def close(self) -> None:
        """End it and its thread. Again is success."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            await asyncio.to_thread(self._thread.join, 2 * _CLOSE_SECONDS)
        if self._thread.is_alive():
            log.error("a desktop's proxy does not end")
        elif not self._loop.is_closed():
            self._loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            closing = asyncio.wait_for(self._proxy.close(), _CLOSE_SECONDS)
            self._loop.run_until_complete(closing)
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
        except Exception:
            log.exception("a desktop's proxy failed")
