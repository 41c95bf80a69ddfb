"""The life of a desktop's IDE: started with the desktop, once more if it ends by itself, and asked.

It starts beside the desktop and is ready some time after it: what is asked of it before waits, as
long as its own ``seconds`` last. An IDE that ends by itself (closed by the agent, killed, crashed)
is started anew once, and the next state says so; after that it is ``ide_failed``, until a folder is
opened, which starts it again. That it has ended with its X server is not counted. One that hangs is
``not_answering``: nobody ends it, since it may hold what is not saved, and nothing else in the
desktop waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import nullcontext, suppress
from importlib import import_module
from typing import Any

from workspace import ide as i
from workspace.desktopd.hands import Hands
from workspace.desktopd.ide.adapter import Launch, Launched, check_allowed, is_acting
from workspace.desktopd.ide.ending import END_SECONDS, end_children
from workspace.desktopd.programs import Programs
from workspace.errors import CarrelError, IdeFailed, IdeNotReady

logger = logging.getLogger(__name__)

MAX_RESTARTS = 1
_MAX_NOTES = 20
_SLACK_SECONDS = 4.5  # for what an adapter does when its own time is over: less than callers give
_LEAST_SECONDS = 0.05
_HEALTH_SECONDS = 2.0
_SCREEN_SECONDS = 1.0  # in which one notices that a screen is gone, and its windows with it


def launch_of(kind: i.IdeKind) -> Launch:
    """How an IDE of that kind is started; loaded when it is first needed."""
    launch: Launch = import_module(f"workspace.desktopd.ide.{kind}").launch
    return launch


class Ides:
    """The IDE of one desktop; begins to start it when it is made, end it with ``aclose``."""

    def __init__(
        self,
        programs: Programs,
        settings: i.IdeSettings,
        hands: Hands,
        folder: str,
        launch: Launch | None = None,
    ) -> None:
        self._programs = programs
        self._settings = settings
        self._hands = hands
        self._folder = folder
        self._launch = launch
        self._launched: Launched | None = None
        self._failure: CarrelError | None = None
        self._restarts = 0
        self._notes: list[str] = []
        self._screen = asyncio.Event()
        self._screens_lost = 0
        self._changed = asyncio.Event()  # there is another launched, or a failure
        self._opening = asyncio.Lock()
        self._life = asyncio.ensure_future(self._live())

    async def aclose(self) -> None:
        """End it."""
        self._life.cancel()
        await asyncio.gather(self._life, return_exceptions=True)

    def on_screen(self, is_there: bool) -> None:
        """There is a screen to be shown on, or none any more."""
        if is_there:
            self._screen.set()
        elif self._screen.is_set():
            self._screen.clear()
            self._screens_lost += 1

    async def health(self) -> i.IdeHealth:
        """How it is; never waits for it long."""
        launched = self._launched
        if launched is None:
            told = i.IdeHealth(
                ide=self._settings.kind,
                phase="starting" if self._failure is None else "not_started",
                message=str(self._failure or ""),
            )
        else:
            try:
                told = await asyncio.wait_for(launched.adapter.health(), _HEALTH_SECONDS)
            except asyncio.TimeoutError:
                told = i.IdeHealth(
                    ide=self._settings.kind,
                    phase="not_answering",
                    message="It does not answer. Look at a screenshot: a dialog may hold it up.",
                )
        return told.model_copy(update={"restarts": self._restarts})

    async def do(self, action: i.IdeAction) -> i.IdeAnswer:
        """Do it once the IDE is ready, in ``action.seconds`` in all.

        Raises:
            Forbidden: the template does not permit it.
            HumanInControl: it changes something, and a person has control, or took it meanwhile.
            IdeNotReady: it was not ready in that time. IdeFailed: it has ended for good.
            CarrelError: as the adapter says.
        """
        check_allowed(action, self._settings)
        acts = is_acting(action)
        if acts:
            await self._hands.agents_turn()
        with self._hands.acting() if acts else nullcontext():
            if action.type != "open_folder":
                return await self._do(action)
            begun = asyncio.get_running_loop().time()
            try:
                await asyncio.wait_for(self._opening.acquire(), action.seconds)
            except asyncio.TimeoutError:
                raise IdeNotReady(
                    f"Another folder is being opened, for longer than {action.seconds:g} s.",
                    hint="Ask for the state to see which one, then open yours.",
                ) from None
            try:
                if self._failure is not None:
                    self._revive()
                spent = asyncio.get_running_loop().time() - begun
                left = max(_LEAST_SECONDS, action.seconds - spent)
                return await self._do(action.model_copy(update={"seconds": left}))
            finally:
                self._opening.release()

    async def _do(self, action: i.IdeAction) -> i.IdeAnswer:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + action.seconds
        launched = await self._ready(action.seconds)
        left = max(_LEAST_SECONDS, deadline - loop.time())
        asking = asyncio.ensure_future(
            launched.adapter.do(action.model_copy(update={"seconds": left}))
        )
        ends = [asyncio.ensure_future(child.exited.wait()) for child in launched.children]
        try:
            await asyncio.wait(
                {asking, *ends}, timeout=left + _SLACK_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
            if not asking.done():
                raise self._unanswered(action, launched)
            answer = asking.result()
        finally:
            for task in (asking, *ends):
                task.cancel()
            await asyncio.gather(asking, *ends, return_exceptions=True)
        if isinstance(answer, i.IdeState):
            answer = answer.model_copy(update={"notes": [*answer.notes, *self._notes]})
            self._notes.clear()
        return answer

    def _unanswered(self, action: i.IdeAction, launched: Launched) -> IdeFailed:
        if any(child.exit_code is not None for child in launched.children):
            return IdeFailed(f"The IDE ended before it answered to {action.type}.")
        return IdeFailed(
            f"The IDE did not answer to {action.type} in {action.seconds:g} s: it hangs.",
            hint="The rest of the desktop works. If it goes on, close the IDE's window: it is "
            "started anew once.",
        )

    async def _ready(self, seconds: float) -> Launched:
        """The IDE, as soon as it is ready; raises IdeNotReady after ``seconds``, or IdeFailed."""
        try:
            return await asyncio.wait_for(self._until_ready(), seconds)
        except asyncio.TimeoutError:
            told = await self.health()
            raise IdeNotReady(
                f"The IDE is not ready after {seconds:g} s: {told.phase.replace('_', ' ')}."
                f" {told.message}".strip()
            ) from None

    async def _until_ready(self) -> Launched:
        while True:
            if self._failure is not None:
                raise type(self._failure)(self._failure.message, hint=self._failure.hint)
            self._changed.clear()
            launched = self._launched
            changed = asyncio.ensure_future(self._changed.wait())
            waits: list[asyncio.Future[Any]] = [changed]  # Any: two kinds of result
            if launched is not None:
                waits.append(asyncio.ensure_future(launched.adapter.until_ready()))
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                if launched is not None and launched is self._launched and waits[-1].done():
                    waits[-1].result()
                    return launched
            finally:
                for task in waits:
                    task.cancel()
                await asyncio.gather(*waits, return_exceptions=True)

    # Its life.

    def _revive(self) -> None:
        self._failure, self._restarts = None, 0
        self._life = asyncio.ensure_future(self._live())

    async def _live(self) -> None:
        try:
            while True:
                lost = self._screens_lost
                launched = await self._start()
                try:
                    how = await _until_ended(launched)
                finally:
                    self._launched = None
                    self._changed.set()
                    await _end(launched)
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._screen_lost(lost), _SCREEN_SECONDS)
                if self._screens_lost > lost:
                    self._note("The IDE ended with the desktop's X server, and was started anew.")
                    continue
                if self._restarts >= MAX_RESTARTS:
                    raise IdeFailed(
                        f"The IDE ended again ({how}), after it had been started anew.",
                        hint="Open a folder (open_folder): that starts it again.",
                    )
                self._restarts += 1
                self._note(f"The IDE ended ({how}) and was started anew; unsaved text is lost.")
        except CarrelError as error:
            logger.error("%s", error)
            self._failure = error
            self._changed.set()
        except Exception as error:  # a defect: the desktop goes on without an IDE
            logger.exception("The IDE cannot be kept.")
            self._failure = IdeFailed(f"The IDE cannot be kept: {type(error).__name__}.")
            self._changed.set()

    async def _start(self) -> Launched:
        launch = self._launch or launch_of(self._settings.kind)
        self._launched = await launch(
            self._programs, self._settings, self._folder, self._until_screen
        )
        self._changed.set()
        return self._launched

    async def _until_screen(self) -> None:
        await self._screen.wait()

    async def _screen_lost(self, before: int) -> None:
        while self._screens_lost == before:  # noqa: ASYNC110  # it is over in a second
            await asyncio.sleep(_LEAST_SECONDS)

    def _note(self, text: str) -> None:
        logger.warning("%s", text)
        self._notes = [*self._notes, text][-_MAX_NOTES:]


async def _until_ended(launched: Launched) -> str:
    """Wait for its end; how it ended."""
    ends = [asyncio.ensure_future(child.exited.wait()) for child in launched.children]
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for end in ends:
            end.cancel()
        await asyncio.gather(*ends, return_exceptions=True)
    child = next(child for child in launched.children if child.exit_code is not None)
    if child.exit_code == 0:
        return "it was closed"
    words = launched.last_words().strip()[-500:]
    code = child.exit_code or 0
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    return f"{child.name.rpartition('/')[2]} by {how}" + (f": {words}" if words else "")


async def _end(launched: Launched) -> None:
    """Close what is open to it, and end its processes with all that they started."""
    with suppress(CarrelError, asyncio.TimeoutError, OSError):
        await asyncio.wait_for(launched.adapter.aclose(), END_SECONDS)
    await end_children(launched.children)
