"""The way out of a desktop: what its rules say, who may widen them, and what came of connections.

A desktop reaches nothing (``none``, the default), every public address (``internet``), or what a
list of rules names. A rule is ``host``, ``*.host`` (all below it, not itself) or an address, each
with a port behind it (``:22``, ``:*`` for all); without one it means the web's, 80 and 443. Whether
an address that a name stands for may be reached at all is decided apart (:mod:`workspace.proxy`).

Pure. Hosts are compared in one form only, :func:`normal_host`: what has another form that some
program reads as an address (``0x7f.1``, ``2130706433``) is refused and never guessed at.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Annotated, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, field_serializer

WEB_PORTS = frozenset({80, 443})
MAX_RULES = 200
PROXY_PORT = 3128  # of loopback in each desktop
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_RULE = re.compile(r"(?P<host>\[[^\[\]]*\]|[^:\[\]]*)(?::(?P<port>[0-9]+|\*))?", re.DOTALL)


class Rule(NamedTuple):
    """What may be reached: a host, or all below it, on some ports; None: on all."""

    host: str
    is_wildcard: bool
    ports: frozenset[int] | None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        name = f"*.{host}" if self.is_wildcard else host
        if self.ports == WEB_PORTS:
            return name
        return f"{name}:{'*' if self.ports is None else min(self.ports)}"

    def permits(self, host: str, port: int) -> bool:
        """``host`` in its normal form."""
        if self.ports is not None and port not in self.ports:
            return False
        return host.endswith(f".{self.host}") if self.is_wildcard else host == self.host

    def covers(self, other: Rule) -> bool:
        """Whether all that the other permits is permitted by this one."""
        if self.ports is not None and (other.ports is None or not other.ports <= self.ports):
            return False
        if not self.is_wildcard:
            return not other.is_wildcard and other.host == self.host
        is_below = other.host.endswith(f".{self.host}")
        return is_below or (other.is_wildcard and other.host == self.host)


def address_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that a host in its normal form is; None if it is a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def normal_host(text: str) -> str:
    """A host's one form: lower case, IDNA, without a last dot; an address as it is usually written.

    Raises:
        ValueError: it is no host, or a number that only some programs read as an address.
    """
    host = text
    if not host.isascii():
        import idna  # rarely needed, and large

        try:
            host = idna.encode(host, uts46=True, std3_rules=True).decode("ascii")
        except (idna.IDNAError, UnicodeError) as error:
            raise ValueError(f"{text[:80]!r} is no host name: {error}") from error
    host = host.lower()
    if host.startswith("[") and host.endswith("]"):
        address = _address(host[1:-1])
        if not isinstance(address, ipaddress.IPv6Address):
            raise ValueError(f"{text[:80]!r} is no IPv6 address")
        return str(address)
    if (plain := _address(host)) is not None:
        return str(plain)
    host = host.removesuffix(".")
    labels = host.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        raise ValueError(f"{text[:80]!r} is a number, and neither a name nor an address as usual")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError(f"{text[:80]!r} is no host name")
    return host


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    if "%" in text:  # of an interface: never one that is meant for all
        raise ValueError(f"{text[:80]!r} has a zone")
    return address_of(text)


def parse_rule(text: str) -> Rule:
    """
    Raises:
        ValueError: it is no rule; the message says why.
    """
    found = _RULE.fullmatch(text)
    if found is None or "/" in text:
        raise ValueError(f"{text[:80]!r} is no rule: give host, host:port or *.host, and no URL")
    host, port = found["host"], found["port"]
    is_wildcard = host.startswith("*.")
    name = normal_host(host.removeprefix("*."))
    if is_wildcard and address_of(name) is not None:
        raise ValueError(f"{text[:80]!r}: no address is below another")
    if port is None:
        return Rule(name, is_wildcard, WEB_PORTS)
    if port == "*":
        return Rule(name, is_wildcard, None)
    if not _PORT.fullmatch(port) or int(port) > 65535:
        raise ValueError(f"{text[:80]!r}: there is no port {port[:10]}")
    return Rule(name, is_wildcard, frozenset({int(port)}))


def _normal_rule(text: str) -> str:
    return str(parse_rule(text))


RuleText = Annotated[
    str,
    Field(
        min_length=1,
        max_length=300,
        examples=["example.net", "*.example.org", "example.org:22"],
    ),
    AfterValidator(_normal_rule),
]
Egress = (
    Literal["none", "internet"]
    | Annotated[
        list[RuleText],
        Field(max_length=MAX_RULES, description="host, *.host, each with :port or :* if not web"),
    ]
)


def permits(egress: Egress, host: str, port: int) -> bool:
    """Whether the rules let a host in its normal form be asked for."""
    if isinstance(egress, str):
        return egress == "internet"
    return any(parse_rule(rule).permits(host, port) for rule in egress)


def covers(most: Egress, asked: Egress) -> bool:
    """Whether ``asked`` permits nothing that ``most`` does not."""
    if most == "internet" or asked in ("none", []):
        return True
    if isinstance(most, str) or isinstance(asked, str):
        return False
    wide = [parse_rule(rule) for rule in most]
    return all(any(rule.covers(parse_rule(each)) for rule in wide) for each in asked)


def changed(egress: Egress, *, allow: Iterable[str], deny: Iterable[str]) -> Egress:
    """The rules with some more, and without some.

    Raises:
        ValueError: what is to go is no rule of them, they permit everything, or they would be
            more than MAX_RULES.
    """
    denied = [_normal_rule(rule) for rule in deny]
    if egress == "internet":
        if denied:
            raise ValueError("from the whole internet nothing can be taken away: give a list")
        return egress
    rules = [] if isinstance(egress, str) else list(egress)
    for rule in denied:
        if rule not in rules:
            raise ValueError(f"{rule!r} is none of its rules")
        rules.remove(rule)
    rules += [rule for rule in map(_normal_rule, allow) if rule not in rules]
    if len(rules) > MAX_RULES:
        raise ValueError(f"they would be {len(rules)} rules, and may be {MAX_RULES}")
    return rules or "none"


class EgressLimits(BaseModel):
    """What a desktop may use of the way out."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    connections: Annotated[int, Field(ge=1, le=10_000, description="at once")] = 512
    mib: Annotated[
        int | None, Field(ge=1, le=1 << 30, description="sent and received in all; None: any")
    ] = None


