"""What a selection holds: bytes by target, and what they mean as text, HTML and a picture.

A target names a form in which a program gives what was copied (ICCCM 2.0, section 2.6.2). Text
has several names, of which ours is UTF8_STRING. All of it is pure; what other programs say may be
anything, and what cannot be read as text has its bad bytes replaced.
"""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from dataclasses import dataclass, field

TEXT, HTML, PNG = "UTF8_STRING", "text/html", "image/png"
LATIN_1 = "STRING"  # the oldest programs' text
# What is saved of another program's selection, so that it can be offered again: the plain forms,
# and files as file managers copy them. Other pictures are made from the first when asked for.
KEPT = (TEXT, HTML, PNG, "text/uri-list", "x-special/gnome-copied-files", "text/rtf")
_TEXTS = (TEXT, "text/plain;charset=utf-8", "text/plain", "TEXT")
_CHARSET = '<meta charset="utf-8">'


@dataclass(frozen=True)
class Contents:
    """What a selection holds, by target; ``targets`` are all that its owner says it has."""

    parts: Mapping[str, bytes] = field(default_factory=dict)
    targets: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, *, text: str | None = None, html: str | None = None, image: bytes | None = None
    ) -> Contents:
        """What to offer; ``image`` is a PNG."""
        parts: dict[str, bytes] = {}
        if text is not None:
            parts[TEXT] = text.encode("utf-8", "replace")
        if html is not None:
            # Programs differ in what they take HTML of no charset for.
            told = html if "charset=" in html[:1024].lower() else _CHARSET + html
            parts[HTML] = told.encode("utf-8", "replace")
        if image is not None:
            parts[PNG] = image
        return cls(parts, tuple(parts))

    @property
    def text(self) -> str:
        """The text; empty if there is none."""
        if TEXT in self.parts:
            return self.parts[TEXT].decode("utf-8", "replace")
        return self.parts.get(LATIN_1, b"").decode("latin-1")

    @property
    def html(self) -> str | None:
        data = self.parts.get(HTML)
        return None if data is None else _decoded(data).removeprefix(_CHARSET)

    @property
    def image(self) -> bytes | None:
        """The picture, a PNG."""
        return self.parts.get(PNG)

    @property
    def size(self) -> int:
        return sum(len(data) for data in self.parts.values())

    def offered(self) -> dict[str, bytes]:
        """The same under every name by which programs ask for it."""
        offered = dict(self.parts)
        if TEXT in self.parts:
            offered |= dict.fromkeys(_TEXTS, self.parts[TEXT])
            try:
                offered[LATIN_1] = self.text.encode("latin-1")
            except UnicodeEncodeError:
                pass  # the oldest programs would get a text with holes
        return offered


def wanted(targets: tuple[str, ...], asked: tuple[str, ...]) -> list[str]:
    """The targets to ask an owner for who has ``targets``."""
    found = [target for target in asked if target in targets]
    if TEXT in asked and LATIN_1 in targets:
        found.append(LATIN_1)  # for where the first is refused
    return found


def _decoded(data: bytes) -> str:
    """HTML of another program: UTF-8, or UTF-16 as Firefox has it, by its first bytes."""
    marks = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
    encoding = marks.get(data[:2])
    if encoding is not None:
        return data[2:].decode(encoding, "replace")
    if data[1:2] == b"\0":
        return data.decode("utf-16-le", "replace")
    return data.removeprefix(codecs.BOM_UTF8).decode("utf-8", "replace")
