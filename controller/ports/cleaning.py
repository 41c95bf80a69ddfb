"""What of a request's and an answer's head goes on, to a server in a desktop and back. Pure.

The server sees a browser of its own machine: ``Host`` is ``localhost:{port}``, and so is an
``Origin`` that was its own; where it is reached is in the ``X-Forwarded-`` fields. It sees nothing
that proves who asks: no ``Authorization``, no cookie of Carrel's. Its answer sets cookies of its
own origin only, and no browser forgets or keeps anything of another's for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from starlette.types import Scope

Fields = list[tuple[bytes, bytes]]
_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer "
    b"transfer-encoding upgrade".split()
)
_NEVER_IN = _HOP | frozenset(
    b"authorization host expect forwarded x-forwarded-for x-forwarded-host x-forwarded-proto "
    b"x-forwarded-port x-forwarded-prefix x-real-ip".split()
)
_NEVER_OUT = _HOP | frozenset(
    b"alt-svc clear-site-data nel public-key-pins report-to reporting-endpoints "
    b"service-worker-allowed strict-transport-security x-request-id".split()
)
# Of a server that has no origin of its own: what would tell browsers something of Carrel's.
_NEVER_BY_PATH = frozenset({b"set-cookie", b"location", b"refresh", b"link"})
_OURS = b"carrel_"
SECURE = b"__Host-"


class Place(NamedTuple):
    """Where a server is, from both sides."""

    port: int
    origin: str | None = None  # of its own
    prefix: str = ""  # else the path that it is below

    @property
    def host(self) -> str:
        return f"localhost:{self.port}"


def request_fields(scope: Scope, place: Place) -> Fields:
    """The head of a request, as the server gets it."""
    named = _named(scope["headers"])
    fields: Fields = [(b"Host", place.host.encode())]
    for name, value in scope["headers"]:
        if name in _NEVER_IN or name in named or name.startswith(b"sec-websocket-"):
            continue
        if name == b"cookie":
            value = _others_cookies(value)
            if not value:
                continue
        elif name in (b"origin", b"referer"):
            value = _as_seen_inside(value, place)
        fields.append((name, value))
    client = scope.get("client")
    fields.append((b"X-Forwarded-For", str(client[0] if client else "unknown").encode()))
    host = next((value for name, value in scope["headers"] if name == b"host"), b"")
    fields.append((b"X-Forwarded-Host", host))
    scheme = str(scope["scheme"]).replace("ws", "http", 1)
    fields.append((b"X-Forwarded-Proto", scheme.encode()))
    if place.prefix:
        fields.append((b"X-Forwarded-Prefix", place.prefix.encode()))
    return fields


def answer_fields(fields: Iterable[tuple[bytes, bytes]], place: Place) -> Fields:
    """The head of an answer, as the browser gets it."""
    found = [(name.lower(), value) for name, value in fields]
    named = _named(found)
    return list(_cleaned(found, named, place))


def _cleaned(found: Fields, named: frozenset[bytes], place: Place) -> Iterator[tuple[bytes, bytes]]:
    for name, value in found:
        if name in _NEVER_OUT or name in named:
            continue
        if name == b"location":
            yield name, _location(value, place)
        elif place.origin is None and (
            name in _NEVER_BY_PATH or name.startswith(b"access-control-")
        ):
            continue
        elif name == b"set-cookie":
            if (cookie := _cookie(value)) is not None:
                yield name, cookie
        else:
            yield name, value
    if place.origin is None:  # whatever it is, it runs nowhere near the dashboard
        yield b"content-security-policy", b"sandbox"
        yield b"x-content-type-options", b"nosniff"


def _named(fields: Iterable[tuple[bytes, bytes]]) -> frozenset[bytes]:
    """The fields that ``Connection`` says are for one hop."""
    return frozenset(
        part.strip().lower()
        for name, value in fields
        if name == b"connection"
        for part in value.split(b",")
    )


def _others_cookies(value: bytes) -> bytes:
    """A ``Cookie`` without Carrel's."""
    kept = [part.strip() for part in value.split(b";")]
    return b"; ".join(
        part for part in kept if part and not part.removeprefix(SECURE).startswith(_OURS)
    )


def _as_seen_inside(value: bytes, place: Place) -> bytes:
    """An ``Origin`` or ``Referer`` of the server's own pages, as it knows them."""
    own = (place.origin or "").encode()
    if own and (value == own or value.startswith(own + b"/")):
        return f"http://{place.host}".encode() + value[len(own) :]
    return value


def _cookie(value: bytes) -> bytes | None:
    """A ``Set-Cookie`` for this one host; None if it is one of Carrel's names."""
    first, *attributes = value.split(b";")
    if first.strip().removeprefix(SECURE).startswith(_OURS):
        return None
    kept = [
        part for part in attributes if part.strip().partition(b"=")[0].strip().lower() != b"domain"
    ]
    return b";".join([first, *kept])


def _location(value: bytes, place: Place) -> bytes:
    """Where the server sends a browser, as the browser knows it."""
    for own in (f"http://{place.host}", f"http://127.0.0.1:{place.port}"):
        if value == own.encode() or value.startswith((f"{own}/".encode(), f"{own}?".encode())):
            value = value[len(own) :] or b"/"
            break
    else:
        if not value.startswith(b"/") or value.startswith(b"//"):
            return value
    base = place.prefix if place.origin is None else place.origin
    return base.encode() + value
