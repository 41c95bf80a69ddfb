"""What a desktop's way out costs: beside the same bytes without it, and beside tinyproxy.

``python -m benchmarks.egress`` measures on loopback: how much goes through in a second, how
long a small request takes, and what memory 500 connections at once take. The proxy is a process of
its own here, so that its memory can be told; in an actor it is a thread.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

from workspace.proxy.addresses import networks
from workspace.proxy.policy import Policy
from workspace.proxy.service import Proxy
from workspace.proxy.tally import Tally

MANY = 500
ASKED_MBS, ASKED_MS, ASKED_MIB = 200, 2.0, 60
_CHUNK = b"x" * (256 << 10)


class Measured(NamedTuple):
    """One way to the server."""

    name: str
    mbs: float  # 10^6 bytes a second, from the server
    http_mbs: float | None  # of the body of one plain request
    p50_ms: float  # a new connection, a request of a few bytes, its answer
    many_mib: float | None  # what memory grew by to with MANY connections, in all


class Server:
    """Answers ``G`` with bytes for as long as they are read, ``P`` with one; HTTP by its body."""

    def run(self, ready: Callable[[int], None]) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        ready(self._listener.getsockname()[1])
        while True:
            sock, _ = self._listener.accept()
            threading.Thread(target=self._one, args=(sock,), daemon=True).start()

    def _one(self, sock: socket.socket) -> None:
        try:
            with sock:
                while said := sock.recv(4096):
                    if said.startswith(b"GET "):
                        size = int(said.split()[1].rpartition(b"/")[2])
                        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
                        for _ in range(size // len(_CHUNK)):
                            sock.sendall(_CHUNK)
                    elif said.startswith(b"G"):
                        while True:
                            sock.sendall(_CHUNK)
                    else:
                        sock.sendall(b"p")
        except OSError:
            pass


def _proxy(ready: Callable[[int], None], server: int) -> None:
    async def serve() -> None:
        rules = [f"127.0.0.1:{server}"]
        policy = Policy(egress=rules, private=networks(["127.0.0.1/32"]))
        listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        proxy = Proxy(policy, Tally())
        proxy.start(listener)
        ready(listener.getsockname()[1])
        await asyncio.Event().wait()

    asyncio.run(serve())


def ours(server: int) -> AbstractContextManager[tuple[int, int]]:
    return _process(_proxy, server)


@contextmanager
def _process(run: Callable[..., None], *arguments: int) -> Iterator[tuple[int, int]]:
    """Its port and process id."""
    spawning = multiprocessing.get_context("spawn")
    queue: multiprocessing.Queue[int] = spawning.Queue()
    process = spawning.Process(target=run, args=(queue.put, *arguments))
    process.start()
    try:
        yield queue.get(timeout=30), process.pid or 0
    finally:
        process.terminate()
        process.join()


@contextmanager
def tinyproxy(server: int) -> Iterator[tuple[int, int]]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "tinyproxy.conf")
        config.write_text(
            f"Port {port}\nListen 127.0.0.1\nMaxClients {MANY + 50}\nTimeout 600\n"
            f"ConnectPort {server}\nLogLevel Critical\n"
        )
        process = subprocess.Popen(
            ["tinyproxy", "-d", "-c", str(config)], stdout=subprocess.DEVNULL
        )
        try:
            for _ in range(100):
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except OSError:
                    time.sleep(0.05)
            yield port, process.pid
        finally:
            process.terminate()
            process.wait()


def _open(port: int, server: int, is_proxy: bool) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), 20)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if is_proxy:
        sock.sendall(f"CONNECT 127.0.0.1:{server} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        said = b""
        while not said.endswith(b"\r\n\r\n"):
            said += sock.recv(1000)
        assert b" 200 " in said[:20], said
    return sock


def _read(sock: socket.socket, seconds: float, most: int = 1 << 40) -> float:
    """Bytes a second."""
    buffer, count, began = bytearray(1 << 20), 0, time.perf_counter()
    while time.perf_counter() - began < seconds and count < most:
        more = sock.recv_into(buffer)
        if not more:
            break
        count += more
    return count / (time.perf_counter() - began)


def measure(
    name: str, port: int, server: int, *, seconds: float, rounds: int, pid: int | None
) -> Measured:
    is_proxy = pid is not None
    with _open(port, server, is_proxy) as sock:
        sock.sendall(b"G")
        mbs = _read(sock, seconds) / 1e6
    with _open(port, server, False) as sock:
        size = 512 << 20
        url = f"http://127.0.0.1:{server}/{size}" if is_proxy else f"/{size}"
        sock.sendall(f"GET {url} HTTP/1.1\r\nHost: 127.0.0.1:{server}\r\n\r\n".encode())
        http = _read(sock, seconds * 2, size) / 1e6
    took = []
    for _ in range(rounds):
        began = time.perf_counter()
        with _open(port, server, is_proxy) as sock:
            sock.sendall(b"p")
            sock.recv(1)
        took.append(time.perf_counter() - began)
    many: float | None = None
    if pid:
        held = [_open(port, server, True) for _ in range(MANY)]
        for sock in held:
            sock.sendall(b"p")
            sock.recv(1)
        many = _memory(pid)
        for sock in held:
            sock.close()
    return Measured(name, mbs, http, statistics.median(took) * 1000, many)


def _memory(pid: int) -> float:
    """The process's own memory and its children's, in MiB."""
    total = 0
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for each in (str(pid), *children):
        for line in Path(f"/proc/{each}/smaps_rollup").read_text().splitlines():
            if line.startswith("Private_"):
                total += int(line.split()[1])
    return total / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with _process(Server().run) as (server, _):
        how = {"seconds": arguments.seconds, "rounds": arguments.rounds}
        rows = [measure("direct", server, server, pid=None, **how)]
        for name, proxy in (("Carrel", ours), ("tinyproxy", tinyproxy)):
            if name == "tinyproxy" and shutil.which(name) is None:
                print("tinyproxy is not installed: left out", file=sys.stderr)
                continue
            with proxy(server) as (port, pid):
                rows.append(measure(name, port, server, pid=pid, **how))
    if arguments.json:
        print(json.dumps([row._asdict() for row in rows]))
        return
    print(f"{'':10} {'tunnel MB/s':>12} {'HTTP MB/s':>10} {'p50 ms':>7} {f'MiB at {MANY}':>11}")
    for row in rows:
        many = f"{row.many_mib:.1f}" if row.many_mib is not None else "-"
        print(f"{row.name:10} {row.mbs:12.0f} {row.http_mbs:10.0f} {row.p50_ms:7.2f} {many:>11}")
    print(f"asked: >= {ASKED_MBS} MB/s, <= {ASKED_MS:g} ms added, <= {ASKED_MIB} MiB")


if __name__ == "__main__":
    main()
