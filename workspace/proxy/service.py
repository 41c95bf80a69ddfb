"""One desktop's proxy: accepts, finds out what is asked for, judges it, and connects.

Whatever a client says or leaves unsaid ends within a time and costs a bounded number of bytes. A
refusal is an answer with its reason where the protocol has one. Each connection that ended and each
refusal is noted in the :class:`~workspace.proxy.tally.Tally`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
from collections.abc import Callable

import h11

from workspace.egress import address_of, normal_host
from workspace.proxy import socks
from workspace.proxy.certificates import Authority, NoCertificate
from workspace.proxy.flows import Flow
from workspace.proxy.peeking import head, leave, peek, readable, server_name, spoken
from workspace.proxy.policy import Policy
from workspace.proxy.pump import pump
from workspace.proxy.requests import (
    HEAD_SECONDS,
    MAX_HEAD_BYTES,
    Malformed,
    Relay,
    Target,
    answer,
    authority,
)
from workspace.proxy.resolving import Failed, Refused, Resolve, Resolver
from workspace.proxy.streams import CHUNK_BYTES, Plain, Tls
from workspace.proxy.tally import Tally

CONNECT_SECONDS = 10.0
ADDRESS_SECONDS = 4.0  # one of several
IDLE_SECONDS = 1800.0  # of a tunnel on which nothing moves
_ACCEPTS = 16  # at a turn of the loop
_PAUSE_SECONDS = 0.5
_LINGER_SECONDS, _MOST_TURNED_AWAY = 0.5, 64
_TLS_HANDSHAKE = 22
_FULL = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
log = logging.getLogger(__name__)


class Proxy:
    """Serves a listening socket on the loop that it is started on.

    Args:
        resolve: names to addresses, in place of the system's.
        upstream: the TLS of servers that secrets are for; by default what the node trusts.
    """

    def __init__(
        self,
        policy: Policy,
        tally: Tally,
        authority: Authority | None = None,
        *,
        resolve: Resolve | None = None,
        upstream: Callable[[], ssl.SSLContext] = ssl.create_default_context,
    ) -> None:
        self.policy, self.tally = policy, tally
        # Whose connections are served, by address; None: whoever reaches its socket.
        self.clients: frozenset[str] | None = None
        self._authority = authority
        self._resolver = Resolver(resolve)
        self._new_upstream = upstream
        self._upstream: ssl.SSLContext | None = None
        self.flows: set[Flow] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._turned_away: list[socket.socket] = []
        self._listener: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self, listener: socket.socket) -> None:
        """Serve it from now on."""
        listener.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._loop.add_reader(listener, self._accept)

    async def close(self) -> None:
        """End everything."""
        if self._listener is not None and self._loop is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        for task in self._tasks:
            task.cancel()
        while self._tasks:
            await asyncio.wait(set(self._tasks), timeout=5)
        self._resolver.close()
        for sock in self._turned_away:
            sock.close()
        self._turned_away.clear()

    def change(self, policy: Policy) -> None:
        """Go by other rules; what is open and no more permitted ends."""
        is_looked_into = policy.is_list and not self.policy.is_list
        self.policy = policy
        for flow in list(self.flows):
            is_refused = policy.why_refused(*flow.target) is not None
            has_others = list(policy.secrets_for(*flow.target)) != list(flow.secrets)
            if is_refused or has_others or is_looked_into:
                flow.break_off("its rules changed")

    # What requests ask for: the Gate.

    def permit(self, target: Target) -> None:
        if (why := self.policy.why_refused(*target)) is not None:
            raise Refused(why)
        most = self.policy.limits.mib
        if most is not None and self.tally.bytes >= most << 20:
            raise Refused(f"this desktop has used up the {most} MiB of its way out")

    def note(self, target: Target | None, verdict: str, reason: str) -> None:
        host, port = target or ("", 0)
        self.tally.note(host, port, verdict, reason)

    def moved(self, up: int, down: int) -> None:
        self.tally.moved(up, down)
        most = self.policy.limits.mib
        if most is not None and self.tally.bytes >= most << 20:
            reason = f"this desktop has used up the {most} MiB of its way out"
            for flow in list(self.flows):
                flow.break_off(reason)
            raise Refused(reason)

    async def reach(self, target: Target) -> Flow:
        """
        Raises:
            Refused, Failed.
        """
        flow = await self._connect(target)
        flow.secrets = self.policy.secrets_for(*target)
        return flow

    async def _connect(self, target: Target) -> Flow:
        self.permit(target)
        addresses = await self._resolver.addresses(target.host, self.policy.private)
        loop = asyncio.get_running_loop()
        why = "it has no address"
        until = loop.time() + CONNECT_SECONDS
        for address in addresses:
            is_v6 = ":" in address
            sock = socket.socket(socket.AF_INET6 if is_v6 else socket.AF_INET)
            try:
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                left = min(ADDRESS_SECONDS, until - loop.time())
                await asyncio.wait_for(loop.sock_connect(sock, (address, target.port)), left)
                self.permit(target)  # it may have changed meanwhile
                return Flow(self, target, Plain(sock))
            except (OSError, asyncio.TimeoutError) as error:
                sock.close()
                why = getattr(error, "strerror", None) or "it does not answer"
            except BaseException:
                sock.close()
                raise
        raise Failed(f"{target.host}:{target.port} cannot be reached: {why}")

    # Clients.

    def _accept(self) -> None:
        assert self._listener is not None, "it is started"
        assert self._loop is not None, "it is started"
        for _ in range(_ACCEPTS):
            try:
                sock, client = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _FULL:
                    log.error("a desktop's way out cannot be served: %s", error)
                self._loop.remove_reader(self._listener)
                self._loop.call_later(_PAUSE_SECONDS, self._resume)
                return
            if self.clients is not None and client[0] not in self.clients:
                sock.close()
                continue
            sock.setblocking(False)
            most = self.policy.limits.connections
            if len(self._tasks) >= most:
                reason = f"this desktop has its {most} connections already"
                self.note(None, "refused", reason)
                self._turn_away(sock, answer(503, reason))
                continue
            task = self._loop.create_task(self._client(sock))
            self._tasks.add(task)
            self.tally.open = len(self._tasks)
            task.add_done_callback(self._ended)

    def _turn_away(self, sock: socket.socket, said: bytes) -> None:
        """Answer without a task; what the client has said by then is read, so that it hears."""
        assert self._loop is not None, "it is started"
        with contextlib.suppress(OSError):
            sock.send(said)
            sock.shutdown(socket.SHUT_WR)
        if len(self._turned_away) >= _MOST_TURNED_AWAY:
            self._turned_away.pop(0).close()
        self._turned_away.append(sock)
        self._loop.call_later(_LINGER_SECONDS, self._forget, sock)

    def _forget(self, sock: socket.socket) -> None:
        if sock in self._turned_away:
            self._turned_away.remove(sock)
            with contextlib.suppress(OSError):
                sock.recv(MAX_HEAD_BYTES)
            sock.close()

    def _resume(self) -> None:
        if self._listener is not None and self._loop is not None:
            self._loop.add_reader(self._listener, self._accept)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self.tally.open = len(self._tasks)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a connection of a desktop failed: %r", error)

    async def _client(self, sock: socket.socket) -> None:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._serve(sock)
        except (OSError, EOFError, asyncio.TimeoutError, Refused):
            pass  # one side broke off, or has heard why
        finally:
            await leave(sock)

    async def _serve(self, sock: socket.socket) -> None:
        if not await readable(sock, seconds=HEAD_SECONDS):
            return
        first = peek(sock, 8) or b""
        if not first:
            return
        if first[0] == socks.VERSION:
            await self._socks(sock)
        elif first[0] == _TLS_HANDSHAKE or first[0] < 32:
            self.note(None, "refused", "the proxy was spoken to in another protocol than HTTP")
        elif first.upper().startswith(b"CONNECT "[: len(first)]):
            first = await head(sock)
            if first.startswith(b"CONNECT "):
                await self._tunnel(sock, first)
            else:
                await Relay(Plain(sock), self).run()
        else:
            await Relay(Plain(sock), self).run()

    async def _socks(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            target = await asyncio.wait_for(socks.asked(sock), HEAD_SECONDS)
        except Malformed as error:
            self.note(None, "refused", str(error))
            return
        try:
            flow = await self.reach(target)
        except (Refused, Failed) as error:
            is_refused = isinstance(error, Refused)
            self.note(target, "refused" if is_refused else "failed", str(error))
            code = socks.NOT_PERMITTED if is_refused else socks.UNREACHABLE
            await loop.sock_sendall(sock, socks.reply(code))
            return
        await self._joined(sock, flow, socks.reply(socks.GRANTED))

    async def _tunnel(self, sock: socket.socket, head: bytes) -> None:
        loop = asyncio.get_running_loop()
        target: Target | None = None
        try:
            target = _connect_target(head)
            flow = await self.reach(target)
        except (Malformed, Refused, Failed) as error:
            status = error.status if isinstance(error, Malformed) else 403
            status = 502 if isinstance(error, Failed) else status
            verdict = "failed" if isinstance(error, Failed) else "refused"
            self.note(target, verdict, str(error))
            await loop.sock_sendall(sock, answer(status, str(error)))
            return
        await self._joined(sock, flow, b"HTTP/1.1 200 Connection established\r\n\r\n")

    async def _joined(self, sock: socket.socket, flow: Flow, word: bytes) -> None:
        """A client and its server: look at what it says first, as far as that matters."""
        try:
            await asyncio.get_running_loop().sock_sendall(sock, word)
            assert isinstance(flow.stream, Plain), "it is in no TLS yet"
            server = flow.stream.sock
            if flow.secrets:
                return await self._intercept(sock, flow)
            if self.policy.is_list and address_of(flow.target.host) is None:
                if await self._look(sock, server, flow) == "http":
                    return await Relay(Plain(sock), self, flow.target).run(flow)
            await pump(sock, server, flow.moved, idle_seconds=IDLE_SECONDS)
        except (Refused, Failed) as error:
            flow.verdict = "failed" if isinstance(error, Failed) else "refused"
            flow.reason = flow.reason or str(error)
        finally:
            flow.close()

    async def _look(self, sock: socket.socket, server: socket.socket, flow: Flow) -> str:
        """What a tunnel carries: TLS for a permitted name, HTTP, or whatever else.

        It is what the client says first that tells; what the server says before goes on to it.
        """
        loop = asyncio.get_running_loop()
        while sock not in (came := await readable(sock, server, seconds=IDLE_SECONDS)):
            if not came:
                raise Failed("nothing was said for too long")
            data = await loop.sock_recv(server, CHUNK_BYTES)
            if not data:
                raise EOFError("the server ended before anything was asked")
            flow.moved(0, len(data))
            await asyncio.wait_for(loop.sock_sendall(sock, data), IDLE_SECONDS)
        kind = await spoken(sock, flow.target.port)
        if kind == "tls":
            self._check_name(await server_name(sock), flow.target)
        return kind

    def _check_name(self, name: str | None, target: Target) -> None:
        if name is None:
            return
        try:
            host = normal_host(name)
        except ValueError as error:
            raise Refused(str(error)) from None
        if host != target.host and self.policy.why_refused(host, target.port) is not None:
            raise Refused(f"a tunnel to {target.host} asks for {host}, which is not permitted")

    async def _intercept(self, sock: socket.socket, flow: Flow) -> None:
        """Requests to a host that a secret is for: read, so that it can be put in."""
        if not await readable(sock, seconds=HEAD_SECONDS):
            return
        if (peek(sock, 1) or b"\0")[0] != _TLS_HANDSHAKE:
            return await Relay(Plain(sock), self, flow.target).run(flow)
        target = flow.target
        self._check_name(await server_name(sock), target)
        if self._authority is None:
            raise Refused("this node cannot make certificates, which a secret over TLS needs")
        try:
            context = await self._authority.context(target.host)
            await self._secure(flow)
            client = await Tls.accept(sock.dup(), context)
        except (NoCertificate, ssl.SSLError) as error:
            raise Failed(f"no TLS with {target.host}: {error}") from error
        try:
            await Relay(client, _Secured(self), target, is_tls=True).run(flow)
            await client.end()
        finally:
            client.close()

    async def _secure(self, flow: Flow) -> None:
        """TLS to its server, which has to prove who it is."""
        if self._upstream is None:
            self._upstream = await asyncio.to_thread(self._new_upstream)
        assert isinstance(flow.stream, Plain), "it is in no TLS yet"
        try:
            flow.stream = await Tls.connect(flow.stream.sock, self._upstream, flow.target.host)
        except (OSError, asyncio.TimeoutError) as error:
            raise Failed(f"no TLS with {flow.target.host}: {error}") from error


class _Secured:
    """The gate for requests that came in TLS: they go on in TLS."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self.permit, self.note = proxy.permit, proxy.note

    async def reach(self, target: Target) -> Flow:
        flow = await self._proxy.reach(target)
        try:
            await self._proxy._secure(flow)
        except BaseException:
            flow.close()
            raise
        return flow


def _connect_target(head: bytes) -> Target:
    conn = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
    try:
        conn.receive_data(head)
        request = conn.next_event()
    except h11.RemoteProtocolError as error:
        raise Malformed(f"that is not HTTP: {error}", error.error_status_hint) from None
    if not isinstance(request, h11.Request):
        raise Malformed("that is not HTTP")
    return authority(request.target.decode("latin-1"), None)