def _secret_host(text: str) -> str:
    rule = parse_rule(text)
    if rule.is_wildcard or rule.ports is None:
        raise ValueError("a secret is for one host and one port")
    port = 443 if rule.ports == WEB_PORTS else min(rule.ports)
    return str(Rule(rule.host, False, frozenset({port})))


def _visible(value: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[ -~]{1,8192}", value.get_secret_value()):
        raise ValueError("give visible ASCII characters")
    return value


class SecretUse(BaseModel):
    """A secret that the proxy puts into the requests to one host; the desktop never has it."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    host: Annotated[
        str,
        Field(min_length=1, max_length=300, description="host or host:port; without one 443"),
        AfterValidator(_secret_host),
    ]
    header: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$")] = "Authorization"

    @property
    def target(self) -> tuple[str, int]:
        rule = parse_rule(self.host)
        return rule.host, min(rule.ports or WEB_PORTS)


_UNTOUCHABLE = frozenset(
    "connection content-length host keep-alive te trailer transfer-encoding upgrade".split()
)


def _header(name: str) -> str:
    if name.lower() in _UNTOUCHABLE or name.lower().startswith("proxy-"):
        raise ValueError(f"{name} is not for secrets")
    return name


class Secret(SecretUse):
    """The same with its value, as it is asked for. It is held by the desktop's node alone."""

    header: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$"), AfterValidator(_header)] = (
        "Authorization"
    )
    value: Annotated[SecretStr, AfterValidator(_visible)]

    @field_serializer("value", when_used="json")
    def _revealed(self, value: SecretStr) -> str:  # on its way to the node, and nowhere else
        return value.get_secret_value()

    @property
    def use(self) -> SecretUse:
        return SecretUse(name=self.name, host=self.host, header=self.header)


class EgressChange(BaseModel):
    """The body of ``POST .../egress``: other rules, or some more and some less."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    egress: Egress | None = None
    allow: Annotated[list[RuleText], Field(max_length=MAX_RULES)] = []
    deny: Annotated[list[RuleText], Field(max_length=MAX_RULES)] = []


class EgressUse(BaseModel):
    """What went through since the desktop started; bytes as its programs sent and received them."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    open: int = 0
    allowed: int = 0
    refused: int = 0
    bytes_up: int = 0
    bytes_down: int = 0


class EgressState(BaseModel):
    """The rules of a workspace as they are, and what came of them."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    egress: Egress
    secrets: list[SecretUse] = []
    use: EgressUse = EgressUse()


class Connections(BaseModel):
    """Connections of one kind that have ended: so many to one place, with one verdict.

    ``host`` is ``*`` for what is told together because there was too much of it.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)
    host: Annotated[str, Field(max_length=300)]
    port: Annotated[int, Field(ge=0, le=65535)]
    verdict: Literal["allowed", "refused", "failed"]
    reason: Annotated[str, Field(max_length=300)] = ""
    count: Annotated[int, Field(ge=1)] = 1
    bytes_up: Annotated[int, Field(ge=0)] = 0
    bytes_down: Annotated[int, Field(ge=0)] = 0
    secret: Annotated[str, Field(max_length=64)] = ""  # the name of what was put in
