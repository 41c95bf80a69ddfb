"""The file tools: read text by lines or bytes, see pictures, write, list.

Text comes back exactly as it is, in a block of its own, with a note after it where something was
left out. Binary files are refused with the way to get them: their bytes as text are of no use to a
model and of great cost.
"""

from __future__ import annotations

from typing import Annotated, Literal

from mcp.types import ContentBlock, TextContent
from pydantic import Field

from agent_bridge import pictures
from agent_bridge.caller import Caller
from agent_bridge.inputs import OnDesktop
from workspace import actions as a
from workspace.errors import TooLarge, Unsupported

MAX_CHARACTERS = 20_000
MAX_WRITE_BYTES = 4 << 20
MAX_READ_BYTES = 16 << 20
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
    elsewhere = f"get it from {caller.file_url(asked.desktop_id)} with the same key."
    if info.size > MAX_READ_BYTES:
        raise TooLarge(
            f"{info.path} is {info.size} bytes; this tool reads files of {MAX_READ_BYTES}.",
            hint=f"Cut a part out with shell_run (sed -n, tail -c) and read that, or {elsewhere}",
        )
    data = await desktop.read_file(asked.path, limit=MAX_READ_BYTES)
    image = _image(data)
    if image is not None:
        if len(data) > pictures.MAX_BYTES:
            raise TooLarge(
                f"{info.path} is a picture of {len(data)} bytes.",
                hint=f"Open it on the screen, or {elsewhere}",
            )
        return [_note(f"{info.path}, {len(data)} bytes."), pictures.content(data, image)]
    if b"\0" in data[:8192]:
        raise Unsupported(
            f"{info.path} is not text ({len(data)} bytes).",
            hint=f"Look into it with shell_run (file, xxd, base64), or {elsewhere}",
        )
    part = by_bytes if asked.unit == "bytes" else by_lines
    text, note = part(data, asked.offset, asked.limit)
    content: list[ContentBlock] = [_note(text)]
    return [*content, _note(note)] if note else content


def by_bytes(data: bytes, offset: int, limit: int) -> tuple[str, str]:
    """Bytes as text, and a note of what follows; no character is cut in two at the end."""
    end = offset + min(limit, MAX_CHARACTERS)
    if end >= len(data):
        return data[offset:].decode(errors="replace"), ""
    for _ in range(3):  # a UTF-8 character has at most three bytes after its first
        if data[end] & 0xC0 == 0x80 and end > offset + 1:
            end -= 1
    note = f"[{len(data)} bytes in all; go on with offset {end}]"
    return data[offset:end].decode(errors="replace"), note


def by_lines(data: bytes, offset: int, limit: int) -> tuple[str, str]:
    """Lines whole, as many as fit, and a note of what follows or was cut."""
    lines = data.splitlines(keepends=True)
    taken: list[str] = []
    room = MAX_CHARACTERS
    for number, line in enumerate(lines[offset : offset + limit], offset):
        text = line.decode(errors="replace")
        if len(text) > room:
            if not taken:
                begin = sum(map(len, lines[:number]))
                note = f"[line {number + 1} is {len(line)} bytes and was cut; read it with unit "
                return text[:room], f'{note}"bytes" and offset {begin}]'
            break
        taken.append(text)
        room -= len(text)
    following = offset + len(taken)
    if following < len(lines):
        return "".join(taken), f"[{len(lines)} lines in all; go on with offset {following}]"
    if taken:
        return "".join(taken), ""
    return "", f"[the file has {len(lines)} lines]"


def _image(head: bytes) -> a.ImageFormat | None:
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None)


def _note(text: str) -> TextContent:
    return TextContent(type="text", text=text)


async def file_write(caller: Caller, asked: FileWrite) -> list[ContentBlock]:
    data = asked.content.encode()
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
