"""Who a line of the log belongs to, and how it is written: text for people, or JSON.

A :class:`Request` is set for as long as one is answered, and every task begun meanwhile knows it.
Some of them live on; so a request that is over belongs to nobody any more. A line is one line
whatever is in it: nothing that came from outside ends it, begins another, or reaches a terminal as
a command. Only the standard library is used: the daemon inside a desktop has this too.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Literal

Form = Literal["text", "json"]
REQUEST_ID = b"x-request-id"
_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
# W3C Trace Context, 3.2: version, trace id, parent id, flags; a trace of noughts is none.
_TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-.*")
_MAX_LETTERS = 20_000

# Control characters (a terminal obeys them), and those that turn the direction of what follows.
_HARMFUL = {
    code: f"\\u{code:04x}"
    for codes in ((0, 32), (127, 160), (0x2028, 0x202F), (0x2066, 0x206A))
    for code in range(*codes)
}
_HARMFUL_IN_TEXT = {code: told for code, told in _HARMFUL.items() if chr(code) not in "\n\t"}


def inert(text: str, *, lines: bool = False) -> str:
    """``text`` with what a terminal would obey as ``\\u001b``, as JSON writes it.

    ``lines`` lets it go on in further lines.
    """
    return text.translate(_HARMFUL_IN_TEXT if lines else _HARMFUL)


@dataclass(eq=False)
class Request:
    """One request, from when it comes until its answer has been sent."""

    id: str
    workspace_id: str = ""
    error: str = ""  # the code of the error that it was answered with
    actions: tuple[str, ...] = ()  # the types of those that it asked for
    is_over: bool = False


_request: ContextVar[Request | None] = ContextVar("request", default=None)
_workspace: ContextVar[str] = ContextVar("workspace", default="")


def current() -> Request | None:
    """The request that is being answered here."""
    found = _request.get()
    return None if found is None or found.is_over else found


@contextmanager
def answering(request: Request) -> Iterator[Request]:
    """It is being answered as long as the block runs."""
    token = _request.set(request)
    try:
        yield request
    finally:
        request.is_over = True
        _request.reset(token)


def belongs_to(workspace_id: str) -> None:
    """What is done from here on in this task, and in this request, is for that workspace."""
    _workspace.set(workspace_id)
    if (request := current()) is not None:
        request.workspace_id = workspace_id


def request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The id of a request that came with ``headers``: what it says, or what it is part of.

    That is a usable ``X-Request-Id``, else the id of the trace in ``traceparent``, else that of the
    request that is being answered here, else a new one.
    """
    trace = b""
    for name, value in headers:
        if name == REQUEST_ID and _ID.fullmatch(value):
            return value.decode("ascii")
        if name == b"traceparent" and (match := _TRACEPARENT.fullmatch(value)):
            trace = match[1]
    if trace:
        return trace.decode("ascii")
    outer = current()
    return outer.id if outer is not None else os.urandom(8).hex()


def _belonging() -> dict[str, str]:
    request = current()
    named = {
        "request": request.id if request is not None else "",
        "workspace": (request.workspace_id if request is not None else "") or _workspace.get(),
    }
    return {name: value for name, value in named.items() if value}


class Text(logging.Formatter):
    """``head [request=... workspace=...]: message``, and traces in lines of their own, marked."""

    def format(self, record: logging.LogRecord) -> str:
        """One line for ``record``, and those of its trace."""
        record.asctime = self.formatTime(record)
        belonging = " ".join(f"{name}={value}" for name, value in _belonging().items())
        head = self.formatMessage(record) + (f" [{belonging}]" if belonging else "")
        lines = [f"{head}: {inert(_message(record))}"]
        lines += [f"    | {inert(line)}" for line in _trace(self, record).splitlines()]
        return "\n".join(lines).encode("utf-8", "backslashreplace").decode()


class Json(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and where there are any request,
    workspace and trace.
    """

    def format(self, record: logging.LogRecord) -> str:
        """One line for ``record``."""
        at = datetime.fromtimestamp(record.created, timezone.utc)
        told = {
            "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": _message(record),
            **_belonging(),
        }
        if trace := _trace(self, record):
            told["trace"] = trace
        return inert(json.dumps(told))


def handler(
    form: Form = "text", head: str = "%(asctime)s %(levelname)s %(name)s"
) -> logging.Handler:
    """What writes lines to stderr; ``head`` begins those of text."""
    writing = logging.StreamHandler()
    writing.setFormatter(Json() if form == "json" else Text(head))
    return writing


def _message(record: logging.LogRecord) -> str:
    return record.getMessage()[:_MAX_LETTERS]


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    parts = []
    if record.exc_info:
        parts.append(formatter.formatException(record.exc_info))
    if record.stack_info:
        parts.append(formatter.formatStack(record.stack_info))
    return "\n".join(parts)[-_MAX_LETTERS:]
