"""The file tools: read text by lines or bytes, see pictures, write, list.

Text comes back exactly as it is, in a block of its own, with a note after it where something was
left out. Binary files are refused with the way to get them: their bytes as text are of no use to a
model and of great cost.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Literal

from mcp.types import ContentBlock, TextContent
from pydantic import Field

from agent_bridge import pictures
from agent_bridge.caller import Caller
from agent_bridge.inputs import OnDesktop
from workspace import actions as a
from workspace.errors import TooLarge, Unsupported
from workspace.models import FileInfo

MAX_CHARACTERS = 20_000
MAX_WRITE_BYTES = 4 << 20
MAX_SCAN_BYTES = 64 << 20
Path = Annotated[
    str, Field(min_length=1, max_length=4096, description="relative to /home/user, or absolute")
]
_MAGIC: dict[bytes, a.ImageFormat] = {b"\xff\xd8\xff": "jpeg", b"\x89PNG\r\n": "png"}


class FileRead(OnDesktop):
    """The arguments of file_read."""

    path: Path
    offset: Annotated[int, Field(ge=0, description="how many lines or bytes to skip")] = 0
    limit: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    unit: Literal["lines", "bytes"] = "lines"


class FileWrite(OnDesktop):
    """The arguments of file_write."""

    path: Path
    content: str


class FileList(OnDesktop):
    """The arguments of file_list."""

    path: Path = "/home/user"
    limit: Annotated[int, Field(ge=1, le=500)] = 200
    after: Annotated[str | None, Field(description="the last name of the page before")] = None


async def file_read(caller: Caller, asked: FileRead) -> list[ContentBlock]:
    desktop = caller.carrel.desktop(asked.desktop_id)
    info = await desktop.stat(asked.path)
    async with desktop.open_file(asked.path) as chunks:
        head = b""
        async for chunk in chunks:
            head += chunk
            if len(head) >= 8192:
                break
        image = _image(head)
        if image is not None:
            if info.size > pictures.MAX_BYTES:
                raise TooLarge(
                    f"{info.path} is a picture of {info.size} bytes.",
                    hint=f"Get it from {caller.file_url(asked.desktop_id)}, or open it on screen.",
                )
            data = head + b"".join([chunk async for chunk in chunks])
            picture = pictures.content(
                a.Image.model_construct(format=image, width=0, height=0, data=data)
            )
            return [_note(f"{info.path}, {info.size} bytes."), picture]
        if b"\0" in head[:8192]:
            raise Unsupported(
                f"{info.path} is not text ({info.size} bytes).",
                hint="Look into it with shell_run (file, xxd, base64), or get it from "
                f"{caller.file_url(asked.desktop_id)}.",
            )
        read = _bytes if asked.unit == "bytes" else _lines
        text, note = await read(head, chunks, asked, info)
    content: list[ContentBlock] = [_note(text)]
    return [*content, _note(note)] if note else content


async def _bytes(
    head: bytes, chunks: AsyncIterator[bytes], asked: FileRead, info: FileInfo
) -> tuple[str, str]:
    """Bytes from ``offset`` on; a character that the limit would cut in two is left for later."""
    end = asked.offset + min(asked.limit, MAX_CHARACTERS)
    _check_scan(end)
    data = head
    while len(data) < end and (chunk := await anext(chunks, b"")):
        data += chunk
    part = data[asked.offset : end]
    text = part.decode(errors="ignore" if end < info.size else "replace")
    following = asked.offset + len(text.encode()) if end < info.size else info.size
    following = max(following, min(end, info.size)) if not text else following
    if following >= info.size:
        return text, ""
    return text, f"[{info.size} bytes in all; read on with offset {following}]"


async def _lines(
    head: bytes, chunks: AsyncIterator[bytes], asked: FileRead, info: FileInfo
) -> tuple[str, str]:
    """Lines from ``offset`` on, whole, as many as fit; never a part of one without saying so."""
    taken: list[str] = []
    size = number = scanned = 0
    async for line in _split(head, chunks):
        scanned += len(line)
        _check_scan(scanned)
        number += 1
        if number <= asked.offset:
            continue
        text = line.decode(errors="replace")
        if len(taken) == asked.limit or (taken and size + len(text) > MAX_CHARACTERS):
            return "".join(taken), f"[there is more; read on with offset {number - 1}]"
        if len(text) > MAX_CHARACTERS:
            begin = scanned - len(line)
            note = f"[line {number} is {len(text)} characters long and was cut; read it with "
            return text[:MAX_CHARACTERS], note + f'unit "bytes", offset {begin}]'
        taken.append(text)
        size += len(text)
    if not taken and number:
        return "", f"[{info.path} has only {number} lines]"
    return "".join(taken), "" if taken else f"[{info.path} is empty]"


async def _split(head: bytes, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The lines with their ends."""
    rest = head
    while True:
        *lines, rest = rest.splitlines(keepends=True) or [b""]
        if rest.endswith(b"\n"):
            lines, rest = [*lines, rest], b""
        for line in lines:
            yield line
        _check_scan(len(rest))
        chunk = await anext(chunks, b"")
        if not chunk:
            break
        rest += chunk
    if rest:
        yield rest


def _check_scan(size: int) -> None:
    if size > MAX_SCAN_BYTES:
        raise TooLarge(
            f"That is more than {MAX_SCAN_BYTES >> 20} MiB into the file.",
            hint="Cut the part out with shell_run (sed -n, tail -c), then read that.",
        )


def _image(head: bytes) -> a.ImageFormat | None:
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None)


def _note(text: str) -> TextContent:
    return TextContent(type="text", text=text)


async def file_write(caller: Caller, asked: FileWrite) -> list[ContentBlock]:
    data = asked.content.encode("utf-8", errors="surrogatepass")
    if len(data) > MAX_WRITE_BYTES:
        raise TooLarge(
            f"The content is {len(data)} bytes; this tool writes {MAX_WRITE_BYTES}.",
            hint=f"PUT it to {caller.file_url(asked.desktop_id)} with the same key.",
        )
    info = await caller.carrel.desktop(asked.desktop_id).write_file(asked.path, data)
    return [_note(f"Wrote {info.size} bytes to {info.path}.")]


async def file_list(caller: Caller, asked: FileList) -> list[ContentBlock]:
    desktop = caller.carrel.desktop(asked.desktop_id)
    page = await desktop.list_files(asked.path, limit=asked.limit, after=asked.after)
    lines = [
        f"{entry.kind:9} {entry.size:>10} {entry.modified_at:%Y-%m-%d %H:%M} {entry.name}"
        for entry in page.entries
    ]
    if page.after is not None:
        lines.append(f"[there is more; list on with after {page.after!r}]")
    return [_note("\n".join(lines) or "[empty]")]
