"""How an IDE of JetBrains changes files: edits, renames, formatting, each saved and shown.

What is edited is worked out here, on the text as it stands on the disk, before anything is
changed; the IDE is then asked in a way that fails if the text is another by now, where it has such
a tool (``replace_text_in_file``, ``apply_patch``). ``create_new_file`` has no such guard: it is
used where the others are missing, right after the text was looked at once more.
"""

from __future__ import annotations

import asyncio
import os
import re

from workspace import ide as i
from workspace.desktopd.ide.jetbrains import edits, places, reading, tools
from workspace.desktopd.ide.jetbrains.asking import Asking
from workspace.desktopd.threads import in_thread
from workspace.errors import CarrelError, EditConflict, IdeFailed, IdeNotReady, InvalidRequest

_SAVE_SECONDS = 2.0  # in which a change is on the disk after the tool has answered


async def apply_edit(asking: Asking, action: i.ApplyEdit) -> i.Changed:
    """All of the edits or none.

    Raises:
        EditConflict: a file is not as an edit takes it to be, or became another meanwhile.
    """
    asking.first("edits", "replace_text_in_file", "apply_patch", "create_new_file")
    by_path: dict[str, list[i.FileEdit]] = {}
    for edit in action.edits:
        by_path.setdefault(places.relative(edit.path, asking.folder), []).append(edit)
    planned: list[tuple[str, str | None, str, int]] = []  # name, old (None: none), new, changes
    for name, wanted in by_path.items():
        planned.append(await _planned(asking, name, wanted))
    done: list[tuple[str, str | None, str, int]] = []
    for each in planned:
        try:
            await _write(asking, *each[:3])
        except CarrelError as error:
            if undone := await _undo(asking, done):
                raise IdeFailed(f"{error} Changed before, and not put back: {undone}.") from error
            raise
        done.append(each)
    await _show(asking, planned[0][0])
    return i.Changed(type="apply_edit", files=[_told(asking, each[0], each[3]) for each in planned])


async def _planned(
    asking: Asking, name: str, wanted: list[i.FileEdit]
) -> tuple[str, str | None, str, int]:
    if not any(edit.create for edit in wanted):
        old = await asking.text(name)
        new, changes = edits.changed(old, wanted)
        return name, old, new, changes
    if len(wanted) > 1:
        raise InvalidRequest(f"{name} is created and edited at once: put the whole text in new.")
    if await in_thread(lambda: os.path.lexists(places.absolute(name, asking.folder))):
        raise EditConflict(f"{name} is there already.")
    asking.first("new files", "create_new_file")
    return name, None, wanted[0].new, 1


async def _write(asking: Asking, name: str, old: str | None, new: str) -> None:
    if old == new:
        return
    if old is None:
        await asking.call("create_new_file", path=name, text=new)
    elif asking.has("replace_text_in_file") and old:
        piece, becomes = edits.unique(old, new)
        await asking.call(
            "replace_text_in_file",
            path=name,
            oldText=piece,
            newText=becomes,
            replaceAll=False,
            caseSensitive=True,
        )
    elif asking.has("apply_patch"):
        text = edits.patch(name, old, new)
        said = await asking.call("apply_patch", input=text)
        # It answers what it could not do as it does what it could: "0 out of 1 operations applied".
        counted = re.search(r"(\d+) out of (\d+) operations", said.text)
        if counted is None or counted.group(1) != counted.group(2):
            raise EditConflict(f"The IDE could not change {name}: {said.text.strip()[:500]}")
    else:
        if await asking.text(name) != old:
            raise EditConflict(f"{name} has changed while it was to be edited.")
        await asking.call("create_new_file", path=name, text=new, overwrite=True)
    if not await _changed_on_disk(asking, name, old):
        raise IdeFailed(f"The IDE said that it changed {name}, but the file is as it was.")


async def _changed_on_disk(asking: Asking, name: str, old: str | None) -> bool:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _SAVE_SECONDS
    while True:
        try:
            if await asking.text(name) != old:
                return True
        except CarrelError:
            pass  # it is not there yet, or is another's now
        if loop.time() > deadline:
            return False
        await asyncio.sleep(0.05)


async def _undo(asking: Asking, done: list[tuple[str, str | None, str, int]]) -> str:
    """Put back what was changed before; what of it could not be."""
    left: list[str] = []
    for name, old, new, _ in reversed(done):
        try:
            if old is None:
                path = places.absolute(name, asking.folder)
                if await asking.text(name) == new:
                    await in_thread(lambda path=path: os.unlink(path))  # type: ignore[misc]  # bound
                continue
            await _write(asking, name, new, old)
        except (CarrelError, OSError):
            left.append(name)
    return ", ".join(left)


