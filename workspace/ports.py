"""The servers inside a desktop, and how they are reached from outside: the models."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from workspace.errors import InvalidRequest

PortNumber = Annotated[int, Field(ge=1, le=65535, examples=[3000])]


def port_of(text: str) -> int:
    """The number of a port, as a path has it.

    Raises:
        InvalidRequest: it is none.
    """
    if not re.fullmatch("[1-9][0-9]{0,4}", text) or int(text) > 65535:
        raise InvalidRequest(f"{text[:20]!r} is no port.")
    return int(text)


class ListeningPort(BaseModel):
    """A TCP port that something in the desktop listens on."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    port: PortNumber
    address: Annotated[str, Field(description="of the desktop's own; 0.0.0.0 and :: are all")]


class PortRequest(BaseModel):
    """The body of ``POST .../ports/{port}``."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    path: Annotated[
        str,
        Field(pattern=r"^/[^/\\\s]?[^\\\s]*$", max_length=2000, description="the page to begin at"),
    ] = "/"


class PortAccess(BaseModel):
    """How a browser gets to a server in a desktop."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    port: PortNumber
    url: Annotated[
        str, Field(description="for a person's browser, within a minute; it is a secret")
    ]
    origin: Annotated[str, Field(description="where that leads: an origin of its own")]
    expires_at: Annotated[datetime, Field(description="until then the url lets in")]


class CdpRequest(BaseModel):
    """The body of ``POST .../cdp``."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    ttl_seconds: Annotated[float, Field(ge=10, le=43200, description="how long it lets in")] = 3600


class CdpAccess(BaseModel):
    """Where a client of the DevTools protocol reaches a desktop's browser; both are secrets."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    http_url: Annotated[str, Field(description="for Playwright's connect_over_cdp, browser-use")]
    ws_url: Annotated[str, Field(description="for Puppeteer's browserWSEndpoint, and others")]
    expires_at: datetime
