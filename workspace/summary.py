"""What an observation says, in a sentence or two for a model or a person.

Titles, names and texts come from the programs of the desktop: they are quoted, shortened, and
shown with whatever cannot be printed in them escaped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from workspace.actions import Observation, Region

MAX_TEXT = 200
_MAX_NAME = 80
_MAX_PLACES = 3
_MOST = 0.8  # of the screen
_CARET = (10, 48)
_RESTARTED = "The X server died and the desktop was started anew: every window is gone."


def _as_it_is(region: Region) -> Region:
    return region


def summary_of(seen: Observation, place: Callable[[Region], Region] = _as_it_is) -> str | None:
    """What was seen; None if nobody looked. ``place`` puts regions into other coordinates."""
    restart = _RESTARTED if seen.restarted else ""
    if seen.effect == "not_observed":
        return restart or None
    changes, moving = _changes(seen, place), _moving(seen, place)
    return " ".join(part for part in (restart, changes, moving, _focus(seen)) if part)


def _changes(seen: Observation, place: Callable[[Region], Region]) -> str:
    if seen.effect == "no_visible_change":
        return "No visible change was seen."
    said = "The screen changed"
    total = seen.screen[0] * seen.screen[1]
    if any(each.width * each.height >= _MOST * total for each in seen.changed):
        said = "Most of the screen changed"
    elif seen.changed:
        said += f" at {_places(seen.changed, place)}"
    if seen.settled is None:
        return f"{said}."
    if seen.settled:
        return f"{said} and came to rest."
    still = f" at {_places(seen.still_changing, place)}" if seen.still_changing else ""
    return f"{said} and is still changing{still}."


def _moving(seen: Observation, place: Callable[[Region], Region]) -> str:
    is_told = seen.effect == "changed" and seen.settled is False
    moving = [each for each in seen.still_changing if not _is_caret(each)]
    if is_told or not moving:
        return ""
    return f"Something keeps moving by itself at {_places(moving, place)}."


def _is_caret(region: Region) -> bool:
    return region.width <= _CARET[0] and region.height <= _CARET[1]


def _places(regions: Sequence[Region], place: Callable[[Region], Region]) -> str:
    largest = sorted(regions, key=lambda region: -region.width * region.height)
    told = [
        f"({each.x}, {each.y}) {each.width}x{each.height}"
        for each in map(place, largest[:_MAX_PLACES])
    ]
    more = len(regions) - len(told)
    return ", ".join(told) + (f" and {more} more" if more > 0 else "")


def _focus(seen: Observation) -> str:
    window, element = seen.focused, seen.focused_element
    if window is None and element is None:
        return "No window has the focus now." if seen.focus_moved else ""
    inside = f"the window {quoted(window.title, _MAX_NAME)}" if window is not None else ""
    if element is not None:
        what = f"{_plain(element.role)} {quoted(element.name, _MAX_NAME)}"
        inside = f"{what} in {inside}" if inside else what
    said = f"The focus moved to {inside}" if seen.focus_moved else f"The focus is on {inside}"
    if element is not None and element.text is not None:
        said += f"; its text is now {quoted(element.text, MAX_TEXT)}"
    return f"{said}."


def quoted(text: str, limit: int) -> str:
    """``text`` in quotes, ``limit`` characters of it at most."""
    cut = len(text) - limit
    return f"'{_plain(text[:limit])}'" + (f" (and {cut} more characters)" if cut > 0 else "")


def _plain(text: str) -> str:
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)
