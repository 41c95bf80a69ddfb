"""What programs wrote, kept within limits: pure, no input or output here.

Nothing here can fail or grow without bound: what does not fit is dropped and counted.
"""

from __future__ import annotations


class HeadTail:
    """The beginning and the end of a stream, ``limit`` bytes at most; the middle is dropped."""

    def __init__(self, limit: int = 1 << 20) -> None:
        self._half = limit // 2
        self._head = bytearray()
        self._tail = bytearray()
        self.dropped = 0

    def append(self, data: bytes) -> None:
        room = self._half - len(self._head)
        self._head += data[:room]
        self._tail += data[room:]
        excess = len(self._tail) - self._half
        if excess > 0:
            del self._tail[:excess]
            self.dropped += excess

    def text(self) -> str:
        """All of it, with a line that says how much is missing, if any is."""
        if not self.dropped:
            return (self._head + self._tail).decode("utf-8", "replace")
        head = self._head.decode("utf-8", "replace")
        tail = self._tail.decode("utf-8", "replace")
        return f"{head}\n[... {self.dropped} bytes left out ...]\n{tail}"


class Ring:
    """The last ``limit`` bytes of a stream, read by their offset from its beginning."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._data = bytearray()
        self.start = 0

    def __len__(self) -> int:
        return len(self._data)

    @property
    def end(self) -> int:
        return self.start + len(self._data)

    def append(self, data: bytes) -> None:
        self._data += data
        self.drop(len(self._data) - self._limit)

    def drop(self, count: int) -> None:
        """Forget the oldest ``count`` bytes."""
        if count > 0:
            count = min(count, len(self._data))
            del self._data[:count]
            self.start += count

    def read(self, offset: int, limit: int, *, is_complete: bool) -> tuple[str, int, int]:
        """Text from ``offset`` on, the offset to read on from, and how many bytes were lost.

        ``limit`` is in bytes. A character that is cut at the end is left for the next read, unless
        the stream ``is_complete`` and this is its end.
        """
        begin = min(max(offset, self.start), self.end)
        data = bytes(self._data[begin - self.start : begin - self.start + limit])
        if not (is_complete and begin + len(data) == self.end):
            data = data[: whole_characters(data)]
        lost = max(0, begin - offset)
        return data.decode("utf-8", "replace"), begin + len(data), lost


def whole_characters(data: bytes) -> int:
    """The length of ``data`` without a UTF-8 character that is cut at its end."""
    for back in range(1, min(3, len(data)) + 1):
        byte = data[-back]
        if byte & 0b1100_0000 == 0b1000_0000:
            continue
        needs = 2 if byte >> 5 == 0b110 else 3 if byte >> 4 == 0b1110 else 1
        needs = 4 if byte >> 3 == 0b11110 else needs
        return len(data) - back if needs > back else len(data)
    return len(data)
