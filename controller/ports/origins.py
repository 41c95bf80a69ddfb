"""The names of origins: ``{port}-{workspace}.<host>``. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import urlsplit

_NAME = re.compile(r"([0-9]{1,5})-([a-z0-9]{8,20})\.(.+)")
# Every name below it is this machine, for browsers (RFC 6761, section 6.3).
LOCAL = "localhost"
_LOOPBACK = frozenset({LOCAL, "127.0.0.1", "::1"})


class Target(NamedTuple):
    """A port of a desktop."""

    workspace_id: str
    port: int


class Origins:
    """Those of one controller; none where its people could not resolve their names."""

    def __init__(self, public_origin: str, ports_host: str) -> None:
        """``ports_host``: all names below it lead here; with a port, if that is another one."""
        public = urlsplit(public_origin)
        if not ports_host and public.hostname in _LOOPBACK:
            ports_host = LOCAL
        self._scheme = public.scheme
        host = urlsplit(f"//{ports_host}")
        self._name = (host.hostname or "").lower()
        port = host.port or public.port
        if port == {"http": 80, "https": 443}.get(public.scheme):
            port = None  # which no browser's Origin has
        self._after = self._name if port is None else f"{self._name}:{port}"

    @property
    def is_secure(self) -> bool:
        return self._scheme == "https"

    def of(self, target: Target) -> str | None:
        """Where it is reached; None: such names lead nowhere."""
        if not self._name:
            return None
        return f"{self._scheme}://{target.port}-{target.workspace_id}.{self._after}"

    def find(self, host: str) -> Target | None:
        """What a ``Host`` names; None if it is none of these."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return None
        match = _NAME.fullmatch(name)
        if match is None or match[3] != self._name or not 0 < int(match[1]) < 65536:
            return None
        return Target(match[2], int(match[1]))
