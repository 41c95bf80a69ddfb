"""The nouns of the tools beside the desktop: MCP servers, how they are, what they offer, a call.

What a server says of itself and answers is not Carrel's word: it is checked for its size and shape,
handed on as data, and never believed.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, SecretStr

from workspace.access import TenantName
from workspace.models import TOOLS_NAME

CALL_SECONDS = 45.0  # that a tool has to answer
TOOL_NAME = r"^[A-Za-z0-9_-]{1,60}$"
Json = dict[str, JsonValue]
# They say how a request is carried, or of which session it is.
_OWN_HEADERS = re.compile(
    r"accept|accept-encoding|connection|content-.*|cookie|expect|host|keep-alive|last-event-id|"
    r"mcp-.*|origin|te|trailer|transfer-encoding|upgrade",
    re.IGNORECASE,
)


class _Input(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Output(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


def _url(url: str) -> str:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - reading it is what checks it
    except ValueError as error:
        raise ValueError(f"that is no address: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("give an address such as https://tools.example.org/mcp")
    if "@" in parts.netloc or parts.fragment:
        raise ValueError("an address holds no name, password or fragment: give a secret for that")
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("an address has no spaces and is in ASCII")
    return url


def _header(name: str) -> str:
    if _OWN_HEADERS.fullmatch(name):
        raise ValueError(f"{name} is not for a secret")
    return name


def _value(secret: SecretStr) -> SecretStr:
    value = secret.get_secret_value()
    if not (value.isascii() and value.isprintable() and value.strip() == value and value):
        raise ValueError("a header's value is printable ASCII, without spaces around it")
    return secret


ToolsName = Annotated[str, Field(pattern=TOOLS_NAME, examples=["search"])]


class ToolsRequest(_Input):
    """The body of ``POST /v1/tools``: an MCP server over streamable HTTP."""

    name: Annotated[ToolsName, Field(description="its tools are called <name>__<tool>")]
    url: Annotated[
        str,
        Field(max_length=2000, examples=["https://tools.example.org/mcp"]),
        AfterValidator(_url),
    ]
    header: Annotated[
        str,
        Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}$", description="what the secret is"),
        AfterValidator(_header),
    ] = "Authorization"
    secret: Annotated[
        Annotated[SecretStr, Field(max_length=8192), AfterValidator(_value)] | None,
        Field(description="sent to it as that header, such as 'Bearer …'; sealed, never shown"),
    ] = None
    tenant: Annotated[
        TenantName | None, Field(description="whose it is; another's than yours takes an admin")
    ] = None


class ToolInfo(_Output):
    """One tool of a server, as the server told of it and as far as that is in order."""

    name: str
    description: str = ""
    input_schema: Json = {}


ToolsState = Literal["new", "up", "down"]


class ToolServer(_Output):
    """An MCP server and how it is. ``kind`` is ``remote``, or ``template``: inside of desktops."""

    name: str
    kind: Literal["remote", "template"] = "remote"
    tenant: str = ""
    url: str = ""
    header: str = ""  # by which a secret is sent to it; empty if it has none
    template: str = ""  # of whose desktops it is
    state: ToolsState = "new"
    since: datetime | None = None
    reason: str = ""  # why it is down
    tools: int = 0
    left_out: list[str] = []  # of what it offered: what, and why
    last_seen: datetime | None = None
    created_at: datetime | None = None
    created_by: str = ""
    listed: list[ToolInfo] | None = None  # what it offers, where that was asked for


class ToolServerList(_Output):
    """One page of tool servers, by name; ``after`` is what to ask for next, None at the end."""

    servers: list[ToolServer]
    after: str | None = None


class ToolCall(_Input):
    """The body of ``POST .../calls``."""

    tool: Annotated[str, Field(pattern=TOOL_NAME, description="as its server calls it")]
    arguments: dict[str, JsonValue] = {}


class ToolAnswer(_Output):
    """What a tool answered: MCP's content blocks, of somebody who is not to be trusted."""

    is_error: bool = False
    content: list[Json] = []
