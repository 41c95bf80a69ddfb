"""Tasks, tests and commands that an IDE of JetBrains runs, in its own windows.

By its source, what runs on after a tool's own time goes on, and no tool ends it. So a command is
put under coreutils' ``timeout``, and a run configuration is ended by its mark in the environment
where it takes one (``supportsDynamicLaunchOverrides``), else by what is new below the IDE.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shlex
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from workspace import ide as i
from workspace.desktopd.children import descendants
from workspace.desktopd.ide.jetbrains import places, testing, tools
from workspace.desktopd.ide.jetbrains.asking import Asking
from workspace.desktopd.ide.jetbrains.wire import Said
from workspace.desktopd.threads import in_thread
from workspace.errors import FileMissing, InvalidRequest, TimedOut

_KILLED_BY_TIMEOUT = (124, 137)  # coreutils' timeout, and what it killed
_MARK = "CARREL_TASK"
_MAX_LINES = 2000  # that the tool tells at most
_CUT_MARKS = ("<<<...content truncated...>>>", "<truncated>")
_GRACE_SECONDS = 1.0


async def run_task(asking: Asking, action: i.RunTask, ide_pid: Callable[[], int | None]) -> i.Ran:
    """A run configuration by its name, or a command; ended when its time is over."""
    clock, seconds = _Clock(), action.seconds
    if action.command is not None:
        allowed = max(0.2, seconds - _GRACE_SECONDS)
        command = f"timeout -k 1 {allowed:.1f} /bin/bash -c {shlex.quote(action.command)}"
        code, output, is_cut = await _in_terminal(asking, command)
        if code in _KILLED_BY_TIMEOUT and clock.seconds() >= allowed - 0.1:
            code = None
    else:
        assert action.name is not None
        code, output, is_cut = await _configured(asking, action.name, ide_pid)
    return i.Ran(
        type="run_task",
        exit_code=code,
        output=output,
        is_cut=is_cut,
        elapsed_seconds=clock.seconds(),
    )


async def run_in_terminal(asking: Asking, action: i.RunInTerminal) -> i.Ran:
    """A command in the IDE's terminal; what has not ended goes on there."""
    clock = _Clock()
    code, output, is_cut = await _in_terminal(asking, action.command)
    return i.Ran(
        type="terminal",
        exit_code=code,
        output=output,
        is_cut=is_cut,
        elapsed_seconds=clock.seconds(),
    )


async def run_tests(
    asking: Asking, action: i.RunTests, ide_pid: Callable[[], int | None]
) -> i.Tested:
    """The tests, by a run configuration of tests where there is one and nothing is chosen, else by
    the project's runner in the IDE's terminal."""
    clock = _Clock()
    if action.path is not None:
        name = places.relative(action.path, asking.folder)
        if not await in_thread(lambda: os.path.exists(os.path.join(asking.folder, name))):
            raise FileMissing(f"There is no {action.path}.")
    configuration = None
    if action.path is None and action.pattern is None:
        configuration = testing.of_tests(await configurations(asking))
    if configuration is not None:
        ran = configuration
        code, output, is_cut = await _configured(asking, ran, ide_pid)
    else:
        path = None if action.path is None else places.relative(action.path, asking.folder)
        command = await in_thread(lambda: testing.runner(asking.folder, path, action.pattern))
        if command is None:
            raise asking.refuse(
                "There is no run configuration of tests, and no tests that are known how to run."
            )
        ran, allowed = command, max(0.2, action.seconds - _GRACE_SECONDS)
        code, output, is_cut = await _in_terminal(asking, f"timeout -k 1 {allowed:.1f} {ran}")
        if code in _KILLED_BY_TIMEOUT and clock.seconds() >= allowed - 0.1:
            code = None
    return testing.result(
        output,
        ran=ran,
        exit_code=code,
        is_cut=is_cut,
        elapsed_seconds=clock.seconds(),
        folder=asking.folder,
    )


async def configurations(asking: Asking) -> list[dict[str, Any]]:
    """The project's run configurations; none where the IDE cannot list them."""
    if not asking.has("get_run_configurations"):
        return []
    said = await asking.call("get_run_configurations")
    told = tools.as_object("get_run_configurations", said)
    return [each for each in tools.objects(told.get("configurations")) if each.get("name")]


