"""One page that is open, and what is known of it: its logs, its dialog, whether it still answers.

:meth:`Tab.bounded` is how everything is asked of a page. A dialog holds up whatever a page is
asked, a script that does not return too, and a crash for ever; each ends the asking at once or in
time, as an error that says which it was. A script that held the page up is stopped then, so that
the page goes on; one that cannot be stopped costs the page, which is opened again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, TypeVar

from workspace import browsing as b
from workspace.errors import (
    CarrelError,
    DialogOpen,
    NotActionable,
    PageFailed,
    StaleRef,
    TimedOut,
)

if TYPE_CHECKING:
    from playwright.async_api import CDPSession, ConsoleMessage, Dialog, Frame, Page, Request

logger = logging.getLogger(__name__)

T = TypeVar("T")

MAX_LINES = 500  # of each log, for each tab
MAX_TEXT = 2000
ANSWER_ALL = 100  # dialogs of one page that are answered by themselves, at most
_STOP_SECONDS = 1.0
_TITLE_SECONDS = 0.5
# What Playwright says of an element that it waited for in vain.
_NOT_ACTIONABLE = (
    "not visible",
    "not enabled",
    "not editable",
    "not stable",
    "not an <input>",
    "not a <select>",
    "did not find some options",
    "outside of the viewport",
)


class Tab:
    """A page; ``note`` is told what callers are to know of."""

    def __init__(self, id_: str, page: Page, engine: str, note: Callable[[str], None]) -> None:
        self.id = id_
        self.engine = engine
        self.page = page
        self.note = note
        self.cdp: CDPSession | None = None
        self.is_crashed = False
        self.address = page.url  # to come back to
        self.lines: deque[b.LogLine] = deque(maxlen=2 * MAX_LINES)
        self._next_line = 1
        self._dialog: Dialog | None = None
        self._interrupted = asyncio.Event()  # a dialog came, or it crashed
        self._answer_all: tuple[bool, int] | None = None  # how, and how many more
        self._frames: dict[Frame, int] = {}
        self._tasks: set[asyncio.Task[Any]] = set()  # Any: what they bring is of no use
        page.on("dialog", self._on_dialog)
        page.on("crash", self._on_crash)
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self._log("console", "error", str(error)))
        page.on("request", lambda request: self._on_request(request, None, ""))
        page.on("response", lambda answer: self._on_request(answer.request, answer.status, ""))
        page.on("requestfailed", self._on_failed)
        page.on("framenavigated", self._on_navigated)

    # Asking.

    async def bounded(self, work: Awaitable[T], seconds: float, what: str) -> T:
        """What ``work`` brings, within ``seconds``.

        Raises:
            DialogOpen: one is open, or came; ``work`` goes on once that is answered.
            TimedOut: it took longer; a script that held up the page was stopped.
            PageFailed: the page crashed.
            StaleRef, NotActionable, PageFailed: what Playwright said of it.
        """
        task: asyncio.Future[T] = asyncio.ensure_future(work)
        try:
            await self.look_for_dialog()
            self._check()
        except BaseException:
            _drop(task)
            raise
        interrupted = asyncio.ensure_future(self._interrupted.wait())
        try:
            both: list[asyncio.Future[Any]] = [task, interrupted]  # Any: two kinds of result
            await asyncio.wait(both, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            if self._dialog is not None:
                self._leave(task)
                self._check()
            _drop(task)
            self._check()
        except CarrelError:
            raise
        except asyncio.CancelledError:
            _drop(task)
            raise
        except Exception as error:  # Playwright's own kinds
            raise translated(error, what) from error
        finally:
            interrupted.cancel()
        raise TimedOut(
            f"{what} was not done after {seconds:g} s. {await self.recover()}",
            hint="Look at the page, or wait for something of it.",
        )

    def _check(self) -> None:
        if self.is_crashed:
            raise PageFailed(
                f"The page of tab {self.id} has crashed.", hint="Navigate, or reload it."
            )
        if self._dialog is not None:
            said = self._dialog.message[:500]
            raise DialogOpen(f"A dialog ({self._dialog.type}) is open, and says: {said!r}.")

    def _leave(self, task: asyncio.Future[Any]) -> None:  # Any: what it brings is of no use
        """Let it go on; what comes of it is seen by nobody."""
        kept = asyncio.ensure_future(_quiet(task))
        self._tasks.add(kept)
        kept.add_done_callback(self._tasks.discard)

    async def recover(self) -> str:
        """Have a page that may be held up by a script go on; what was done."""
        if await self._answers():
            return "The page itself answers."
        if self.cdp is not None:
            with suppress(Exception):
                await asyncio.wait_for(self.cdp.send("Runtime.terminateExecution"), _STOP_SECONDS)
            if await self._answers():
                return "A script had held up the page and was stopped."
        return "The page does not answer: navigate, or close the tab."

    async def _answers(self) -> bool:
        try:
            return bool(await asyncio.wait_for(self.page.evaluate("1"), _STOP_SECONDS))
        except Exception:
            return self._dialog is not None

    # Dialogs.

    @property
    def dialog(self) -> b.Dialog | None:
        """The one that is open."""
        if self._dialog is None:
            return None
        kind = self._dialog.type
        return b.Dialog.model_validate(
            {
                "kind": kind if kind in ("alert", "confirm", "prompt") else "beforeunload",
                "message": self._dialog.message[:MAX_TEXT],
                "default": (self._dialog.default_value or "")[:MAX_TEXT],
            }
        )

    def dialog_closed(self) -> None:
        """A person, or an answer, has closed the dialog."""
        self._forget_dialog()

    async def look_for_dialog(self) -> None:
        """Forget a dialog that was answered before its page could be listened to."""
        if self._dialog is None or self.is_crashed:
            return
        with suppress(Exception):
            await asyncio.wait_for(self.page.evaluate("1"), 0.1)
            self._forget_dialog()

    async def answer(self, action: b.AnswerDialog) -> None:
        """
        Raises:
            NotActionable: no dialog is open.
        """
        await self.look_for_dialog()
        dialog = self._dialog
        if dialog is None:
            raise NotActionable("No dialog is open.", hint="Read the page.")
        self._answer_all = (action.accept, ANSWER_ALL) if action.all else None
        self._forget_dialog()
        await self._give(dialog, action.accept, action.text)

    async def _give(self, dialog: Dialog, accept: bool, text: str | None) -> None:
        try:
            done = dialog.accept(text) if accept and text is not None else (
                dialog.accept() if accept else dialog.dismiss()
            )  # fmt: skip
            await asyncio.wait_for(done, _STOP_SECONDS)
        except Exception as error:
            raise NotActionable(f"The dialog is not open any more: {error}") from error

    def _on_dialog(self, dialog: Dialog) -> None:
        if self._answer_all is not None:
            accept, left = self._answer_all
            if left > 0:
                self._answer_all = (accept, left - 1)
                self._leave(asyncio.ensure_future(self._give(dialog, accept, None)))
                return
            self._answer_all = None
            self.note(f"{ANSWER_ALL} dialogs of tab {self.id} were answered, and more come.")
        self._dialog = dialog
        self._interrupted.set()

    def _forget_dialog(self) -> None:
        self._dialog = None
        if not self.is_crashed:
            self._interrupted.clear()

    # What happens to it.

    def _on_crash(self, _: Page) -> None:
        self.is_crashed = True
        self._dialog = None
        self._interrupted.set()
        self.note(f"The page of tab {self.id} has crashed.")

    def _on_navigated(self, frame: Frame) -> None:
        if frame is self.page.main_frame:
            self.address = frame.url
            self._answer_all = None
            self._frames.clear()

    def _on_console(self, message: ConsoleMessage) -> None:
        where = message.location
        line = f"{where.get('url', '')}:{where.get('lineNumber', 0)}" if where else ""
        self._log("console", message.type, message.text, where=line)

    def _on_failed(self, request: Request) -> None:
        self._on_request(request, None, request.failure or "failed")

    def _on_request(self, request: Request, status: int | None, why: str) -> None:
        """One line for each request, which grows by its answer."""
        if status is not None or why:
            for at in range(len(self.lines) - 1, -1, -1):
                line = self.lines[at]
                if (
                    line.kind == "network"
                    and line.status is None
                    and not line.where
                    and (line.text == request.url[:MAX_TEXT] and line.level == request.method)
                ):
                    self.lines[at] = line.model_copy(update={"status": status, "where": why[:200]})
                    return
        self._log(
            "network", request.method, request.url, status=status, where=why,
            type=request.resource_type,
        )  # fmt: skip

    def _log(
        self,
        kind: b.LogKind,
        level: str,
        text: str,
        *,
        status: int | None = None,
        where: str = "",
        type: str = "",
    ) -> None:
        self.lines.append(
            b.LogLine(
                id=self._next_line,
                at=datetime.now(timezone.utc),
                kind=kind,
                level=level[:40],
                text=text[:MAX_TEXT],
                status=status,
                where=where[:500],
                type=type[:40],
            )
        )
        self._next_line += 1

    # Elements.

    def number(self, frame: Frame) -> int:
        """The number that a frame's refs begin with."""
        return self._frames.setdefault(frame, len(self._frames) + 1)

    def place(self, ref: str) -> tuple[Frame, str]:
        """The frame of a ref, and its ref there.

        Raises:
            StaleRef: there is no such frame any more.
        """
        if not ref.startswith("f"):
            return self.page.main_frame, ref
        number, _, own = ref[1:].partition("r")
        for frame, known in self._frames.items():
            if known == int(number) and not frame.is_detached():
                return frame, f"r{own}"
        raise StaleRef(f"The frame of {ref} is not in the page any more.")

    # What is told of it.

    async def title(self) -> str:
        if self.is_crashed or self._dialog is not None:
            return ""
        with suppress(Exception):
            return (await asyncio.wait_for(self.page.title(), _TITLE_SECONDS))[:300]
        return ""

    async def state(self, *, status: int | None = None, notes: list[str]) -> b.PageState:
        return b.PageState(
            tab=self.id,
            url=self.page.url[:4096],
            title=await self.title(),
            dialog=self.dialog,
            status=status,
            notes=notes,
        )

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()


