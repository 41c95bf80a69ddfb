"""AT-SPI's numbers and the words that are used for them here.

The names of roles and states are those of AT-SPI's own enumerations (atspi-constants.h), with a
blank where it has an underscore; "push button" is "button", as newer versions of it say.
"""

from __future__ import annotations

ROLES = (
    "invalid", "accelerator label", "alert", "animation", "arrow", "calendar", "canvas",
    "check box", "check menu item", "color chooser", "column header", "combo box", "date editor",
    "desktop icon", "desktop frame", "dial", "dialog", "directory pane", "drawing area",
    "file chooser", "filler", "focus traversable", "font chooser", "frame", "glass pane",
    "html container", "icon", "image", "internal frame", "label", "layered pane", "list",
    "list item", "menu", "menu bar", "menu item", "option pane", "page tab", "page tab list",
    "panel", "password text", "popup menu", "progress bar", "button", "radio button",
    "radio menu item", "root pane", "row header", "scroll bar", "scroll pane", "separator",
    "slider", "spin button", "split pane", "status bar", "table", "table cell",
    "table column header", "table row header", "tearoff menu item", "terminal", "text",
    "toggle button", "tool bar", "tool tip", "tree", "tree table", "unknown", "viewport", "window",
    "extended", "header", "footer", "paragraph", "ruler", "application", "autocomplete",
    "editbar", "embedded", "entry", "chart", "caption", "document frame", "heading", "page",
    "section", "redundant object", "form", "link", "input method window", "table row",
    "tree item", "document spreadsheet", "document presentation", "document text", "document web",
    "document email", "comment", "list box", "grouping", "image map", "notification", "info bar",
    "level bar", "title bar", "block quote", "audio", "video", "definition", "article", "landmark",
    "log", "marquee", "math", "rating", "timer", "static", "math fraction", "math root",
    "subscript", "superscript", "description list", "description term", "description value",
    "footnote", "content deletion", "content insertion", "mark", "suggestion", "menu button",
    "switch",
)  # fmt: skip
STATES = (
    "invalid", "active", "armed", "busy", "checked", "collapsed", "defunct", "editable",
    "enabled", "expandable", "expanded", "focusable", "focused", "has tooltip", "horizontal",
    "iconified", "modal", "multi line", "multiselectable", "opaque", "pressed", "resizable",
    "selectable", "selected", "sensitive", "showing", "single line", "stale", "transient",
    "vertical", "visible", "manages descendants", "indeterminate", "required", "truncated",
    "animated", "invalid entry", "supports autocompletion", "selectable text", "is default",
    "visited", "checkable", "has popup", "read only",
)  # fmt: skip
_BIT = {name: 1 << number for number, name in enumerate(STATES)}
ACTIVE, FOCUSED, EDITABLE, FOCUSABLE = (
    _BIT[name] for name in ("active", "focused", "editable", "focusable")
)
SHOWING, DEFUNCT, ICONIFIED, SELECTED = (
    _BIT[name] for name in ("showing", "defunct", "iconified", "selected")
)
SENSITIVE, ENABLED = _BIT["sensitive"], _BIT["enabled"]
# What every element on the screen has, or what tells nobody anything.
_UNTOLD = {
    "invalid", "visible", "showing", "sensitive", "enabled", "opaque", "horizontal", "vertical",
    "stale", "defunct", "resizable", "transient", "has tooltip", "selectable text", "animated",
    "manages descendants", "single line",
}  # fmt: skip

WINDOWS = {"frame", "window", "dialog", "alert", "file chooser", "color chooser", "font chooser"}
TEXTS = {"text", "entry", "password text", "terminal", "spin button", "editbar", "autocomplete"}
VALUES = {"slider", "spin button", "progress bar", "scroll bar", "dial", "level bar", "rating"}
TABLES = {"table", "tree table", "tree", "list", "list box", "document spreadsheet"}
# What one clicks, toggles, opens or types into.
ACTIONABLE = {
    "button", "toggle button", "check box", "radio button", "combo box", "menu", "menu item",
    "check menu item", "radio menu item", "tearoff menu item", "link", "page tab", "entry", "text",
    "password text", "spin button", "slider", "list item", "tree item", "icon", "switch",
    "menu button", "dial", "desktop icon", "column header", "table column header", "editbar",
    "autocomplete", "date editor", "terminal", "rating",
}  # fmt: skip
# What is in the compact tree even without a name. The rest is there for how it is laid out.
TOLD = (ACTIONABLE | WINDOWS) - {"menu item", "text", "icon", "list item", "tree item", "window"}


def role_name(number: object) -> str:
    return ROLES[number] if isinstance(number, int) and 0 <= number < len(ROLES) else "unknown"


def state_bits(words: object) -> int:
    """The two words in which AT-SPI sends states, as one number."""
    if not isinstance(words, list) or not all(isinstance(word, int) for word in words):
        return 0
    return sum(word << 32 * place for place, word in enumerate(words[:2]))


def state_names(bits: int) -> list[str]:
    """What is worth telling of states; "disabled" where what can be used now cannot."""
    names = [name for name in STATES if bits & _BIT[name] and name not in _UNTOLD]
    if not bits & (SENSITIVE | ENABLED):
        names.append("disabled")
    return names
