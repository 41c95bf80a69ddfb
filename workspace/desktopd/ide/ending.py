"""Ending the processes of an IDE, with what they started."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from contextlib import suppress

from workspace.desktopd.children import Child, descendants

END_SECONDS = 5.0


async def end_children(children: Sequence[Child]) -> None:
    """Kill them and what is below them; what has made itself independent is the user's."""
    for child in children:
        below = list(descendants(child.pid)) if child.exit_code is None else []
        child.signal(signal.SIGKILL)
        for pid in below:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
    for child in children:
        with suppress(asyncio.TimeoutError):
            await child.end(END_SECONDS)
