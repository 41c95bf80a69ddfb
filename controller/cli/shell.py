"""Commands in a desktop's shell and among its files: ``exec`` and ``cp``.

A command that is interrupted here is ended there. A file appears whole or not at all, on either
side.
"""

from __future__ import annotations

import json as jsonlib
import os
import re
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from controller.cli import output
from controller.cli.connect import controller, run
from controller.cli.desktops import Id
from controller.cli.output import Json

if TYPE_CHECKING:
    from workspace.desktop import Desktop

CHUNK = 1 << 18
KEPT_CHARS = 8 << 20  # of each stream, with --json
REMOTE = re.compile(r"^(?P<id>[a-z0-9]{8,20}):(?P<path>.*)$", re.DOTALL)


def add_to(app: typer.Typer) -> None:
    app.command("exec")(execute)
    app.command()(cp)


def execute(
    workspace_id: Id,
    command: Annotated[
        list[str], typer.Argument(help="Several words run as they stand; a single one in bash.")
    ],
    timeout: Annotated[
        float | None, typer.Option(help="End it after so many seconds; default: never.")
    ] = None,
    detach: Annotated[
        bool, typer.Option("-d", "--detach", help="Leave it running; prints the job's id.")
    ] = False,
    cwd: Annotated[str, typer.Option(help="The folder to run it in.")] = "/home/user",
    json: Json = False,
) -> None:
    """Run a command in a desktop; its output is streamed, its exit code passed on.

    Its own options stand behind two dashes: carrel exec ID --timeout 10 -- ls -l
    """
    wanted = command[0] if len(command) == 1 else command

    async def main() -> int:
        async with controller() as carrel:
            desktop = carrel.desktop(workspace_id)
            job = await desktop.start(wanted, cwd=cwd)
            if detach:
                output.result(job.model_dump(mode="json"), job.id)
                return 0
            try:
                return await _follow(desktop, workspace_id, job.id, timeout)
            finally:
                await _forget(desktop, job.id)

    raise typer.Exit(run(main))


async def _follow(desktop: Desktop, workspace_id: str, job: str, timeout: float | None) -> int:
    """Pass on what the job writes until it ends; its exit code as a shell tells it."""
    import anyio

    from controller.cli.wire import websocket
    from workspace.errors import CommandTimedOut, DesktopLost

    kept = {"stdout": "", "stderr": ""}
    with anyio.move_on_after(timeout) as scope:
        async with websocket(f"/v1/workspaces/{workspace_id}/processes/{job}/stream") as socket:
            async for message in socket:
                frame = jsonlib.loads(message)
                if "exit_code" in frame:
                    code = int(frame["exit_code"])
                    output.result({"exit_code": code, **kept})
                    return code if code >= 0 else 128 - code
                stream = "stderr" if frame["stream"] == "stderr" else "stdout"
                if output.wants_json():
                    kept[stream] = (kept[stream] + frame["data"])[-KEPT_CHARS:]
                else:
                    file = sys.stderr if stream == "stderr" else sys.stdout
                    file.write(frame["data"])
                    file.flush()
    if scope.cancelled_caught:
        raise CommandTimedOut(
            f"The command was ended after {timeout:g} s.",
            hint="Allow it more with --timeout, or leave it running with --detach.",
            details=kept if output.wants_json() else None,
        )
    raise DesktopLost("The command's output broke off before it ended.")


async def _forget(desktop: Desktop, job: str) -> None:
    """End the job if it still runs, even while being interrupted."""
    from contextlib import suppress

    import anyio

    from workspace.errors import CarrelError

    with anyio.CancelScope(shield=True), suppress(CarrelError):  # bounded by the request's timeout
        await desktop.forget(job)


def cp(
    source: Annotated[str, typer.Argument(metavar="SRC", help="A file here, or ID:path.")],
    destination: Annotated[str, typer.Argument(metavar="DST", help="ID:path, or a file here.")],
    json: Json = False,
) -> None:
    """Copy a file into a desktop or out of it; - is stdin or stdout.

    In a desktop, relative paths start in /home/user.
    """
    from_desktop, to_desktop = REMOTE.match(source), REMOTE.match(destination)
    if bool(from_desktop) == bool(to_desktop):
        raise typer.BadParameter("one of the two, and only one, must be ID:path")

    async def main() -> None:
        began = time.monotonic()
        async with controller() as carrel:
            if to_desktop:
                desktop = carrel.desktop(to_desktop["id"])
                path, size = await _upload(desktop, source, to_desktop["path"])
            else:
                assert from_desktop is not None
                desktop = carrel.desktop(from_desktop["id"])
                path, size = await _download(desktop, from_desktop["path"], destination)
        if path == "-":
            return
        seconds = time.monotonic() - began
        output.result({"path": path, "bytes": size}, f"{path} ({size} bytes, {seconds:.1f} s)")

    run(main)


async def _upload(desktop: Desktop, source: str, path: str) -> tuple[str, int]:
    from workspace.errors import IsADirectory

    name = Path(source).name if source != "-" else ""
    if not path or path.endswith("/"):
        if not name:
            raise typer.BadParameter("name the file in the desktop: ID:path", param_hint="DST")
        path += name
    try:
        return await _send(desktop, source, path)
    except IsADirectory:
        if not name:
            raise
    return await _send(desktop, source, f"{path}/{name}")


async def _send(desktop: Desktop, source: str, path: str) -> tuple[str, int]:
    if source == "-":
        info = await desktop.write_file(path, _chunks(sys.stdin.buffer))
    else:
        with _opened(source) as file:
            mode = f"{os.fstat(file.fileno()).st_mode & 0o777:o}"
            info = await desktop.write_file(path, _chunks(file), mode=mode)
    return info.path, info.size


def _opened(source: str) -> BinaryIO:
    from workspace.errors import FileMissing, InvalidRequest

    try:
        return open(source, "rb")
    except IsADirectoryError as error:
        raise InvalidRequest(
            f"{source} is a directory.", hint="Copy one file; pack a folder with tar first."
        ) from error
    except OSError as error:
        raise FileMissing(f"{source} cannot be read: {error.strerror}.", hint="") from error


async def _chunks(file: BinaryIO) -> AsyncIterator[bytes]:
    import anyio

    while chunk := await anyio.to_thread.run_sync(file.read, CHUNK):
        yield chunk


async def _download(desktop: Desktop, path: str, destination: str) -> tuple[str, int]:
    async with desktop.open_file(path) as chunks:
        if destination == "-":
            return "-", await _pour(chunks, sys.stdout.buffer)
        target = _target(destination, path)
        with _whole(target) as file:
            return str(target), await _pour(chunks, file)


async def _pour(chunks: AsyncIterator[bytes], file: BinaryIO) -> int:
    size = 0
    async for chunk in chunks:
        file.write(chunk)
        size += len(chunk)
    file.flush()
    return size


def _target(destination: str, path: str) -> Path:
    target = Path(destination)
    if target.is_dir() or destination.endswith("/"):
        return target / Path(path).name
    return target


@contextmanager
def _whole(target: Path) -> Iterator[BinaryIO]:
    """A file that takes its place only when the block ends well."""
    from workspace.errors import InvalidRequest

    partial: Path | None = None
    try:
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        partial = Path(name)
        with os.fdopen(descriptor, "wb") as file:
            yield file
        partial.chmod(0o666 & ~_umask())
        partial.replace(target)
    except OSError as error:
        raise InvalidRequest(
            f"{target} cannot be written: {error.strerror}.", hint="Name another place."
        ) from error
    finally:
        if partial is not None:
            partial.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