def _drop(task: asyncio.Future[Any]) -> None:  # Any: what it brings is of no use
    task.add_done_callback(_seen)
    task.cancel()


def _seen(task: asyncio.Future[Any]) -> None:  # Any: as above
    if not task.cancelled():
        task.exception()


async def _quiet(task: asyncio.Future[Any]) -> None:  # Any: as above
    with suppress(Exception):
        await asyncio.wait_for(task, 600)


def translated(error: Exception, what: str) -> CarrelError:
    """Playwright's words as ours."""
    text = str(error)
    first = text.split("\n", 1)[0]
    said = first.partition(": ")[2] or first
    if "net::" in text or "NS_ERROR" in text or "Cannot navigate" in text:
        return PageFailed(f"{what} failed: {said[:500]}")
    if "intercepts pointer events" in text:
        covering = next(line for line in text.split("\n") if "intercepts pointer" in line)
        return NotActionable(
            f"{what} cannot be done: {covering.strip(' -')[:300]}.",
            hint="Something lies over it: close that first, or scroll.",
        )
    for words in _NOT_ACTIONABLE:
        if words in text:
            line = next(line for line in reversed(text.split("\n")) if words in line)
            return NotActionable(f"{what} cannot be done: {line.strip(' -')[:300]}.")
    if type(error).__name__ == "TimeoutError":
        return TimedOut(f"{what} was not done in time.", hint="Look at the page, or wait for it.")
    if "crashed" in text:
        return PageFailed("The page has crashed.", hint="Navigate, or reload it.")
    if "has been closed" in text or "Target closed" in text or "detached" in text:
        return PageFailed(
            f"{what} was cut off: the page or the browser was closed.", hint="List the tabs."
        )
    return NotActionable(f"{what} cannot be done: {said[:500]}")
