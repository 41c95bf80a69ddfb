"""Files of the project and places in them, as an IDE of JetBrains tells and takes them.

Its tools take paths relative to the project, and lines and columns from 1 (documented), columns in
the UTF-16 units of Java's strings (by its source), the end of a range excluded (documented). The
debugger tells files as URLs ("file:///..."), and lines from 1. Files are read from the disk: the
IDE's tools save what they change, and so does the IDE when it loses the focus.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from urllib.parse import unquote, urlparse

from workspace import ide as i
from workspace.desktopd.programs import from_os_error
from workspace.errors import FileMissing, InvalidRequest, IsADirectory, TooLarge

MAX_FILES = 20_000  # that are looked into for a word
MAX_SEARCHED_BYTES = 1 << 20  # of each
_SKIPPED = {"node_modules", "__pycache__", "venv", "site-packages"}
_WORD = re.compile(r"[^\W\d]\w*|\$\w+")


def absolute(path: str, folder: str) -> str:
    """Where a path lies that an agent or the IDE named."""
    if path.startswith("file:"):
        path = unquote(urlparse(path).path)
    return os.path.normpath(os.path.join(folder, path))


def relative(path: str, folder: str) -> str:
    """As tools take it.

    Raises:
        InvalidRequest: it is not below the folder; the IDE's tools reach nothing else.
    """
    whole = absolute(path, folder)
    if whole == folder or not whole.startswith(folder.rstrip("/") + "/"):
        raise InvalidRequest(
            f"{path} is not in the folder that is open, {folder}.",
            hint="Name a file below it, or open another folder with open_folder.",
        )
    return os.path.relpath(whole, folder)


def text_of(path: str, folder: str) -> str:
    """A file's text, its ends of lines as \\n.

    Raises:
        FileMissing, IsADirectory, Forbidden: it cannot be read. TooLarge, InvalidRequest: it is no
        text that an editor opens.
    """
    whole = absolute(path, folder)
    try:
        if os.path.isdir(whole):
            raise IsADirectory(f"{path} is a folder.")
        if not os.path.exists(whole):
            raise FileMissing(f"There is no {path}.")
        if not os.path.isfile(whole):
            raise InvalidRequest(f"{path} is no regular file.")
        content = content_of(whole, i.MAX_FILE_BYTES + 1)
    except OSError as error:
        raise from_os_error(error, path) from error
    if len(content) > i.MAX_FILE_BYTES:
        raise TooLarge(
            f"{path} has more than {i.MAX_FILE_BYTES >> 20} MiB: editors do not open it.",
            hint="Work on it with commands instead.",
        )
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise InvalidRequest(f"{path} is binary: it is no text in UTF-8.")
    return text.replace("\r\n", "\n")


def content_of(path: str, limit: int, *, begin: int = 0) -> bytes:
    """So much of a regular file. Raises OSError; of a pipe too, which nobody may ever write to."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", path)
        file.seek(begin)
        return file.read(limit)


def pattern_of(word: str) -> re.Pattern[str]:
    """A word that is no part of another."""
    return re.compile(rf"(?<!\w){re.escape(word)}(?!\w)")


def line_of(text: str, line: int) -> str:
    """A line of a text, from 1; empty past its end."""
    lines = text.split("\n")
    return lines[line - 1] if 1 <= line <= len(lines) else ""


def units(text: str) -> int:
    """How many UTF-16 units a text takes."""
    return len(text) + sum(ord(character) > 0xFFFF for character in text)


def index_of(line: str, column: int) -> int:
    """Where in a line, as Python counts, a column is; its end if that is past it."""
    left = column - 1
    for index, character in enumerate(line):
        if left <= 0:
            return index
        left -= 2 if ord(character) > 0xFFFF else 1
    return len(line)


def column_at(line: str, index: int) -> int:
    return units(line[:index]) + 1


def column_of(place: i.Rename | i.GetDefinition | i.GetReferences | i.GetHover, text: str) -> int:
    """The column of a place that may be told by a symbol.

    Raises:
        InvalidRequest: there is no such line, or the symbol does not stand in it.
    """
    if place.line > text.count("\n") + 1:
        raise InvalidRequest(f"{place.path} has {text.count(chr(10)) + 1} lines, not {place.line}.")
    line = line_of(text, place.line)
    if place.symbol is None:
        column = place.column or 1
        if place.column is None and (first := _WORD.search(line)):
            column = column_at(line, first.start())
        if column > units(line) + 1:
            raise InvalidRequest(
                f"Line {place.line} of {place.path} has {units(line)} columns, not {column}."
            )
        return column
    found = pattern_of(place.symbol).search(line)
    index = found.start() if found else line.find(place.symbol)
    if index < 0:
        raise InvalidRequest(
            f"{place.symbol!r} does not stand in line {place.line} of {place.path}.",
            hint=f"That line is: {line.strip()[:200]}",
        )
    return column_at(line, index)


def word_at(line: str, column: int) -> tuple[str, int]:
    """The identifier at a column, and the column where it begins; none: empty."""
    index = index_of(line, column)
    for found in _WORD.finditer(line):
        if found.start() <= index <= found.end():
            return found.group(), column_at(line, found.start())
    return "", column


def range_at(text: str, line: int, column: int) -> i.Range:
    """The identifier at a place, or the place alone: tools tell where something is, not its end."""
    word, begin = word_at(line_of(text, line), column)
    begin = begin if word else column
    return i.Range(line=line, column=begin, end_line=line, end_column=begin + units(word))


def files_with(word: str, folder: str) -> Iterator[tuple[str, str]]:
    """The files of the folder in which a word stands, and their texts; hidden ones left out.

    It looks into so many files and no more, none of them a link.
    """
    looked, wanted = 0, pattern_of(word)
    for parent, folders, names in os.walk(folder):
        if "pyvenv.cfg" in names:
            folders.clear()
            continue
        folders[:] = sorted(
            name for name in folders if name not in _SKIPPED and not name.startswith(".")
        )
        for name in sorted(names):
            path = os.path.join(parent, name)
            looked += 1
            if looked > MAX_FILES:
                return
            try:
                if os.path.islink(path):
                    continue
                content = content_of(path, MAX_SEARCHED_BYTES + 1)
                text = content.decode().replace("\r\n", "\n")
            except (OSError, UnicodeDecodeError):
                continue
            if len(content) <= MAX_SEARCHED_BYTES and wanted.search(text):
                yield os.path.relpath(path, folder), text
