"""VS Code and its kin, asked through the bridge: an extension of ours in its extension host.

The bridge listens on a unix socket in a folder that only this user enters, and wants a token first.
Opening a folder starts another extension host, which listens anew: so a connection that ends is
made again, for as long as the IDE lives. An extension host that hangs or is gone is told of as
``not_answering``; calls under way end with ``IdeFailed``, and are not made again.
"""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import suppress
from typing import Annotated, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from workspace import ide as i
from workspace.desktopd.ide.launching import launch
from workspace.desktopd.ide.rpc import Link
from workspace.desktopd.programs import resolve
from workspace.desktopd.threads import in_thread
from workspace.errors import (
    CarrelError,
    FileMissing,
    IdeFailed,
    IdeNotReady,
    NotADirectory,
    TimedOut,
    Unsupported,
)

__all__ = ["VsCode", "launch"]

logger = logging.getLogger(__name__)

SOCKET = "bridge.sock"
VERBS: tuple[i.Verb, ...] = get_args(i.Verb)
_LOOK_SECONDS = 0.05  # between tries to connect
_HELLO_SECONDS = 5.0
_PING_SECONDS = 1.0
_SLACK_SECONDS = 2.5  # for the bridge to say itself that the time is over
_START_SECONDS = 90.0  # after which one that does not come is held up by something
_TYPES = {"code_actions": ("code_actions", "code_action_list")}


