"""Which tools of the IDE do what is asked, as its version has them.

Names and parameters are those of the plug-in's published source (2025.2 to 2026.2) and of its
documentation. They differ by version and product, so each call goes by what ``tools/list`` tells:
a tool that is not there is not called, and a parameter that it does not know is left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, get_args

from workspace import ide as i
from workspace.desktopd.ide.jetbrains.wire import Offer, Said
from workspace.errors import (
    CarrelError,
    EditConflict,
    FileMissing,
    Forbidden,
    IdeFailed,
    IdeNotReady,
    InvalidRequest,
    NotDebugging,
    Unsupported,
)

# A verb can be done if all tools of one of its groups are there.
NEEDS: Mapping[i.Verb, tuple[tuple[str, ...], ...]] = {
    "open": (("open_file_in_editor",),),
    "state": (("get_all_open_file_paths",),),
    "diagnostics": (("lint_files",), ("get_file_problems",)),
    "symbols": (("search_symbol",),),
    "definition": (("get_symbol_info",),),
    "references": (("get_symbol_info",),),
    "hover": (("get_symbol_info",),),
    "rename": (("rename_refactoring",),),
    "apply_edit": (("replace_text_in_file",), ("apply_patch",), ("create_new_file",)),
    "format": (("reformat_file",),),
    "run_task": (("execute_run_configuration",), ("execute_terminal_command",)),
    "run_tests": (("execute_run_configuration",), ("execute_terminal_command",)),
    "debug": (("xdebug_start_debugger_session", "xdebug_control_session"),),
    "terminal": (("execute_terminal_command",),),
    "command": (("invoke_ide_action",), ("execute_action_by_id",)),
}
# One parameter, by the names that versions give it.
_PATHS = ("filePath", "pathInProject", "filePathInProject", "path", "files")
_PROJECTS = ("projectPath", "rootFolder")
_SAID: tuple[tuple[str, type[CarrelError]], ...] = (
    (r"index(es|ing)? (was|were|is|are)? ?(not ready|in progress)|IndexNotReady|dumb mode"
     r"|while indexing|during indexing", IdeNotReady),
    (r"any open project|no (suitable|open) project|project is not open", IdeNotReady),
    (r"rejected|denied by the user|consent", Forbidden),
    (r"no occurrences found", EditConflict),
    (r"outside (of )?the project", InvalidRequest),
    (r"is binary|not a file|out of bounds|invalid (regex|glob)", InvalidRequest),
    (r"already exists", EditConflict),
    (r"debug session .* not found|no (active |suspended )?(debug )?session"
     r"|session (is )?not (suspended|found|paused)|must be (suspended|paused)", NotDebugging),
    (r"(unknown|no such) tool|tool \S+ (was )?not found", Unsupported),
    (r"not found|doesn't exist|does not exist|no such (file|directory)", FileMissing),
)  # fmt: skip


def can(offers: Mapping[str, Offer], *, hands_over: bool) -> list[i.Verb]:
    """The verbs that can be done; ``hands_over``: the IDE's launcher is there to open a folder."""
    verbs: list[i.Verb] = [
        verb
        for verb in get_args(i.Verb)
        if any(all(name in offers for name in group) for group in NEEDS.get(verb, ()))
    ]
    return ["open_folder", *verbs] if hands_over else verbs


def unsupported(what: str, verbs: list[i.Verb]) -> Unsupported:
    return Unsupported(what, hint=f"This IDE can: {', '.join(verbs) or 'nothing'}.")


def arguments(offer: Offer, folder: str, path: str | None = None, **more: Any) -> dict[str, Any]:
    """What a tool is called with: of it all, what this version of the tool knows."""
    known = offer.parameters
    told: dict[str, Any] = {
        name: value for name, value in more.items() if value is not None and name in known
    }
    if path is not None:
        name = next((name for name in _PATHS if name in known), _PATHS[0])
        told[name] = [path] if name == "files" else path
    # Documented of each tool, and said to be always given; a server that lists none knows it too.
    project = next((name for name in _PROJECTS if name in known), None)
    if project or not known:
        told[project or _PROJECTS[0]] = folder
    return told


def failure(tool: str, said: Said) -> CarrelError:
    """The error that a tool's own words tell of."""
    words = said.text.strip()[:1000] or "It does not say why."
    for pattern, cls in _SAID:
        if re.search(pattern, words, re.IGNORECASE):
            if cls is IdeNotReady:
                return IdeNotReady(f"The IDE is not ready: {words}")
            return cls(words)
    return IdeFailed(f"The IDE could not do it ({tool}): {words}")


def as_object(tool: str, said: Said) -> dict[str, Any]:
    """The JSON object that a tool answers with.

    Raises:
        IdeFailed: it is none.
    """
    if not isinstance(said.data, dict):
        raise IdeFailed(
            f"The IDE answered to {tool} what is no object of JSON: {said.text[:200]!r}."
        )
    return said.data


def objects(value: Any) -> list[dict[str, Any]]:
    """The objects of a list; what is none is left out."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def number(value: Any, otherwise: int = 1) -> int:
    """A line or column that an answer has, at least 1."""
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return value if is_number and 1 <= value <= 1 << 30 else otherwise


def string(value: Any, limit: int = 10_000) -> str:
    return value[:limit] if isinstance(value, str) else ""
