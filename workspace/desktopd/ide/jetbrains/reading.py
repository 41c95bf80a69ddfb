"""What an IDE of JetBrains tells of code: nothing here changes anything."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, TypeVar

from workspace import ide as i
from workspace.desktopd.ide.jetbrains import places, tools
from workspace.desktopd.ide.jetbrains.asking import Asking
from workspace.desktopd.threads import in_thread
from workspace.errors import CarrelError, IdeNotReady, InvalidRequest

T = TypeVar("T")
MAX_CANDIDATES = 2000  # places where a name stands, of which each is asked what it means
_MAX_DOCUMENTATION = 100_000
_MAX_LINE = 2000  # of a declaration, that is looked into
# The names of the platform's severities (by its source); a language may have others of its own.
_SEVERITIES: dict[str, i.Severity] = {
    "ERROR": "error",
    "WARNING": "warning",
    "STRONG WARNING": "warning",
    "SERVER PROBLEM": "warning",
    "WEAK WARNING": "information",
    "INFORMATION": "information",
    "INFO": "information",
}
_ORDER: Sequence[i.Severity] = ("error", "warning", "information", "hint")
# The tools name no kinds: what a declaration begins with tells them, where it is one of these.
_KINDS = {
    "class": "class", "object": "class", "interface": "interface", "trait": "interface",
    "enum": "enum", "struct": "struct", "record": "struct", "def": "function", "fun": "function",
    "func": "function", "function": "function", "fn": "function", "const": "constant",
    "let": "variable", "var": "variable", "val": "variable", "type": "class",
}  # fmt: skip


async def state(asking: Asking) -> i.IdeState:
    """What is open. The tools tell no selection, nor what is not saved: the IDE saves by itself."""
    said = await asking.call(asking.first("state", "get_all_open_file_paths").name)
    told = tools.as_object("get_all_open_file_paths", said)
    paths = told.get("openFiles")
    open_files = [
        i.OpenFile(path=places.absolute(path, asking.folder))
        for path in (paths if isinstance(paths, list) else [])[:1000]
        if isinstance(path, str)
    ]
    active = tools.string(told.get("activeFilePath"))
    nowhere = i.Range(line=0, column=0, end_line=0, end_column=0)
    return i.IdeState(
        folder=asking.folder,
        files=open_files,
        active=i.Editor(path=places.absolute(active, asking.folder), selection=nowhere)
        if active
        else None,
        debugging=await _session(asking),
    )


async def _session(asking: Asking) -> str | None:
    if not asking.has("xdebug_get_debugger_status"):
        return None
    told = (await asking.call("xdebug_get_debugger_status")).data
    sessions = tools.objects(told.get("sessions")) if isinstance(told, dict) else []
    live = [each for each in sessions if each.get("state") != "stopped"]
    return tools.string(live[0].get("name"), 200) if live else None


async def diagnostics(asking: Asking, action: i.GetDiagnostics) -> i.Diagnostics:
    """The problems of a file, or of the files that are open, at rest: the tools wait for that."""
    offer = asking.first("diagnostics", "lint_files", "get_file_problems")
    if action.path is None:
        paths = [each.path for each in (await state(asking)).files]
        paths = [path for path in paths if path.startswith(asking.folder + "/")]
    else:
        paths = [places.absolute(action.path, asking.folder)]
        await asking.text(action.path)  # it says better than the IDE what is wrong with a path
    names = [places.relative(path, asking.folder) for path in paths]
    if offer.name == "lint_files":
        found, is_whole = await _linted(asking, names, action) if names else ([], True)
    else:
        found, is_whole = [], True
        for name in names:
            told, is_done = await _problems(asking, name, action)
            found, is_whole = found + told, is_whole and is_done
    least = _ORDER.index(action.least)
    found = [each for each in found if _ORDER.index(each.severity) <= least]
    found.sort(key=lambda each: (_ORDER.index(each.severity), each.path, each.range.line))
    page, following = _page(found, action.after, action.limit)
    return i.Diagnostics(diagnostics=page, total=len(found), next=following, is_settled=is_whole)


async def _linted(
    asking: Asking, names: list[str], action: i.GetDiagnostics
) -> tuple[list[i.Diagnostic], bool]:
    # "warning" is the least that it tells, weak ones (our "information") among them.
    said = await asking.call(
        "lint_files",
        files=names,
        min_severity="error" if action.least == "error" else "warning",
        timeout=asking.own_timeout(),
    )
    told = tools.as_object("lint_files", said)
    found: list[i.Diagnostic] = []
    is_whole = told.get("more") is not True
    for item in tools.objects(told.get("items")):
        name, why = tools.string(item.get("filePath")), tools.string(item.get("notAnalyzedReason"))
        if why and action.path is not None:
            raise InvalidRequest(f"The IDE does not look into {action.path}: {why}.")
        is_whole = is_whole and item.get("timedOut") is not True
        found += await _told(asking, name, tools.objects(item.get("problems")))
    return found, is_whole


async def _problems(
    asking: Asking, name: str, action: i.GetDiagnostics
) -> tuple[list[i.Diagnostic], bool]:
    said = await asking.call(
        "get_file_problems",
        path=name,
        errorsOnly=action.least == "error",
        timeout=asking.own_timeout(),
    )
    told = tools.as_object("get_file_problems", said)
    problems = tools.objects(told.get("errors"))
    return await _told(asking, name, problems), told.get("timedOut") is not True


async def _told(asking: Asking, name: str, problems: list[dict[str, Any]]) -> list[i.Diagnostic]:
    if not problems:
        return []
    try:
        text = await asking.text(name)
    except CarrelError:
        text = ""  # it went away meanwhile, or is not on this disk
    return [
        i.Diagnostic(
            path=places.absolute(name, asking.folder),
            range=places.range_at(
                text, tools.number(each.get("line")), tools.number(each.get("column"))
            ),
            severity=_SEVERITIES.get(
                tools.string(each.get("severity")).upper().replace("_", " "), "hint"
            ),
            message=tools.string(each.get("description")),
            source="JetBrains",
            code=tools.string(each.get("inspectionId"), 200),
        )
        for each in problems
    ]


async def symbols(asking: Asking, action: i.GetSymbols) -> i.Symbols:
    """Symbols by a part of their name. The tools list none of a file."""
    offer = asking.first("symbols", "search_symbol")
    if action.query is None:
        raise asking.refuse("This IDE lists no symbols of a file: ask for some by a query.")
    said = await asking.call(
        offer.name, q=action.query, limit=min(5000, action.after + action.limit + 1)
    )
    told = tools.as_object(offer.name, said)
    _whole(told)
    items = [each for each in tools.objects(told.get("items")) if each.get("filePath")]
    page, following = _page(items, action.after, action.limit)
    texts: dict[str, str] = {}
    found = [await _symbol(asking, each, texts) for each in page]
    return i.Symbols(symbols=found, total=len(items), next=following)


async def _symbol(asking: Asking, item: dict[str, Any], texts: dict[str, str]) -> i.Symbol:
    name = tools.string(item["filePath"])
    if name not in texts:
        try:
            texts[name] = await asking.text(name)
        except CarrelError:
            texts[name] = ""
    begin = tools.number(item.get("startLine")), tools.number(item.get("startColumn"))
    end = tools.number(item.get("endLine"), begin[0]), tools.number(item.get("endColumn"), begin[1])
    line = places.line_of(texts[name], begin[0])[:_MAX_LINE]
    # Whether the range is the name's or the whole declaration's differs by language (assumed).
    word, _ = places.word_at(line, begin[1])
    declared = re.search(r"(\w+)\s+" + re.escape(word), line) if word else None
    if word in _KINDS and (named := re.search(rf"{word}\s+(\w+)", line)):
        declared, word = re.match(r"(\w+)", word), named.group(1)
    return i.Symbol(
        name=word or line.strip()[:200],
        kind=_KINDS.get(declared.group(1), "") if declared else "",
        path=places.absolute(name, asking.folder),
        range=i.Range(line=begin[0], column=begin[1], end_line=end[0], end_column=end[1]),
    )


class Meaning:
    """What stands at a place: where it is declared, and what the IDE's documentation says."""

    def __init__(self, told: dict[str, Any], folder: str) -> None:
        info = told.get("symbolInfo")
        info = info if isinstance(info, dict) else {}
        declared = tools.string(info.get("declarationFile"))
        self.path = places.absolute(declared, folder) if declared else ""
        self.line = tools.number(info.get("declarationLine"), 0)
        self.name = tools.string(info.get("name"), 1000)
        self.code = tools.string(info.get("declarationText")).replace("<…>", "").strip("\n")
        self.documentation = tools.string(told.get("documentation"), _MAX_DOCUMENTATION)


