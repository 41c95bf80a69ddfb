"""In which phase an IDE of JetBrains is, by what can be seen of it from outside.

Pure: :func:`phase` decides by :class:`Facts`, which ``adapter`` gathers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from workspace import ide as i
from workspace.models import Window

START_SECONDS = 180.0  # after which one that does not answer is not only slow to start
_MAX_TOLD = 3


@dataclass(frozen=True)
class Facts:
    """What is known at one moment.

    ``seconds`` since it was started; ``is_listening``: its port takes connections;
    ``is_connected``: an MCP server said hello there; ``is_refused``: it wants another token;
    ``is_answering``: a tool answered in time; ``is_open``: the folder is open in it;
    ``is_indexing``: a tool said so.
    """

    is_running: bool
    seconds: float = 0.0
    is_listening: bool = False
    is_refused: bool = False
    is_connected: bool = False
    is_answering: bool = False
    is_open: bool = False
    is_indexing: bool = False
    dialogs: tuple[str, ...] = ()


def phase(facts: Facts) -> tuple[i.Phase, str]:
    """The phase, and a sentence of what it waits for."""
    if not facts.is_running:
        return "not_started", "The IDE does not run."
    if facts.is_refused:
        return "not_answering", "The IDE's MCP server refuses this desktop's token."
    if facts.is_answering and facts.is_open:
        if facts.is_indexing:
            return "indexing", "The IDE reads the project; until then it knows only a part of it."
        return "ready", f"It shows {_told(facts.dialogs)}." if facts.dialogs else ""
    if facts.dialogs:
        return "waiting_for_dialog", f"The IDE waits for {_told(facts.dialogs)} to be answered."
    if facts.is_answering:
        return "starting", "The IDE opens the folder."
    if facts.seconds < START_SECONDS and not facts.is_connected:
        return "starting", "The IDE starts."
    if not facts.is_listening:
        return "not_answering", (
            "The IDE runs, but its MCP server does not listen: it may be disabled "
            "(Settings, Tools, MCP Server), or another IDE has the port."
        )
    return "not_answering", "The IDE's MCP server does not answer."


def dialogs_of(windows: Sequence[Window], name: str) -> tuple[str, ...]:
    """The titles of the dialogs that an IDE shows, of all windows of the screen.

    Its windows have the class ``jetbrains-<product>`` (assumed of every product, as AWT makes it of
    the start-up class); before the first frame a dialog of the runtime has one that begins with
    ``jetbrains`` or ``com-intellij``, and is an ordinary window (assumed).
    """
    own = [
        window
        for window in windows
        if window.window_class.lower().startswith(("jetbrains", "com-intellij", name.lower()))
    ]
    told = [window.title or "a dialog" for window in own if window.kind == "dialog"]
    has_frame = any(window.kind == "normal" and _is_frame(window.title) for window in own)
    if not told and not has_frame:
        told = [window.title for window in own if _is_first_question(window.title)]
    return tuple(title[:200] for title in told[:10])


# A dash: how the frame of a project is titled (assumed). The welcome screen is no frame.
def _is_frame(title: str) -> bool:
    return " \u2013 " in title


def _is_first_question(title: str) -> bool:
    words = ("agreement", "license", "data sharing", "trust", "import settings", "welcome")
    return any(word in title.lower() for word in words)


def _told(dialogs: Sequence[str]) -> str:
    shown = ", ".join(f'"{title}"' for title in dialogs[:_MAX_TOLD])
    more = len(dialogs) - _MAX_TOLD
    return f"the dialog {shown}" + (f" and {more} more" if more > 0 else "")
