"""What is signed of the log, with a key that is not in the database. Pure.

A checkpoint is of the lines between the one before it and its own ``upto``. Its ``sum`` is that of
HMAC-SHA256(key, ["line", id, hash]) over those lines, modulo 2^256: so it can be reckoned in any
order, and a line can be taken out of it again by who has the key (a multiset hash: MSet-Add-Hash of
Clarke et al., 2003). Its ``hash`` is SHA-256 of [hash of the one before, number, at, upto, lines,
sum], its ``signature`` an HMAC of that and of what was taken out since: how many lines, and their
sum. Every text is JSON as in ``chain``.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from datetime import datetime, timezone
from typing import NamedTuple

from controller.store.chain import GENESIS, Head

_MODULUS = 1 << 256


class Checkpoint(NamedTuple):
    """One, as it is kept."""

    number: int  # from 1
    at: datetime
    upto: int  # the last event's id
    lines: int
    sum: str
    hash: str
    signature: str
    removed_lines: int = 0
    removed_sum: str = ""


class Signer:
    """Signs, and tells what a signature has to be."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def line(self, line_id: int, made: str) -> int:
        """A line's part of the sum."""
        text = f'["line",{line_id},"{made}"]'
        return int.from_bytes(hmac.digest(self._key, text.encode("ascii"), "sha256"), "big")

    def checkpoint(self, made: str, removed_lines: int, removed_sum: str) -> str:
        return self._sign(["checkpoint", made, removed_lines, removed_sum])

    def base(self, chain: str, base: Head) -> str:
        """Of where what is left of a chain begins."""
        return self._sign(["base", chain, base.seq, base.hash])

    def file(self, sha256: str) -> str:
        """Of an export: all of it but its last line."""
        return self._sign(["file", sha256])

    def _sign(self, what: list[str | int]) -> str:
        return hmac.digest(self._key, _text(what), "sha256").hex()


def key_of(secret: bytes) -> bytes:
    """The controllers' key for this, of their secret."""
    return hmac.digest(secret, b"audit", "sha256")


def make(
    signer: Signer, before: Checkpoint | None, *, at: datetime, upto: int, lines: int, sum_: int
) -> Checkpoint:
    """The next checkpoint."""
    number = before.number + 1 if before else 1
    told = to_text(sum_)
    made = hashed(before, number, at, upto, lines, told)
    return Checkpoint(number, at, upto, lines, told, made, signer.checkpoint(made, 0, ""))


def hashed(
    before: Checkpoint | None, number: int, at: datetime, upto: int, lines: int, sum_: str
) -> str:
    """A checkpoint's hash."""
    when = at.astimezone(timezone.utc).isoformat(timespec="microseconds")
    previous = before.hash if before else GENESIS
    return hashlib.sha256(_text([previous, number, when, upto, lines, sum_])).hexdigest()


def without(signer: Signer, kept: Checkpoint, lines: int, sum_: int) -> Checkpoint:
    """``kept`` after some of its lines were removed in order."""
    many = kept.removed_lines + lines
    told = to_text(to_number(kept.removed_sum) + sum_)
    signature = signer.checkpoint(kept.hash, many, told)
    return kept._replace(removed_lines=many, removed_sum=told, signature=signature)


def to_text(sum_: int) -> str:
    return f"{sum_ % _MODULUS:064x}"


def to_number(sum_: str) -> int:
    """What ``to_text`` wrote; 0 of no text, and -1 of what is none of it."""
    try:
        return int(sum_, 16) if sum_ else 0
    except ValueError:
        return -1


def _text(what: list[str | int]) -> bytes:
    return json.dumps(what, separators=(",", ":")).encode("ascii")
