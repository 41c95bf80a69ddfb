"""Where the bytes of artifacts lie: what each place for them can do.

A blob is known by its digest, the SHA-256 of its bytes in hexadecimal, and by nothing that a caller
or a desktop says: so no name of theirs ever becomes a path or a key. Which blobs there should be is
the store's to know (:mod:`controller.store.artifacts`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, Protocol

PIECE_BYTES = 256 << 10
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Blob:
    """Bytes that are to be kept: in memory, or as a file that is whole and on its disk."""

    digest: str
    size: int
    source: bytes | Path


class Found(NamedTuple):
    """A blob that is there, and when it was written."""

    digest: str
    size: int
    at: datetime


class Blobs(Protocol):
    """A place for blobs.

    Every method may raise :class:`~workspace.errors.Unavailable` within its bounds of time, and
    leaves nothing half there: a blob is there whole or not at all.
    """

    @property
    def place(self) -> str:
        """Where that is, as people are told."""
        ...

    def run(self) -> AbstractAsyncContextManager[None]:
        """Usable as long as the block runs. Entering it waits for nobody."""
        ...

    async def check(self) -> None:
        """Whether it can be used, as far as that can be seen without writing."""
        ...

    async def has(self, digest: str, size: int) -> bool:
        """Whether it is there, with that size."""
        ...

    async def put(self, blob: Blob) -> None:
        """Write it; when this returns it survives the death of any process. Again is success.

        Raises:
            DiskFull: there is no room for it.
        """
        ...

    def open(self, digest: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Its bytes as they are there, in pieces.

        Raises:
            ArtifactDamaged: it is not there.
        """
        ...

    async def remove(self, digest: str) -> None:
        """Remove it; already gone is success."""
        ...

    async def page(self, after: str, limit: int) -> list[Found]:
        """Those that are there with digests after that one, in their order."""
        ...


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def is_digest(text: str) -> bool:
    return _DIGEST.fullmatch(text) is not None


def checked(digest: str) -> str:
    """``digest``, if it is one: the last thing before it becomes part of a path."""
    if not is_digest(digest):
        raise ValueError("that is no digest")
    return digest
