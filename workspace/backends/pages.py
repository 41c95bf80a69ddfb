"""Turning the memory of stopped processes out to the machine's swap, while the others' stays.

The kernel's way to do that for a whole control group would turn out the desktop's own daemon and X
server as well, and the first action after a pause would wait for them to be read again (0.1 to 0.4
s, measured). ``process_madvise(2)`` wants root.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator

_PROCESS_MADVISE = 440  # the same on every architecture
_MADV_PAGEOUT = 21
_BATCH = 512  # ranges in one call; the kernel takes 1,024
_MAX_RANGES = 50_000  # of a process; more is made on purpose


class _Range(ctypes.Structure):
    _fields_ = (("start", ctypes.c_void_p), ("length", ctypes.c_size_t))


def turn_out(pid: int, pidfd: int) -> None:
    """Turn out what the process has for itself.

    Raises:
        OSError: it cannot be asked for here, or the process is gone.
    """
    ranges = list(_own(pid))[:_MAX_RANGES]
    at = 0
    while at < len(ranges):
        batch = ranges[at : at + _BATCH]
        done = _advise(pidfd, batch)
        # It stops at a range that cannot be turned out (locked): that one is passed over.
        while batch and done >= batch[0][1]:
            done -= batch.pop(0)[1]
            at += 1
        at += 1 if batch else 0


def _own(pid: int) -> Iterator[tuple[int, int]]:
    """Start and length of what is private and was written to."""
    with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as file:
        for line in file:
            place, rights, _ = line.split(" ", 2)
            if rights.startswith("rw") and rights.endswith("p"):
                start, end = (int(part, 16) for part in place.split("-"))
                yield start, end - start


def _advise(pidfd: int, ranges: list[tuple[int, int]]) -> int:
    """How many bytes from the beginning of ``ranges`` it came through."""
    vector = (_Range * len(ranges))(*(_Range(start, length) for start, length in ranges))
    libc = ctypes.CDLL(None, use_errno=True)
    done = libc.syscall(
        ctypes.c_long(_PROCESS_MADVISE),
        ctypes.c_int(pidfd),
        vector,
        ctypes.c_size_t(len(ranges)),
        ctypes.c_int(_MADV_PAGEOUT),
        ctypes.c_uint(0),
    )
    if done >= 0:
        return int(done)
    error = ctypes.get_errno()
    if error in (errno.EINVAL, errno.ENOMEM):  # the first range cannot be
        return 0
    raise OSError(error, os.strerror(error))
