"""The chain of events: what each line's hash is of, and what is wrong where it does not hold. Pure.

The lines of one workspace are a chain, those of none another, called ``""``. A line counts on
(``seq``, from 1), and its ``hash`` is, in hexadecimal, SHA-256 of the ASCII text of this JSON array
(no spaces, keys sorted, what is not ASCII escaped, the time in UTC to the microsecond)::

    [hash of the line before, chain, seq, "2026-01-02T03:04:05.678901+00:00", actor, kind, data]

Before a chain's first line stands :data:`GENESIS`. Anybody can compute that, also anew: whoever may
write to the database can forge a whole chain with its head. Checkpoints (``checkpoints``) are
against that: they are signed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, Literal, NamedTuple

from controller.store.databases import to_json

GENESIS = "0" * 64
MOST_TOLD = 20  # findings of one chain; the rest is counted
_MOST_MISSING = 10_000  # seqs of one chain that are remembered one by one
What = Literal["changed", "removed", "inserted", "reordered", "head", "base", "checkpoint", "file"]


class NewEvent(NamedTuple):
    """An event before it has its id."""

    at: datetime
    workspace_id: str | None
    actor: str
    kind: str
    data: dict[str, Any]  # Any: JSON values


class Head(NamedTuple):
    """A chain's last line."""

    seq: int = 0
    hash: str = GENESIS


class Linked(NamedTuple):
    """A new line with its place in its chain; ``data`` is the JSON text that is kept."""

    event: NewEvent
    data: str
    seq: int
    hash: str


class Line(NamedTuple):
    """A line as it is kept."""

    id: int
    at: datetime
    chain: str
    actor: str
    kind: str
    data: Any  # Any: JSON values
    seq: int
    hash: str


class Finding(NamedTuple):
    """Something that is wrong."""

    chain: str | None  # a workspace's id, "" for lines of none; None where that cannot be told
    seq: int | None
    what: What
    why: str


def canonical(data: object) -> str:
    """The JSON text of a line's data that is kept and hashed: the same for equal data.

    Raises:
        TypeError, ValueError: something in it is no JSON.
    """
    if not _is_plain(data):
        data = json.loads(to_json(data))  # as it will be read back
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    if r"\u0000" in text:  # it may be that character, which PostgreSQL keeps nowhere
        data = json.loads(to_json(data))
        text = json.dumps(data, sort_keys=True, separators=(",", ":"))
    return text


def _is_plain(data: object) -> bool:
    """Whether all keys are texts: others would be sorted in another way than they are read."""
    if isinstance(data, dict):
        return all(isinstance(key, str) for key in data) and all(map(_is_plain, data.values()))
    return all(map(_is_plain, data)) if isinstance(data, (list, tuple)) else True


def digest(
    previous: str, chain: str, seq: int, at: datetime, actor: str, kind: str, data: str
) -> str:
    """A line's hash; see the module's head. ``data`` is its canonical text."""
    when = at.astimezone(timezone.utc).isoformat(timespec="microseconds")
    text = json.dumps([previous, chain, seq, when, actor, kind], separators=(",", ":"))
    return hashlib.sha256(f"{text[:-1]},{data}]".encode("ascii")).hexdigest()


def texts(new: Sequence[NewEvent]) -> list[str]:
    """What is kept of their data: what of a line's making needs no lock.

    Raises:
        TypeError, ValueError: something in them is no JSON.
    """
    return [canonical(event.data) for event in new]


def link(
    new: Sequence[NewEvent], data: Sequence[str], heads: Mapping[str, Head]
) -> tuple[list[Linked], dict[str, Head]]:
    """The lines in their chains, and where those end then; ``data`` are their texts."""
    ends: dict[str, Head] = {}
    linked: list[Linked] = []
    for event, text in zip(new, data, strict=True):
        chain = event.workspace_id or ""
        seq, previous = ends.get(chain) or heads.get(chain) or Head()
        made = digest(previous, chain, seq + 1, event.at, event.actor, event.kind, text)
        ends[chain] = Head(seq + 1, made)
        linked.append(Linked(event, text, seq + 1, made))
    return linked, ends


class Walk:
    """One chain, walked from its base to its head; each line in the order of its id."""

    def __init__(self, chain: str, base: Head | None) -> None:
        """``base`` is where its lines begin; None: with whichever comes, whose hash is believed."""
        self.chain = chain
        self.lines = 0
        self._at = base
        self._last_id = 0
        self._missing: dict[int, None] = {}
        self._told = 0

    def step(self, line: Line) -> Iterator[Finding]:
        """What is wrong with the next line."""
        self.lines += 1
        at, self._last_id = self._at, line.id
        if at is None:
            self._at = Head(line.seq, line.hash)
        elif line.seq == at.seq + 1:
            self._at = Head(line.seq, line.hash)
            if digest(at.hash, *_content(line)) != line.hash:
                yield from self._tell(
                    line.seq,
                    "changed",
                    f"line {line.seq} ({line.kind}) is not what its hash is of",
                )
        elif line.seq > at.seq:
            for seq in range(at.seq + 1, min(line.seq, at.seq + _MOST_MISSING)):
                self._missing[seq] = None
            self._at = Head(line.seq, line.hash)
        elif line.seq in self._missing:
            del self._missing[line.seq]
            yield from self._tell(
                line.seq, "reordered", f"line {line.seq} ({line.kind}) stands after {at.seq}"
            )
        else:
            yield from self._tell(
                line.seq,
                "inserted",
                f"a line {line.seq} ({line.kind}) stands after line {at.seq}",
            )

    def end(self, head: Head | None) -> Iterator[Finding]:
        """What is wrong with it as a whole; ``head`` is what is kept of its end."""
        for first, last in _ranges(self._missing):
            yield from self._tell(first, "removed", f"{_lines(first, last)} gone")
        at = self._at or Head()
        if head is None:
            yield from self._tell(at.seq, "head", "nothing is kept of where its lines end")
        elif at.seq < head.seq:
            yield from self._tell(
                at.seq + 1, "removed", f"{_lines(at.seq + 1, head.seq)} gone from its end"
            )
        elif at.seq > head.seq:
            yield from self._tell(
                head.seq + 1,
                "inserted",
                f"{_lines(head.seq + 1, at.seq)} beyond its end, {head.seq}",
            )
        elif at.hash != head.hash:
            yield from self._tell(at.seq, "head", "its last line is not the one that is kept of it")
        if self._told > MOST_TOLD:
            yield Finding(self.chain, None, "changed", f"{self._told - MOST_TOLD} more")

    def _tell(self, seq: int, what: What, why: str) -> Iterator[Finding]:
        self._told += 1
        if self._told <= MOST_TOLD:
            yield Finding(self.chain, seq, what, why)


def _content(line: Line) -> tuple[str, int, datetime, str, str, str]:
    return line.chain, line.seq, line.at, line.actor, line.kind, canonical(line.data)


def _lines(first: int, last: int) -> str:
    return f"line {first} is" if first == last else f"lines {first} to {last} are"


def _ranges(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    first = last = None
    for number in sorted(numbers):
        if first is None or last is None or number != last + 1:
            if first is not None and last is not None:
                yield first, last
            first = number
        last = number
    if first is not None and last is not None:
        yield first, last
