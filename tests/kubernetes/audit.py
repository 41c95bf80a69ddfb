"""What the API server was asked, and by whom, as its audit log tells."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ACCOUNT = "system:serviceaccount:carrel:carrel"
WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})


class Audit:
    def __init__(self, log: Path) -> None:
        self._log = log

    def mark(self) -> int:
        """Where it ends now."""
        return self._log.stat().st_size

    def since(self, mark: int, user: str = ACCOUNT) -> list[str]:
        """Each request of that user, as ``create pods`` or ``get pods/log``."""
        return [
            f"{each['verb']} {_resource(each)}"
            for each in self._events(mark)
            if each["user"]["username"] == user
        ]

    def writes_since(self, mark: int, user: str = ACCOUNT) -> list[str]:
        return [each for each in self.since(mark, user) if each.split()[0] in WRITES]

    def _events(self, mark: int) -> Iterator[dict[str, Any]]:
        with self._log.open("rb") as log:
            log.seek(mark)
            for line in log:
                if line.endswith(b"\n"):
                    yield json.loads(line)


def _resource(event: dict[str, Any]) -> str:
    of = event.get("objectRef")
    if of is None:
        return str(event["requestURI"])
    sub = of.get("subresource")
    return f"{of['resource']}/{sub}" if sub else str(of["resource"])
