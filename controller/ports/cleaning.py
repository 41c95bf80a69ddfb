"""What of a request's and an answer's head goes on, to a server in a desktop and back. Pure.

The server sees a browser of its own machine: ``Host`` is ``localhost:{port}``, and so is an
``Origin`` that was its own; where it is reached is in the ``X-Forwarded-`` fields. It sees nothing
that proves who asks: no ``Authorization``, no cookie of Carrel's. Its answer sets cookies of its
own origin only, and no browser forgets or keeps anything of another's for it.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit

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
_NEVER_BY_PATH = frozenset({b"set-cookie", b"refresh", b"link"})
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_DOT = re.compile("%2e", re.IGNORECASE)  # browsers take it for one
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
    cookies = []
    for name, value in scope["headers"]:
        if name in _NEVER_IN or name in named or name.startswith(b"sec-websocket-"):
            continue
        if name == b"cookie":
            cookies.append(value)
            continue
        if name in (b"origin", b"referer"):
            value = _as_seen_inside(value, place)
        fields.append((name, value))
    # Without an origin of its own, they are of Carrel's.
    if place.origin is not None and (kept := _others_cookies(b"; ".join(cookies))):
        fields.append((b"cookie", kept))
    client = scope.get("client")
    fields.append((b"X-Forwarded-For", str(client[0] if client else "unknown").encode()))
    host = next((value for name, value in scope["headers"] if name == b"host"), b"")
    fields.append((b"X-Forwarded-Host", host))
    scheme = str(scope["scheme"]).replace("ws", "http", 1)
    fields.append((b"X-Forwarded-Proto", scheme.encode()))
    if place.prefix:
        fields.append((b"X-Forwarded-Prefix", place.prefix.encode()))
    return fields


def answer_fields(
    fields: Iterable[tuple[bytes, bytes]], place: Place, *, path: str = "/", status: int = 200
) -> Fields:
    """The head of an answer to a request for ``path``, as the browser gets it."""
    found = [(name.lower(), value) for name, value in fields if not _CONTROL.search(value)]
    named = _named(found)
    return list(_cleaned(found, named, place, path, status))


def _cleaned(
    found: Fields, named: frozenset[bytes], place: Place, path: str, status: int
) -> Iterator[tuple[bytes, bytes]]:
    for name, value in found:
        if name in _NEVER_OUT or name in named:
            continue
        if name == b"content-length" and (status in (204, 304) or not value.isdigit()):
            continue
        if name == b"location":
            if (location := _location(value, place, path)) is not None:
                yield name, location
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


def _location(value: bytes, place: Place, path: str) -> bytes | None:
    """Where the server sends a browser, as the browser knows it.

    Without an origin of its own it sends clients nowhere but below its prefix: they take the key
    along to wherever on Carrel's origin they are sent.
    """
    text = value.decode("latin-1")
    for own in (f"http://{place.host}", f"http://127.0.0.1:{place.port}"):
        if text == own or text.startswith((f"{own}/", f"{own}?")):
            text = text[len(own) :]
            text = text if text.startswith("/") else f"/{text}"
            break
    else:
        if place.origin is not None and (not text.startswith("/") or text.startswith("//")):
            return value
    if place.origin is not None:
        return (place.origin + text).encode("latin-1")
    if "\\" in text or text.startswith("//"):
        return None
    asked = text if not text.startswith("/") else place.prefix + text
    try:
        whole = urlsplit(urljoin(f"http://carrel{place.prefix}{path}", asked))
    except ValueError:
        return None
    plain = posixpath.normpath(_DOT.sub(".", whole.path))
    if whole.netloc != "carrel" or not f"{plain}/".startswith(f"{place.prefix}/"):
        return None
    return (whole.path + (f"?{whole.query}" if whole.query else "")).encode("latin-1")
