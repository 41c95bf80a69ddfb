"""What edits make of a text. Pure: the IDE is asked by ``editing``.

All edits of a file are meant of the text as it stands before them, so they must not overlap.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Sequence

from workspace import ide as i
from workspace.desktopd.ide.jetbrains import places
from workspace.errors import EditConflict, InvalidRequest

Span = tuple[int, int, str]  # from, up to (in a text as Python counts), and what comes there
_MAX_SHOWN = 200


def changed(text: str, edits: Sequence[i.FileEdit]) -> tuple[str, int]:
    """The text after the edits, and how many changes they were.

    Raises:
        EditConflict: it is not as an edit takes it to be. InvalidRequest: edits overlap, or a
        range is not in it.
    """
    spans: list[Span] = []
    for edit in edits:
        spans += _found(text, edit) if edit.old is not None else [_ranged(text, edit)]
    spans.sort(key=lambda span: span[:2])
    for before, after in itertools.pairwise(spans):
        if after[0] < before[1] or after[:2] == before[:2]:
            raise InvalidRequest(f"Two edits of {edits[0].path} change the same place.")
    for begin, end, new in reversed(spans):
        text = text[:begin] + new + text[end:]
    return text, len(spans)


def _found(text: str, edit: i.FileEdit) -> list[Span]:
    assert edit.old is not None
    old, new = edit.old.replace("\r\n", "\n"), edit.new.replace("\r\n", "\n")
    times = text.count(old)
    if times == 1 and text.find(old) != text.rfind(old):
        times = 2  # they overlap
    if times == 0:
        raise EditConflict(f"The text to replace does not stand in {edit.path}: {_shown(old)}")
    if times > 1 and not edit.all:
        raise EditConflict(
            f"The text to replace stands {times} times in {edit.path}: {_shown(old)}",
            hint='Give more of the text around it, or replace every one with "all": true.',
        )
    spans, begin = [], text.find(old)
    while begin >= 0:
        spans.append((begin, begin + len(old), new))
        begin = text.find(old, begin + len(old))
    return spans


def _ranged(text: str, edit: i.FileEdit) -> Span:
    assert edit.line is not None
    assert edit.end_line is not None
    lines = text.split("\n")
    if edit.column is None:  # whole lines: up to and with the last one's end
        if edit.end_line > len(lines):
            raise InvalidRequest(f"{edit.path} has {len(lines)} lines, not {edit.end_line}.")
        begin = _offset(lines, edit.line, 1)
        is_last = edit.end_line == len(lines)
        end = len(text) if is_last else _offset(lines, edit.end_line + 1, 1)
    else:
        assert edit.end_column is not None
        for line, column in ((edit.line, edit.column), (edit.end_line, edit.end_column)):
            if line > len(lines) or column > places.units(lines[line - 1]) + 1:
                raise InvalidRequest(f"There is no line {line}, column {column} in {edit.path}.")
        begin = _offset(lines, edit.line, edit.column)
        end = _offset(lines, edit.end_line, edit.end_column)
        if end < begin:
            raise InvalidRequest(f"A range of {edit.path} ends before it begins.")
    new = edit.new.replace("\r\n", "\n")
    stands = text[begin:end]
    if edit.expected is not None:
        expected = edit.expected.replace("\r\n", "\n")
        if stands != expected and not (edit.column is None and stands.rstrip("\n") == expected):
            raise EditConflict(f"In {edit.path} stands, where the edit is: {_shown(stands)}")
    if edit.column is None and new and stands.endswith("\n") and not new.endswith("\n"):
        new += "\n"  # whole lines stay lines
    return begin, end, new


def _offset(lines: list[str], line: int, column: int) -> int:
    before = sum(len(each) + 1 for each in lines[: line - 1])
    return before + places.index_of(lines[line - 1], column)


def unique(old: str, new: str) -> tuple[str, str]:
    """The least lines of ``old`` that stand there once and hold all that differs, and what they
    become: a tool that replaces text finds only that place, and fails if it has changed."""
    before, after = old.splitlines(keepends=True), new.splitlines(keepends=True)
    head = 0
    while head < min(len(before), len(after)) and before[head] == after[head]:
        head += 1
    tail = 0
    while tail < min(len(before), len(after)) - head and before[-1 - tail] == after[-1 - tail]:
        tail += 1
    while True:
        piece = "".join(before[head : len(before) - tail])
        # From both ends, for it may overlap itself.
        is_once = bool(piece) and old.find(piece) == old.rfind(piece)
        if is_once or (head == 0 and tail == 0):
            return piece, "".join(after[head : len(after) - tail])
        head, tail = max(0, head - 1), max(0, tail - 1)


def patch(path: str, old: str, new: str) -> str:
    """A unified diff in git's form, of a file that is there."""
    lines = [f"diff --git a/{path} b/{path}\n"]
    for line in difflib.unified_diff(
        old.splitlines(keepends=True), new.splitlines(keepends=True), f"a/{path}", f"b/{path}"
    ):
        lines.append(line if line.endswith("\n") else line + "\n\\ No newline at end of file\n")
    return "".join(lines)


def differences(old: str, new: str) -> int:
    """In how many places two texts differ, by lines."""
    matcher = difflib.SequenceMatcher(None, old.split("\n"), new.split("\n"), autojunk=False)
    return sum(tag != "equal" for tag, *_ in matcher.get_opcodes())


def _shown(text: str) -> str:
    return repr(text[:_MAX_SHOWN]) + ("..." if len(text) > _MAX_SHOWN else "")
