"""`carrel` with a wall clock that a test moves: ``python -m tests.chaos.jumping FILE up ...``.

FILE holds by how many seconds the clock is wrong, and may change at any time. Only what the
controller asks of the wall clock is moved, as that of its machine would be; no other clock is.
"""

from __future__ import annotations

import sys
import time
from datetime import datetime, timedelta, tzinfo
from pathlib import Path


def main() -> None:
    file = Path(sys.argv.pop(1))
    import controller.app  # all of it: its modules have their names by now
    import controller.cli.serve  # noqa: F401  # as above

    class Jumping(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]  # no Self
            return datetime.now(tz) + timedelta(seconds=float(file.read_text()))

    real = time.time
    time.time = lambda: real() + float(file.read_text())
    for name, module in list(sys.modules.items()):
        if name.startswith("controller") and getattr(module, "datetime", None) is datetime:
            module.datetime = Jumping  # type: ignore[attr-defined]  # it has one
    from controller.cli import main as carrel

    carrel()


if __name__ == "__main__":
    main()