class Hello(BaseModel):
    """How a bridge introduces itself, as often as it is asked; from one of the user's programs."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: Annotated[str, Field(max_length=200)] = ""
    version: Annotated[str, Field(max_length=100)] = ""
    folder: Annotated[str, Field(max_length=4096)] | None = None
    can: Annotated[list[str], Field(max_length=100)] = []


class VsCode:
    """One window of VS Code, from its start. ``folder`` has the bridge's socket."""

    def __init__(self, folder: str, token: str, home: str) -> None:
        self._path = os.path.join(folder, SOCKET)
        self._token, self._home = token, home
        self._link: Link | None = None
        self._hello = Hello()
        self._wanted: str | None = None  # the folder that is being opened
        self._said_no = ""
        self._since = asyncio.get_running_loop().time()
        self._is_linked = asyncio.Event()
        self._keeping = asyncio.ensure_future(self._keep())

    async def aclose(self) -> None:
        self._keeping.cancel()
        await asyncio.gather(self._keeping, return_exceptions=True)

    async def until_ready(self) -> None:
        await self._is_linked.wait()

    async def health(self) -> i.IdeHealth:
        link = self._link
        told = i.IdeHealth(
            ide="vscode",
            phase="starting",
            name=self._hello.name,
            version=self._hello.version,
            folder=self._hello.folder,
            can=[verb for verb in VERBS if verb in self._hello.can],
        )
        if link is None:
            return told.model_copy(update=self._why_unlinked())
        try:
            await self._greet(link, _PING_SECONDS)
        except asyncio.TimeoutError:
            message = "The extension host does not answer. Look at a screenshot."
            return told.model_copy(update={"phase": "not_answering", "message": message})
        except CarrelError:
            return told.model_copy(update=self._why_unlinked())
        return told.model_copy(update={"phase": "ready"})

    def _why_unlinked(self) -> dict[str, str]:
        since = asyncio.get_running_loop().time() - self._since
        if self._said_no:
            return {"phase": "not_answering", "message": self._said_no}
        if since > _START_SECONDS:
            message = f"The bridge has not come up in {since:.0f} s. Look at a screenshot."
            return {"phase": "waiting_for_dialog", "message": message}
        opening = f"It opens {self._wanted}." if self._wanted else ""
        return {"phase": "starting", "message": opening}

    async def do(self, action: i.IdeAction) -> i.IdeAnswer:
        link = self._link
        if link is None:
            raise IdeNotReady("The extension host is being started anew.")
        if action.type not in self._hello.can:
            can = ", ".join(verb for verb in VERBS if verb in self._hello.can)
            raise Unsupported(f"This IDE cannot do {action.type}.", hint=f"It can: {can}.")
        if isinstance(action, i.OpenFolder):
            return await self._open_folder(link, action)
        try:
            return await self._ask(link, action, action.seconds + _SLACK_SECONDS)
        except asyncio.TimeoutError:
            raise await self._late(link, action) from None

    async def _ask(self, link: Link, action: i.IdeAction, seconds: float) -> i.IdeAnswer:
        """Raises asyncio.TimeoutError, and as :meth:`do`."""
        params = action.model_dump(mode="json", exclude_none=True)
        told = await asyncio.wait_for(link.call("do", params), seconds)
        try:
            answer = i.IDE_ANSWER.validate_python(told)
        except ValidationError as error:
            fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
            where = ".".join(map(str, fault["loc"]))[:200] or "its beginning"
            raise IdeFailed(
                f"What the IDE answers to {action.type} is no answer, at {where}: {fault['msg']}."
            ) from None
        if answer.type not in _TYPES.get(action.type, (action.type,)):
            raise IdeFailed(f"The IDE answers to {action.type} what was not asked.")
        return answer

    async def _greet(self, link: Link, seconds: float) -> Hello:
        """Raises IdeFailed, asyncio.TimeoutError."""
        told = await asyncio.wait_for(link.call("hello", {"token": self._token}), seconds)
        try:
            return Hello.model_validate(told)
        except ValidationError:
            raise IdeFailed("What the bridge says as its hello is none.") from None

    async def _late(self, link: Link, action: i.IdeAction) -> CarrelError:
        """Which error it is that no answer came: the IDE's, or that of what was asked."""
        try:
            await self._greet(link, _PING_SECONDS)
        except (CarrelError, asyncio.TimeoutError):
            return IdeFailed(
                f"The IDE did not answer to {action.type}, nor to anything else: its extension "
                "host hangs.",
                hint="The rest of the desktop works. Close the IDE's window to have it started "
                "anew, once.",
            )
        return TimedOut(f"The IDE was not done with {action.type} in time. It was told to stop.")

    # Folders.

    async def _open_folder(self, link: Link, action: i.OpenFolder) -> i.FolderOpened:
        deadline = asyncio.get_running_loop().time() + action.seconds
        is_home = action.path == "~" or action.path.startswith("~/")
        base = self._home if is_home else self._hello.folder or self._home
        path = resolve(action.path, base)
        await in_thread(lambda: _check_folder(path))
        if _is_same(self._hello.folder, path):
            return i.FolderOpened(path=path)
        self._wanted = path
        try:
            asked = action.model_copy(update={"path": path})
            try:
                await self._ask(link, asked, action.seconds)
            except IdeFailed:
                if not link.closed.is_set():  # else its host has gone to make room for the next
                    raise
            # The old host may live on for a while. What it is asked from now on would be lost.
            self._unlink(link)
            await link.aclose()
            left = deadline - asyncio.get_running_loop().time()
            await asyncio.wait_for(self._is_linked.wait(), max(0.1, left))
        except asyncio.TimeoutError:
            raise IdeNotReady(
                f"The folder {path} is not open after {action.seconds:g} s.",
                hint="Look at a screenshot: a dialog may ask what becomes of unsaved files.",
            ) from None
        finally:
            self._wanted = None
        return i.FolderOpened(path=path)

    # The connection.

    async def _keep(self) -> None:
        """Connect whenever there is no connection."""
        try:
            while True:
                link = await self._connect()
                if link is None:
                    await asyncio.sleep(_LOOK_SECONDS)
                    continue
                self._link = link
                self._is_linked.set()
                await link.closed.wait()
                self._unlink(link)
                await link.aclose()
        finally:
            link, self._link = self._link, None
            if link is not None:
                await link.aclose()

    def _unlink(self, link: Link) -> None:
        if self._link is link:
            self._link = None
            self._is_linked.clear()
            self._since = asyncio.get_running_loop().time()

    async def _connect(self) -> Link | None:
        """A connection to a bridge that has said hello, and has the folder that is wanted."""
        try:
            link = await Link.open(self._path)
        except OSError:
            return None
        try:
            hello = await self._greet(link, _HELLO_SECONDS)
            if self._wanted is None or _is_same(hello.folder, self._wanted):
                self._hello, self._said_no = hello, ""
                return link
        except asyncio.TimeoutError:
            self._said_no = f"The bridge has not said hello in {_HELLO_SECONDS:g} s."
        except CarrelError as error:
            if self._said_no != error.message:
                logger.warning("The IDE's bridge: %s", error.message)
            self._said_no = error.message
        except BaseException:
            await link.aclose()
            raise
        await link.aclose()
        return None


def _check_folder(path: str) -> None:
    if not os.path.lexists(path):
        raise FileMissing(f"There is no folder {path}.", hint="Make it first.")
    if not os.path.isdir(path):
        raise NotADirectory(f"{path} is no folder.")


def _is_same(folder: str | None, path: str) -> bool:
    if folder is None:
        return False
    with suppress(OSError):
        return os.path.realpath(folder) == os.path.realpath(path)
    return False
