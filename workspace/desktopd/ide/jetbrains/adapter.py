"""One IDE of JetBrains that runs: how it is, and what is asked of it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from workspace import ide as i
from workspace.desktopd.ide.jetbrains import (
    editing,
    places,
    reading,
    running,
    tools,
)
from workspace.desktopd.ide.jetbrains.asking import Asking
from workspace.desktopd.ide.jetbrains.debugging import Debugging
from workspace.desktopd.ide.jetbrains.phases import Facts, dialogs_of, phase
from workspace.desktopd.ide.jetbrains.wire import Wire
from workspace.desktopd.threads import in_thread
from workspace.errors import (
    CarrelError,
    FileMissing,
    Forbidden,
    IdeFailed,
    IdeNotReady,
    NotADirectory,
    TimedOut,
)
from workspace.models import Window

HandOver = Callable[[Sequence[str]], Awaitable[bool]]
_HEALTH_SECONDS = 1.5
_LISTEN_SECONDS = 0.3
_HELLO_SECONDS = 0.8
_ANSWER_SECONDS = 0.7
_AGAIN_SECONDS = 0.3  # between tries while it indexes
_LOOK_SECONDS = 0.5  # between looks whether it is ready
_RELIST_SECONDS = 15.0
_UNLIKELY = "carrelLooksWhetherTheIndexIsThere"
_READING = frozenset(
    {"state", "diagnostics", "symbols", "definition", "references", "hover", "open", "rename"}
)  # what may be asked again: an IDE that indexes has done nothing of it


class JetBrains:
    """An adapter (``workspace.desktopd.ide.adapter``) to the MCP server on ``port``.

    ``pid`` tells the IDE's process while it lives, ``age`` the seconds since its start, ``windows``
    those of the screen; ``hand_over`` gives the running IDE arguments by its launcher.
    """

    def __init__(
        self,
        folder: str,
        *,
        settings: i.IdeSettings,
        port: int,
        token: str,
        pid: Callable[[], int | None],
        age: Callable[[], float],
        windows: Callable[[], Awaitable[Sequence[Window]]],
        name: str = "",
        version: str = "",
        hand_over: HandOver | None = None,
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._pid, self._age, self._windows = pid, age, windows
        self._name, self._version = name, version
        self._hand_over = hand_over
        self._on_close = on_close
        self._wire = Wire(port, token, folder)
        self._debugging = Debugging()
        self._looking: asyncio.Task[Facts] | None = None
        self._listed = 0.0

    async def health(self) -> i.IdeHealth:
        facts = await self._facts(_HEALTH_SECONDS)
        now, message = phase(facts)
        peer = self._wire.peer
        return i.IdeHealth(
            ide="jetbrains",
            phase=now,
            name=self._name or peer.name.removesuffix(" MCP Server"),
            version=self._version or peer.version,
            folder=self._wire.folder if facts.is_open else None,
            can=self._can() if facts.is_connected else [],
            message=message,
        )

    async def until_ready(self) -> None:
        while phase(await self._facts())[0] != "ready":  # noqa: ASYNC110  # nothing tells it
            await asyncio.sleep(_LOOK_SECONDS)

    async def aclose(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        await self._wire.aclose()
        self._on_close()

    async def do(self, action: i.IdeAction) -> i.IdeAnswer:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + action.seconds
        await self._wire.connect(min(action.seconds, 5.0))
        if action.type not in (can := self._can()):
            raise tools.unsupported(f"{action.type} is not supported by this IDE.", can)
        asking = Asking(self._wire, deadline - loop.time(), list(can))
        while True:
            try:
                return await self._do(asking, action)
            except IdeNotReady:
                if action.type not in _READING or deadline - loop.time() < 2 * _AGAIN_SECONDS:
                    raise
                await asyncio.sleep(_AGAIN_SECONDS)
            except TimedOut as error:
                dialogs = dialogs_of(await self._windows(), self._name)
                if not dialogs:
                    raise
                raise TimedOut(
                    f'{error.message} It shows the dialog "{dialogs[0]}".',
                    hint="Look at a screenshot, and answer the dialog or have a person do it.",
                ) from error

    async def _do(self, asking: Asking, action: i.IdeAction) -> i.IdeAnswer:
        match action:
            case i.Open():
                return await self._open(asking, action)
            case i.OpenFolder():
                return await self._open_folder(asking, action)
            case i.GetState():
                return await reading.state(asking)
            case i.GetDiagnostics():
                return await reading.diagnostics(asking, action)
            case i.GetSymbols():
                return await reading.symbols(asking, action)
            case i.GetDefinition():
                return await reading.definition(asking, action)
            case i.GetReferences():
                return await reading.references(asking, action)
            case i.GetHover():
                return await reading.hover(asking, action)
            case i.Rename():
                return await editing.rename(asking, action)
            case i.ApplyEdit():
                return await editing.apply_edit(asking, action)
            case i.Format():
                return await editing.format_file(asking, action)
            case i.RunTask():
                return await running.run_task(asking, action, self._pid)
            case i.RunTests():
                return await running.run_tests(asking, action, self._pid)
            case i.RunInTerminal():
                return await running.run_in_terminal(asking, action)
            case i.RunCommand():
                return await self._command(asking, action)
            case i.CodeActions() | i.InstallExtension():
                raise asking.refuse(f"{action.type} is not supported by this IDE.")
            case _:
                return await self._debugging.do(asking, action)

    async def _open(self, asking: Asking, action: i.Open) -> i.Opened:
        """Show a file. No tool moves the cursor: the IDE's launcher does, where it is there."""
        offer = asking.first("open", "open_file_in_editor")
        text = await asking.text(action.path)
        await asking.call(offer.name, path=places.relative(action.path, asking.folder))
        path = places.absolute(action.path, asking.folder)
        line, column = 0, 0  # where the cursor is, is not told
        if action.line is not None:
            lines = text.count("\n") + 1
            # By its source, the launcher counts lines from 1 and columns from 0.
            wanted = min(action.line, lines), action.column or 1
            place = ["--line", str(wanted[0]), "--column", str(wanted[1] - 1), path]
            if self._hand_over is not None and await self._handed_over(asking, place):
                line, column = wanted
        return i.Opened(path=path, line=line, column=column, lines=text.count("\n") + 1)

    async def _open_folder(self, asking: Asking, action: i.OpenFolder) -> i.FolderOpened:
        """Another project in place of this one, by the IDE's launcher: there is no tool for it."""
        named = places.absolute(action.path, asking.folder)
        path = await in_thread(lambda: os.path.realpath(named))
        if not await in_thread(lambda: os.path.isdir(path)):
            if await in_thread(lambda: os.path.exists(path)):
                raise NotADirectory(f"{action.path} is no folder.")
            raise FileMissing(f"There is no folder {action.path}.")
        if not await self._handed_over(asking, [path]):
            raise IdeFailed(f"The IDE did not take the folder {action.path}.")
        before = asking.folder
        await self._wire.turn_to(path)
        self._looking = None  # what was being looked at is the folder before
        try:
            await asyncio.wait_for(self.until_ready(), asking.left())
        except (asyncio.TimeoutError, TimedOut):
            told = phase(await self._facts())
            if not (await self._facts()).is_open:
                await self._wire.turn_to(before)
            raise IdeNotReady(
                f"The IDE has not opened {action.path} in time: {told[0].replace('_', ' ')}."
                f" {told[1]}".strip()
            ) from None
        return i.FolderOpened(path=path)

    async def _handed_over(self, asking: Asking, arguments: Sequence[str]) -> bool:
        assert self._hand_over is not None  # else it is not among what can be done
        try:
            return await asyncio.wait_for(self._hand_over(arguments), asking.left())
        except asyncio.TimeoutError:
            return False

    async def _command(self, asking: Asking, action: i.RunCommand) -> i.CommandResult:
        """An action of the IDE by its id, if the template allows it (some products have a tool)."""
        allowed = self._settings.commands
        if not any(
            action.id.startswith(each[:-1]) if each.endswith("*") else action.id == each
            for each in allowed
        ):
            raise Forbidden(
                f"The template does not allow the command {action.id}.",
                hint=f"It allows: {', '.join(allowed) or 'none'}.",
            )
        if action.args:
            raise asking.refuse("Commands of this IDE take no arguments.")
        offer = asking.first("command", "invoke_ide_action", "execute_action_by_id")
        said = await asking.call(offer.name, actionId=action.id)
        return i.CommandResult(value=said.data if said.data is not None else said.text[:10_000])

    # How it is.

    def _can(self) -> list[i.Verb]:
        return tools.can(self._wire.peer.offers, hands_over=self._hand_over is not None)

    async def _facts(self, seconds: float | None = None) -> Facts:
        """What can be seen of it; who asks at the same time is told the same. After ``seconds`` it
        is what is known without an answer."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.ensure_future(self._look())
        await asyncio.wait({self._looking}, timeout=seconds)
        if self._looking.done():
            return self._looking.result()
        shown: Sequence[Window] = ()
        with suppress(asyncio.TimeoutError):
            shown = await asyncio.wait_for(self._windows(), _LISTEN_SECONDS)
        return Facts(
            is_running=self._pid() is not None,
            seconds=self._age(),
            is_listening=True,
            is_connected=self._wire.is_connected,
            dialogs=dialogs_of(shown, self._name),
        )

    async def _look(self) -> Facts:
        if self._pid() is None:
            return Facts(is_running=False)
        age = self._age()
        shown = asyncio.ensure_future(self._windows())
        is_refused = is_answering = is_open = is_indexing = False
        is_listening = await self._is_listening()
        if is_listening:
            try:
                await self._wire.connect(_HELLO_SECONDS)
                is_open, is_indexing = await self._asked()
                is_answering = True
            except CarrelError:
                is_refused = self._wire.is_refused
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.shield(shown), 0.5)
        windows = shown.result() if shown.done() and not shown.cancelled() else []
        shown.cancel()
        return Facts(
            is_running=True,
            seconds=age,
            is_listening=is_listening,
            is_refused=is_refused,
            is_connected=self._wire.is_connected,
            is_answering=is_answering,
            is_open=is_open,
            is_indexing=is_indexing,
            dialogs=dialogs_of(windows, self._name),
        )

    async def _asked(self) -> tuple[bool, bool]:
        """Whether the folder is open and whether it is being indexed, as tools say: those that need
        the index tell that what they found is only a part (``partialResultReason``)."""
        loop = asyncio.get_running_loop()
        if loop.time() - self._listed > _RELIST_SECONDS:
            await self._wire.list_again(_ANSWER_SECONDS)
            self._listed = loop.time()
        asking = Asking(self._wire, _ANSWER_SECONDS, [])
        try:
            if asking.has("search_symbol"):
                said = await asking.call("search_symbol", q=_UNLIKELY, limit=1)
            else:
                said = await asking.call("get_all_open_file_paths")
        except IdeNotReady as error:
            is_index = "index" in error.message.lower() or "dumb" in error.message.lower()
            return is_index, is_index
        told = said.data if isinstance(said.data, dict) else {}
        return True, bool(told.get("partialResultReason"))

    async def _is_listening(self) -> bool:
        try:
            _, writer = await asyncio.wait_for(
                asyncio.open_connection("127.0.0.1", self._wire.port), _LISTEN_SECONDS
            )
        except (OSError, asyncio.TimeoutError):
            return False
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        return True
