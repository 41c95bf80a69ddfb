"""A real S3 server for the tests: moto's, a process of its own, over HTTP; and faults on the way.

It keeps all in memory. :class:`Between` stands between a client and it, and slows, cuts or refuses.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import boto3
import httpx

# It ends with the pipe, so with whoever started it.
_SERVE = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "tests",
    "AWS_SECRET_ACCESS_KEY": "the-secret-of-the-tests",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@dataclass
class Server:
    """One that runs."""

    url: str
    process: subprocess.Popen[str]
    _buckets: int = field(default=0)

    def bucket(self) -> str:
        """A new one."""
        self._buckets += 1
        name = f"bucket-{self._buckets}"
        httpx.put(f"{self.url}/{name}", timeout=20, trust_env=False).raise_for_status()
        return name

    def put(self, bucket: str, key: str, data: bytes) -> None:
        """Write an object behind everybody's back."""
        client = boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        )
        client.put_object(Bucket=bucket, Key=key, Body=data)
        client.close()

    def keys(self, bucket: str) -> list[str]:
        """What is in one."""
        text = httpx.get(f"{self.url}/{bucket}?list-type=2", timeout=20, trust_env=False).text
        return [part.partition("</Key>")[0] for part in text.split("<Key>")[1:]]

    def uploads(self, bucket: str) -> int:
        """How many uploads in parts have begun and not ended."""
        text = httpx.get(f"{self.url}/{bucket}?uploads", timeout=20, trust_env=False).text
        return text.count("<UploadId>")

    def check_keys(self, after: int | None) -> None:
        """Look at credentials from the next request on, or (None) not at all."""
        body = str(10**9 if after is None else after)
        answer = httpx.post(
            f"{self.url}/moto-api/reset-auth", content=body, timeout=20, trust_env=False
        )
        answer.raise_for_status()


@contextmanager
def s3_server() -> Iterator[Server]:
    """One for as long as the block runs."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", _SERVE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | CREDENTIALS,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        port = process.stdout.readline().strip()
        assert port, "moto does not serve"
        yield Server(f"http://127.0.0.1:{port}", process)
    finally:
        process.kill()  # in order it would wait for connections that are kept open
        process.wait(10)
        process.stdin.close()
        process.stdout.close()


class Between:
    """Passes bytes on to a server, unless it is told otherwise."""

    def __init__(self) -> None:
        self.url = ""
        self.is_away = False  # connections are closed as they come
        self.delay = 0.0  # seconds before anything that is sent is passed on
        self.left: int | None = None  # bytes to the server, until all is cut and it is away
        self.received = 0
        self._open: set[asyncio.StreamWriter] = set()

    def cut(self) -> None:
        """The server dies."""
        self.is_away = True
        for writer in self._open:
            writer.transport.abort()

    async def accept(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int
    ) -> None:
        if self.is_away:
            writer.transport.abort()
            return
        back, there = await asyncio.open_connection(host, port)
        self._open |= {writer, there}
        try:
            await asyncio.gather(self._up(reader, there), self._down(back, writer))
        finally:
            self._open -= {writer, there}
            for each in (writer, there):
                each.close()

    async def _up(self, reader: asyncio.StreamReader, there: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                self.received += len(data)
                if self.left is not None:
                    self.left -= len(data)
                    if self.left < 0:
                        return self.cut()
                await asyncio.sleep(self.delay)
                there.write(data)
                await there.drain()
            there.write_eof()

    async def _down(self, back: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await back.read(65536):
                writer.write(data)
                await writer.drain()
            writer.close()


@asynccontextmanager
async def between(url: str) -> AsyncIterator[Between]:
    """One in front of the server at ``url``, for as long as the block runs."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 80
    made = Between()
    tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await made.accept(reader, writer, host, port)
        except (OSError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            tasks.discard(task)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield made
    finally:
        server.close()
        made.cut()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()
