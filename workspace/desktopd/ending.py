"""The daemon's end in bounded time, whatever still runs in it.

A thread cannot be interrupted: one that copies gigabytes to another disk, or waits for a disk that
hangs, would hold up the end as long as it takes, for Python joins its threads before it exits. So
would a screen that does not answer the event loop any more. Whoever ends the daemon waits for it,
with a limit of its own. After :data:`SECONDS` this process therefore ends where it stands, and
every process below it.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from contextlib import suppress

from workspace.desktopd.children import descendants

logger = logging.getLogger(__name__)

# More than all that is waited for when all is well but slow: a recording's file, the X server,
# jobs and requests.
SECONDS = 10.0
_KILL_SECONDS = 1.0


class Ending:
    """Ends the process by force a while after it was begun.

    Its thread is there from the start: a desktop that has as many processes as it may have can
    start none when it is to end.
    """

    def __init__(self) -> None:
        self._has_begun = threading.Event()
        self._exit_code = 1
        threading.Thread(target=self._watch, name="ending", daemon=True).start()

    def begin(self, exit_code: int) -> None:
        """The daemon is to end now; with that code if by force. The first word counts."""
        if not self._has_begun.is_set():
            self._exit_code = exit_code
            self._has_begun.set()

    def _watch(self) -> None:
        self._has_begun.wait()
        time.sleep(SECONDS)
        logger.error("It has not ended within %g s: it is ended where it stands.", SECONDS)
        deadline = time.monotonic() + _KILL_SECONDS
        # A killed process passes its children on to us only when it dies: look again.
        while (pids := list(descendants(os.getpid()))) and time.monotonic() < deadline:
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
        os._exit(self._exit_code)