async def _configured(
    asking: Asking, name: str, ide_pid: Callable[[], int | None]
) -> tuple[int | None, str, bool]:
    offer = asking.first("run configurations", "execute_run_configuration")
    known = await configurations(asking)
    chosen = next((each for each in known if each["name"] == name), None)
    if known and chosen is None:
        names = ", ".join(str(each["name"])[:100] for each in known[:20])
        raise InvalidRequest(f"There is no run configuration {name!r}.", hint=f"There are: {names}")
    mark = f"{_MARK}={secrets.token_hex(8)}"
    takes = chosen is not None and chosen.get("supportsDynamicLaunchOverrides") is True
    pid = ide_pid()
    before = set(descendants(pid)) if pid else set()
    try:
        said = await asking.call(
            offer.name,
            configurationName=name,
            timeout=asking.own_timeout(),
            waitForExit=True,
            envs=dict([mark.split("=")]) if takes else None,
        )
    except (asyncio.CancelledError, TimedOut):
        await _end(pid, before, mark)
        raise
    told = tools.as_object(offer.name, said)
    code = told.get("exitCode")
    code = code if isinstance(code, int) and told.get("timedOut") is not True else None
    if code is None:
        await _end(pid, before, mark)
    output, is_cut = await _whole_output(told)
    return code, output, is_cut


async def _in_terminal(asking: Asking, command: str) -> tuple[int | None, str, bool]:
    offer = asking.first("commands", "execute_terminal_command")
    said: Said = await asking.call(
        offer.name,
        command=command,
        executeInShell=True,
        reuseExistingTerminalWindow=True,
        timeout=asking.own_timeout(),
        maxLinesCount=_MAX_LINES,
        truncateMode="END",  # by its source: the end is kept
    )
    told = tools.as_object(offer.name, said)
    code = told.get("command_exit_code")
    is_over = isinstance(code, int) and told.get("is_timed_out") is not True
    output, is_cut = _cut(str(told.get("command_output") or ""))
    return (code if is_over else None), output, is_cut


async def _whole_output(told: dict[str, Any]) -> tuple[str, bool]:
    """The output: from the file that has it whole, if it lies on this disk."""
    output = str(told.get("output") or "")
    path = told.get("fullOutputPath")
    if isinstance(path, str) and path.startswith("/") and _CUT_MARKS[1] in output[-100:]:
        with suppress(OSError):
            return await in_thread(lambda: _tail(path))
    return _cut(output)


def _tail(path: str) -> tuple[str, bool]:
    limit = 4 * i.MAX_OUTPUT_CHARS
    begin = max(0, os.stat(path).st_size - limit)
    text = places.content_of(path, limit, begin=begin).decode(errors="replace")
    return text[-i.MAX_OUTPUT_CHARS :], begin > 0 or len(text) > i.MAX_OUTPUT_CHARS


def _cut(output: str) -> tuple[str, bool]:
    is_cut = any(mark in output[:100] or mark in output[-100:] for mark in _CUT_MARKS)
    return output[-i.MAX_OUTPUT_CHARS :], is_cut or len(output) > i.MAX_OUTPUT_CHARS


async def _end(pid: int | None, before: set[int], mark: str) -> None:
    """End what a run configuration left running: what has the mark, else what is new."""
    if pid is None:
        return
    new = [each for each in descendants(pid) if each not in before]
    marked = [each for each in new if _has(each, mark)]
    for number in (signal.SIGTERM, signal.SIGKILL):
        for each in marked or new:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(each, number)
        if number == signal.SIGTERM:
            await asyncio.sleep(_GRACE_SECONDS / 2)


def _has(pid: int, mark: str) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return mark.encode() in file.read(1 << 20).split(b"\0")
    except OSError:
        return False


class _Clock:
    def __init__(self) -> None:
        self._begin = asyncio.get_running_loop().time()

    def seconds(self) -> float:
        return round(asyncio.get_running_loop().time() - self._begin, 3)
