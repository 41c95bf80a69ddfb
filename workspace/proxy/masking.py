"""Secrets that a server sends back are masked on their way into the desktop.

As far as that goes: a host that answers with a secret in another form (compressed unasked,
encoded), or in a WebSocket's frames, which pass as they are, tells it. Bytes are held back only
while they may be the beginning of one, so streams stay streams.
"""

from __future__ import annotations

from collections.abc import Sequence

from workspace.egress import Secret

_SHORTEST = 8  # what is shorter stands in many an answer for something else


def words_of(secrets: Sequence[Secret]) -> Sequence[bytes]:
    """What is masked: of ``Bearer <token>`` the token."""
    values = (secret.value.get_secret_value().rpartition(" ")[2] for secret in secrets)
    return [value.encode() for value in values if len(value) >= _SHORTEST]


class Mask:
    """For the body of one answer: as many bytes go out as came in."""

    def __init__(self, words: Sequence[bytes]) -> None:
        self._words = words
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """What may go on of it, and of what was held back."""
        if not self._words:
            return data
        data = masked(self._held + data, self._words)
        held = max(_begun(data, word) for word in self._words)
        self._held = data[len(data) - held :]
        return data[: len(data) - held]

    def end(self) -> bytes:
        """What was held back for nothing."""
        held, self._held = self._held, b""
        return held


def masked(data: bytes, words: Sequence[bytes]) -> bytes:
    for word in words:
        data = data.replace(word, b"*" * len(word))
    return data


def _begun(data: bytes, word: bytes) -> int:
    """How many bytes at the end of the data the word begins with."""
    at = data.find(word[:1], max(0, len(data) - len(word) + 1))
    while at >= 0:
        if word.startswith(data[at:]):
            return len(data) - at
        at = data.find(word[:1], at + 1)
    return 0
