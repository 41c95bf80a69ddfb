"""Applications: those installed, and starting one and waiting for its window.

An application is started like any command, as a job that outlives the call. Which window is its
own is not always said: one that comes while it is waited for and belongs to the job's processes, or
is of its class, is taken at once; any other normal window only when the program has handed over to
one that ran already (and ended well), or when the time is up. One that ran already may show what it
was handed in a window that it had: then that is the answer. That no window came is no error: the
answer says so, and has the job as it is then.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from pydantic import ValidationError

from workspace.desktopd import desktopfiles
from workspace.desktopd.children import is_below
from workspace.desktopd.desktopfiles import Entry
from workspace.desktopd.programs import Programs
from workspace.desktopd.shell import Shell
from workspace.desktopd.threads import in_thread
from workspace.errors import Unsupported
from workspace.models import Application, ApplicationList, Launch, Launched, ProcessRequest, Window

if TYPE_CHECKING:
    from workspace.desktopd.screen import Screen

# How long one that ran already has for a new window before what it was handed is in an old one.
_HANDED_SECONDS = 2.0
# Terminals, and what makes each run the words that follow in a window of its own.
_TERMINALS = (
    ("xfce4-terminal", "--disable-server", "-x"),
    ("x-terminal-emulator", "-e"),
    ("xterm", "-e"),
)


async def listed(programs: Programs, *, limit: int, after: str | None) -> ApplicationList:
    """A page of what stands in the menus, by name."""
    entries = await in_thread(partial(desktopfiles.installed, programs.environment))
    rest = [each for each in entries if each.is_listed and (after is None or each.name > after)]
    page = [
        Application(name=each.name, title=each.title, categories=list(each.categories))
        for each in rest[:limit]
    ]
    return ApplicationList(
        applications=page, after=page[-1].name if len(rest) > limit and page else None
    )


async def launch(programs: Programs, shell: Shell, screen: Screen, wanted: Launch) -> Launched:
    """Start an application and wait for its window.

    Raises:
        ApplicationNotFound: there is none of that name; the hint has the nearest.
        Unsupported: its desktop file cannot be used. And what ``Shell.start`` raises.
    """
    entries = await in_thread(partial(desktopfiles.installed, programs.environment))
    entry = desktopfiles.find(entries, wanted.name)
    request = _request(entry, wanted.arguments, programs.environment.get("PATH"))
    before = frozenset(window.id for window in screen.windows.listed())
    job = (await shell.start(request)).id
    window = None
    if wanted.wait_seconds > 0:
        window = await _its_window(shell, screen, entry, job, before, wanted.wait_seconds)
    told = await shell.poll(job, wait_seconds=0, stdout_from=0, stderr_from=0)
    return Launched(job=told, window=window)


def _request(entry: Entry, arguments: Sequence[str], path: str | None) -> ProcessRequest:
    command = desktopfiles.argv(entry, arguments)
    if entry.in_terminal:
        command = [*_terminal(path), *command]
    try:
        if entry.folder:
            return ProcessRequest(command=command, background=True, cwd=entry.folder)
        return ProcessRequest(command=command, background=True)
    except ValidationError as error:
        raise Unsupported(f"The command line of {entry.name} is too long.") from error


def _terminal(path: str | None) -> Sequence[str]:
    for terminal in _TERMINALS:
        if shutil.which(terminal[0], path=path):
            return terminal
    raise Unsupported("It runs in a terminal, and the desktop has none.")


async def _its_window(
    shell: Shell, screen: Screen, entry: Entry, job: str, before: frozenset[int], seconds: float
) -> Window | None:
    child = shell.child(job)
    ends_at = asyncio.get_running_loop().time() + seconds

    def left() -> float:
        return max(0.0, ends_at - asyncio.get_running_loop().time())

    def own(there: Sequence[Window]) -> Window | None:
        return _first(there, before, lambda each: is_own(each, entry, child.pid))

    def any_new(there: Sequence[Window]) -> Window | None:
        return own(there) or _first(there, before, lambda each: each.kind == "normal")

    choosing = asyncio.ensure_future(screen.windows.choose(own, seconds))
    ending = asyncio.ensure_future(child.exited.wait())
    try:
        await asyncio.wait({choosing, ending}, return_when=asyncio.FIRST_COMPLETED)
        if choosing.done() and (found := choosing.result()) is not None:
            return found
    finally:
        for task in (choosing, ending):
            task.cancel()
        await asyncio.gather(choosing, ending, return_exceptions=True)
    if child.exit_code is None:
        return await screen.windows.choose(any_new, 0)
    if child.exit_code != 0:
        return await screen.windows.choose(own, 0)

    def handed_to(there: Sequence[Window]) -> Window | None:
        mine = (each for each in reversed(there) if is_of_class(each, entry))
        return next((each for each in mine if each.kind == "normal"), None)

    has_run = await screen.windows.choose(handed_to, 0) is not None
    new = await screen.windows.choose(any_new, min(left(), _HANDED_SECONDS) if has_run else left())
    return new or await screen.windows.choose(handed_to, 0)


def _first(
    there: Sequence[Window], before: frozenset[int], fits: Callable[[Window], bool]
) -> Window | None:
    # The topmost: a splash screen lies below what follows it.
    new = [window for window in reversed(there) if window.id not in before]
    return next((window for window in new if fits(window)), None)


def is_own(window: Window, entry: Entry, pid: int) -> bool:
    """Whether a new window is of the application that was started as the process ``pid``.

    One that does not say whose it is counts as its own.
    """
    if window.kind not in ("normal", "dialog"):
        return False
    return window.pid is None or is_below(window.pid, pid) or is_of_class(window, entry)


def is_of_class(window: Window, entry: Entry) -> bool:
    """Whether a window's class is what the application says, or else what such a class would be."""
    classes = [entry.window_class] if entry.window_class else [entry.short_name, entry.program]
    return window.window_class.casefold() in {each.casefold() for each in classes if each}