async def meaning(asking: Asking, path: str, line: int, column: int) -> Meaning:
    offer = asking.first("what stands at a place", "get_symbol_info")
    said = await asking.call(
        offer.name, path=places.relative(path, asking.folder), line=line, column=column
    )
    told = tools.as_object(offer.name, said)
    _whole(told)
    return Meaning(told, asking.folder)


async def hover(asking: Asking, action: i.GetHover) -> i.Hover:
    text = await asking.text(action.path)
    found = await meaning(asking, action.path, action.line, places.column_of(action, text))
    return i.Hover(text=found.documentation or (f"```\n{found.code}\n```" if found.code else ""))


async def definition(asking: Asking, action: i.GetDefinition) -> i.Locations:
    """Where it is declared. At a declaration itself the tool tells none: it is that place."""
    text = await asking.text(action.path)
    column = places.column_of(action, text)
    found = await meaning(asking, action.path, action.line, column)
    word, _ = places.word_at(places.line_of(text, action.line), column)
    if found.path and found.line:
        at = await _declared(asking, found, word)
    elif found.documentation and word:
        at = _location(places.absolute(action.path, asking.folder), text, action.line, column)
    else:
        return i.Locations(type="definition", locations=[], total=0)
    return i.Locations(type="definition", locations=[at], total=1)


