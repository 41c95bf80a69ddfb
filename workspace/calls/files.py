"""Files; relative paths start in /home/user."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from workspace.calls.wire import Wire, parse
from workspace.errors import TooLarge
from workspace.models import FileInfo, FileList, FileMove
from workspace.transport import asked


class FileCalls:
    """A desktop's files."""

    _wire: Wire

    def open_file(self, path: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """A file's bytes as they come: ``async with desktop.open_file(p) as chunks``."""
        return self._download("/files", {"path": path})

    @asynccontextmanager
    async def _download(
        self, url: str, params: dict[str, str]
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        async with self._wire.stream("GET", url, params=params) as response:
            yield response.aiter_bytes()

    async def read_file(self, path: str, *, limit: int = 32 << 20) -> bytes:
        """A whole file, at most ``limit`` bytes.

        Raises:
            TooLarge: it is longer; use :meth:`open_file`.
        """
        data = bytearray()
        async with self.open_file(path) as chunks:
            async for chunk in chunks:
                data += chunk
                if len(data) > limit:
                    raise TooLarge(
                        f"{path} is longer than {limit} bytes.", hint="Read it as a stream."
                    )
        return bytes(data)

    async def write_file(
        self, path: str, data: bytes | AsyncIterable[bytes], *, mode: str = "644"
    ) -> FileInfo:
        """Write a file whole, creating folders on the way; it appears only when complete."""
        body = await self._wire.call(
            "PUT",
            "/files",
            params={"path": path, "mode": mode},
            content=data,
            seconds=3600,
        )
        return parse(FileInfo.model_validate_json, body)

    async def list_files(
        self, path: str = "/home/user", *, limit: int = 1000, after: str | None = None
    ) -> FileList:
        params: dict[str, str | int] = {"path": path, "limit": limit}
        if after is not None:
            params["after"] = after
        return parse(
            FileList.model_validate_json, await self._wire.call("GET", "/files/list", params=params)
        )

    async def stat(self, path: str) -> FileInfo:
        body = await self._wire.call("GET", "/files/stat", params={"path": path})
        return parse(FileInfo.model_validate_json, body)

    async def make_directory(self, path: str) -> FileInfo:
        body = await self._wire.call("PUT", "/files/directory", params={"path": path})
        return parse(FileInfo.model_validate_json, body)

    async def move_file(
        self, source: str, destination: str, *, overwrite: bool = False
    ) -> FileInfo:
        body = asked(FileMove, source=source, destination=destination, overwrite=overwrite)
        return parse(
            FileInfo.model_validate_json,
            await self._wire.call("POST", "/files/move", json=body.model_dump()),
        )

    async def remove(self, path: str, *, recursive: bool = False) -> None:
        await self._wire.call(
            "DELETE", "/files", params={"path": path, "recursive": str(recursive).lower()}
        )
