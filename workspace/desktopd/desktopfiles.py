"""Desktop files (Desktop Entry Specification 1.5): read, searched by name, made into a command.

Pure but for :func:`installed`, which reads the folders where they lie. A file that cannot be read,
that says it is hidden, or whose program is not there counts as not installed; nothing in a file
reaches a shell.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from workspace.errors import ApplicationNotFound, Unsupported

MAX_FILE_BYTES = 1 << 20
_MAX_FILES = 5000
_GROUP = "Desktop Entry"
_SUFFIX = ".desktop"

# One word of a command line; what is between double quotes has its own escapes.
_WORD = re.compile(r"""\s*((?:[^\s"'\\]|\\.|"(?:[^"\\]|\\.)*"|'[^']*')+)""", re.DOTALL)
_PIECE = re.compile(r""""((?:[^"\\]|\\.)*)"|'([^']*)'|\\(.)|([^"'\\]+)""", re.DOTALL)
_ESCAPES = {"s": " ", "n": "\n", "t": "\t", "r": "\r", "\\": "\\"}
_NOT_USED = frozenset("dDnNvm")  # field codes that the specification has given up


@dataclass(frozen=True)
class Entry:
    """One application's desktop file."""

    name: str  # its file's, without the suffix: "org.xfce.mousepad"
    title: str
    command: str
    file: str = ""
    icon: str = ""
    folder: str = ""
    try_command: str = ""
    window_class: str = ""
    categories: tuple[str, ...] = ()
    in_terminal: bool = False
    is_listed: bool = True  # in menus

    @property
    def short_name(self) -> str:
        """What it is called for short: "mousepad"."""
        return self.name.rpartition(".")[2]

    @property
    def program(self) -> str:
        """The name of its program, "" if the command cannot be read."""
        try:
            return os.path.basename(words(self.command)[0])
        except (Unsupported, IndexError):
            return ""


def parse(text: str, name: str, file: str = "") -> Entry | None:
    """The application that a desktop file describes; None if it describes none."""
    import configparser  # not before something is started

    parser = configparser.RawConfigParser(
        delimiters=("=",),
        comment_prefixes=("#",),
        strict=False,
        allow_no_value=True,
        empty_lines_in_values=False,
        default_section="\n",  # no group gives values to the others
    )
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # keys have cases
    try:
        parser.read_string(text)
        group = {key: value or "" for key, value in parser.items(_GROUP)}
    except configparser.Error:
        return None
    if group.get("Type", "Application") != "Application" or not group.get("Exec"):
        return None
    if group.get("Hidden") == "true":  # as if it were deleted
        return None
    told = {key: _unescape(value) for key, value in group.items()}
    return Entry(
        name=name,
        title=told.get("Name") or name,
        command=told["Exec"],
        file=file,
        icon=told.get("Icon", ""),
        folder=told.get("Path", ""),
        try_command=told.get("TryExec", ""),
        window_class=told.get("StartupWMClass", ""),
        categories=tuple(part for part in told.get("Categories", "").split(";") if part),
        in_terminal=group.get("Terminal") == "true",
        is_listed=group.get("NoDisplay") != "true",
    )


def _unescape(value: str) -> str:
    return re.sub(r"\\(.)", lambda match: _ESCAPES.get(match[1], match[0]), value)


def words(command: str) -> list[str]:
    """A command line's words, without their quotes.

    Raises:
        Unsupported: a quote is not closed.
    """
    found, position, command = [], 0, command.rstrip()
    while position < len(command):
        match = _WORD.match(command, position)
        if match is None:
            raise Unsupported(f"Its command line cannot be read: {command[:200]!r}.")
        found.append("".join(_unquoted(piece) for piece in _PIECE.finditer(match[1])))
        position = match.end()
    return found


def _unquoted(piece: re.Match[str]) -> str:
    double, single, escaped, plain = piece.groups()
    if double is not None:
        return re.sub(r'\\(["`$\\])', r"\1", double)
    return next(text for text in (single, escaped, plain) if text is not None)


def argv(entry: Entry, arguments: Sequence[str]) -> list[str]:
    """What to run: its words with the field codes filled in.

    The arguments stand where the first code for files or addresses does, else at the end.

    Raises:
        Unsupported: the command line is empty or cannot be read.
    """
    result: list[str] = []
    rest: list[str] | None = list(arguments)
    for word in words(entry.command):
        if word in ("%f", "%F", "%u", "%U"):
            result += rest or []
            rest = None
        elif word == "%i":
            result += ["--icon", entry.icon] if entry.icon else []
        elif not (len(word) == 2 and word[0] == "%" and word[1] in _NOT_USED):
            result.append(_filled(word, entry))
    if not result or not result[0]:
        raise Unsupported(f"The desktop file of {entry.name} names no program.")
    return result + (rest or [])


def _filled(word: str, entry: Entry) -> str:
    values = {"%": "%", "c": entry.title, "k": entry.file}
    return re.sub(r"%(.)", lambda match: values.get(match[1], ""), word, flags=re.DOTALL)


def find(entries: Sequence[Entry], name: str) -> Entry:
    """The application of that name: its file's, that one's last part, its title, its program.

    Raises:
        ApplicationNotFound: there is none; the hint has the nearest.
    """
    wanted = name.removesuffix(_SUFFIX).casefold()
    # One that stands in the menus comes before a helper of the same name.
    ordered = sorted(entries, key=lambda entry: not entry.is_listed)
    spelled = [(each.name, each.short_name, each.title, each.program) for each in ordered]
    for rank in range(4):
        for entry, names in zip(ordered, spelled, strict=True):
            if names[rank].casefold() == wanted:
                return entry
    near = _nearest(entries, wanted)
    hint = f"The nearest are: {', '.join(near)}." if near else None
    raise ApplicationNotFound(f"No application {name[:100]!r} is installed.", hint=hint)


def _nearest(entries: Sequence[Entry], wanted: str) -> list[str]:
    import difflib  # only for who is wrong

    owners: dict[str, str] = {}
    for entry in entries:
        for spelling in (entry.name, entry.short_name, entry.title):
            owners.setdefault(spelling.casefold(), entry.name)
    close = difflib.get_close_matches(wanted[:100], owners, n=5, cutoff=0.5)
    return list(dict.fromkeys(owners[spelling] for spelling in close))


def folders(environment: Mapping[str, str]) -> list[str]:
    """Where desktop files lie, those that go before others first."""
    data = [environment.get("XDG_DATA_HOME") or f"{environment['HOME']}/.local/share"]
    data += (environment.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share").split(":")
    return [os.path.join(folder, "applications") for folder in data if folder.startswith("/")]


def installed(environment: Mapping[str, str]) -> list[Entry]:
    """The applications that can be started in that environment, by name. It reads files."""
    found: dict[str, Entry | None] = {}
    for folder in folders(environment):
        for path in _files(folder, _MAX_FILES - len(found)):
            name = os.path.relpath(path, folder).replace("/", "-").removesuffix(_SUFFIX)
            if name not in found:
                text = _read(path)
                found[name] = parse(text, name, path) if text is not None else None
    programs = environment.get("PATH")
    usable = [
        entry
        for entry in found.values()
        if entry is not None
        and (not entry.try_command or shutil.which(entry.try_command, path=programs))
    ]
    return sorted(usable, key=lambda entry: entry.name)


def _files(folder: str, most: int) -> Iterator[str]:
    for below, _, names in os.walk(folder):
        for name in sorted(names):
            if name.endswith(_SUFFIX):
                if most <= 0:
                    return
                most -= 1
                yield os.path.join(below, name)


def _read(path: str) -> str | None:
    try:
        # Whatever lies there (a pipe, say) must not hold the daemon up.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_FILE_BYTES:
                return None
            return file.read(MAX_FILE_BYTES).decode("utf-8", "replace")
    except OSError:
        return None