async def _show(asking: Asking, name: str) -> None:
    """Have a person see it; that it cannot be shown makes it no less changed."""
    if asking.has("open_file_in_editor"):
        try:
            await asking.call("open_file_in_editor", path=name)
        except CarrelError:
            pass


async def format_file(asking: Asking, action: i.Format) -> i.Changed:
    offer = asking.first("formatting", "reformat_file")
    name = places.relative(action.path, asking.folder)
    before = await asking.text(name)
    await asking.call(offer.name, path=name)
    after = await asking.text(name)
    await _show(asking, name)
    changes = edits.differences(before, after)
    return i.Changed(type="format", files=[_told(asking, name, changes)] if changes else [])


async def rename(asking: Asking, action: i.Rename) -> i.Changed:
    """Rename what stands at a place. The IDE tells only how many files that changed, so which ones
    is found by comparing those that had the name.

    Raises:
        EditConflict: the new name is taken, or the symbol cannot be renamed.
        InvalidRequest: no name stands there, or the new one is none.
    """
    offer = asking.first("rename", "rename_refactoring")
    text = await asking.text(action.path)
    column = places.column_of(action, text)
    word, begin = places.word_at(places.line_of(text, action.line), column)
    if not word:
        raise InvalidRequest(f"No name stands in line {action.line} of {action.path} there.")
    name, line = places.relative(action.path, asking.folder), action.line
    if "line" not in offer.parameters and asking.has("get_symbol_info"):
        # Before 2026 it takes only a name, and renames what is declared by it in that file.
        found = await reading.meaning(asking, name, line, begin)
        if found.path and found.line:
            name = places.relative(found.path, asking.folder)
    before = await in_thread(
        lambda: {each: _seen(text, word) for each, text in places.files_with(word, asking.folder)}
    )
    said = await asking.call(
        offer.name,
        path=name,
        symbolName=word,
        newName=action.new_name,
        line=line,
        column=begin,
    )
    if isinstance(said.data, dict):
        _judge(said.data, word)
    files = await _renamed(asking, before, word)
    if isinstance(said.data, dict) and isinstance(moved := said.data.get("renamedFile"), dict):
        if path := tools.string(moved.get("path")):
            files.append(_told(asking, path, 1))
    await _show(asking, name)
    return i.Changed(type="rename", files=files)


def _judge(told: dict[str, object], word: str) -> None:
    """Raise what a rename's answer (2026 and later) tells of."""
    if told.get("applied") is True:
        return
    error = told.get("error")
    error = error if isinstance(error, dict) else {}
    kind, hint = tools.string(error.get("kind"), 100), tools.string(error.get("hint"), 1000)
    conflicts = [
        tools.string(each.get("description"), 300) for each in tools.objects(told.get("conflicts"))
    ]
    words = "; ".join(conflicts[:10]) or hint or "The IDE does not say why."
    if kind == "index_not_ready":
        raise IdeNotReady(f"The IDE is not ready: {words}")
    if kind in ("new_name_invalid", "ambiguous_symbol", "new_name_matches_current"):
        raise InvalidRequest(words)
    if kind == "write_failed":
        raise IdeFailed(f"{word} was renamed in part: {words}", hint="Read the files again.")
    raise EditConflict(f"{word} was not renamed: {words}", hint="Choose another name or place.")


async def _renamed(
    asking: Asking, before: dict[str, tuple[int, int]], old: str
) -> list[i.ChangedFile]:
    """Which files are others now, as soon as one is: the IDE has saved them then."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _SAVE_SECONDS
    while True:
        files = []
        for name, seen in before.items():
            try:
                now = _seen(await asking.text(name), old)
            except CarrelError:
                continue
            if now != seen:
                files.append(_told(asking, name, max(1, seen[1] - now[1])))
        if files or loop.time() > deadline:
            return files
        await asyncio.sleep(0.05)


def _seen(text: str, word: str) -> tuple[int, int]:
    """A text by its hash, and how often a word stands in it: a whole project is not kept."""
    return hash(text), len(places.pattern_of(word).findall(text))


def _told(asking: Asking, name: str, changes: int) -> i.ChangedFile:
    return i.ChangedFile(path=places.absolute(name, asking.folder), changes=changes)
