"""The servers that run in a desktop."""

from __future__ import annotations

from pydantic import TypeAdapter

from workspace.calls.wire import Wire, parse
from workspace.ports import CdpAccess, CdpRequest, ListeningPort, PortAccess, PortRequest
from workspace.transport import asked

CDP_SECONDS = 30.0  # a browser that is started first
_PORTS = TypeAdapter(list[ListeningPort])


class PortCalls:
    """What of :class:`workspace.desktop.Desktop` is of its servers."""

    _wire: Wire

    async def ports(self) -> list[ListeningPort]:
        """The TCP ports that something in it listens on."""
        return parse(_PORTS.validate_json, await self._wire.call("GET", "/ports"))

    async def open_port(self, port: int, path: str = "/") -> PortAccess:
        """A way for a person's browser to a server in it, on an origin of its own.

        Only through a controller. It is no news whether something listens there yet.

        Raises:
            Unsupported: that controller has no names for such origins.
        """
        body = asked(PortRequest, path=path).model_dump()
        found = await self._wire.call("POST", f"/ports/{port}", json=body)
        return parse(PortAccess.model_validate_json, found)

    async def open_cdp(self, ttl_seconds: float = 3600) -> CdpAccess:
        """Addresses of its browser for any client of the DevTools protocol.

        Only through a controller, and with a key of role user. The browser is started if need be.
        """
        body = asked(CdpRequest, ttl_seconds=ttl_seconds).model_dump()
        found = await self._wire.call("POST", "/cdp", json=body, seconds=CDP_SECONDS)
        return parse(CdpAccess.model_validate_json, found)