async def _declared(asking: Asking, found: Meaning, word: str) -> i.Location:
    try:
        text = await asking.text(found.path)
    except CarrelError:  # in an archive, or not in this desktop
        text = ""
    line = places.line_of(text, found.line)
    name = found.name or word
    at = re.search(rf"(?<!\w){re.escape(name)}(?!\w)", line) if name else None
    return _location(found.path, text, found.line, places.column_at(line, at.start() if at else 0))


async def references(asking: Asking, action: i.GetReferences) -> i.Locations:
    """Where it is used, its declaration among them.

    No tool finds usages. So each place where the name stands is asked what it means, and those
    that mean the same are told: what is used by another name (an import as, say) is not found.
    """
    text = await asking.text(action.path)
    column = places.column_of(action, text)
    word, _ = places.word_at(places.line_of(text, action.line), column)
    if not word:
        return i.Locations(type="references", locations=[], total=0)
    wanted = await _identity(asking, action.path, action.line, column)
    found: list[i.Location] = []
    for each in await in_thread(lambda: _candidates(word, asking.folder)):
        if await _identity(asking, each.path, each.range.line, each.range.column) == wanted:
            found.append(each)
    page, following = _page(found, action.after, action.limit)
    return i.Locations(type="references", locations=page, total=len(found), next=following)


async def _identity(asking: Asking, path: str, line: int, column: int) -> tuple[str, int]:
    found = await meaning(asking, path, line, column)
    if found.path and found.line:
        return found.path, found.line
    return places.absolute(path, asking.folder), line  # a declaration tells none: it is itself


def _candidates(word: str, folder: str) -> list[i.Location]:
    whole = places.pattern_of(word)
    found: list[i.Location] = []
    for name, text in places.files_with(word, folder):
        path = places.absolute(name, folder)
        for number, line in enumerate(text.split("\n"), 1):
            for at in whole.finditer(line):
                begin = places.column_at(line, at.start())
                end = places.column_at(line, at.end())
                found.append(
                    i.Location(
                        path=path,
                        range=i.Range(line=number, column=begin, end_line=number, end_column=end),
                        text=line.strip()[:1000],
                    )
                )
                if len(found) >= MAX_CANDIDATES:
                    return found
    return found


def _location(path: str, text: str, line: int, column: int) -> i.Location:
    return i.Location(
        path=path,
        range=places.range_at(text, line, column),
        text=places.line_of(text, line).strip()[:1000],
    )


def _whole(told: dict[str, Any]) -> None:
    """Raises IdeNotReady of an answer that is only a part because the IDE indexes."""
    if reason := tools.string(told.get("partialResultReason"), 500):
        raise IdeNotReady(f"The IDE is not ready: {reason}")


def _page(found: Sequence[T], after: int, limit: int) -> tuple[list[T], int | None]:
    page = list(found[after : after + limit])
    end = after + len(page)
    return page, end if end < len(found) else None
