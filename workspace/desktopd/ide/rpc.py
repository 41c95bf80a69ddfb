"""JSON-RPC 2.0 over a unix socket, a line for each message, as the bridge in VS Code speaks it.

What answers is one of the user's programs: its lines are limited and parsed, and its errors become
those of the tree, by the codes in :data:`CODES`. Several calls may be under way; each is answered
by its id. When the connection goes, every call that waits ends with ``IdeFailed``: what it asked
for may have been done, and is not asked again.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
from contextlib import suppress
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from workspace import errors
from workspace.errors import CarrelError, IdeFailed, TooLarge

logger = logging.getLogger(__name__)

MAX_LINE_BYTES = 16 << 20
MAX_CALLS = 64
_WRITE_SECONDS = 10.0
_CLOSE_SECONDS = 1.0
_MAX_CHARS = 4000
# What an IDE may say that it is; anything else it says is a failure of its own.
# Not ``ide_not_ready``: who is told that asks again, and a bridge that answers may have begun.
CODES = frozenset(
    {
        "invalid_request", "file_not_found", "too_large", "unsupported", "edit_conflict",
        "not_debugging", "timed_out", "ide_failed", "is_a_directory",
        "not_a_directory", "file_exists", "conflict", "disk_full", "forbidden",
    }
)  # fmt: skip


class _Data(BaseModel):
    model_config = ConfigDict(extra="ignore")

    code: Annotated[str, Field(max_length=100)] = ""
    message: Annotated[str, Field(max_length=1 << 20)] = ""
    hint: Annotated[str, Field(max_length=1 << 20)] = ""


class _Error(BaseModel):
    model_config = ConfigDict(extra="ignore")

    message: Annotated[str, Field(max_length=1 << 20)] = ""
    data: _Data | None = None


class _Answer(BaseModel):
    model_config = ConfigDict(extra="ignore")

    id: int | None  # none of what it could not read
    result: JsonValue = None
    error: _Error | None = None


def error_of(told: _Error) -> CarrelError:
    """The error that an answer tells of."""
    data = told.data or _Data()
    message = (data.message or told.message or "The IDE says that it failed.")[:_MAX_CHARS]
    if data.code not in CODES:
        return IdeFailed(message)
    return errors.BY_CODE[data.code](message, hint=data.hint[:_MAX_CHARS] or None)


class Link:
    """One connection. ``closed`` is when it has ended, by whichever side."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[JsonValue]] = {}
        self._turn = asyncio.Lock()
        self._why = "it closed the connection"
        self.closed = asyncio.Event()
        self._reading = asyncio.ensure_future(self._read())

    @classmethod
    async def open(cls, path: str) -> Link:
        """Raises OSError: nobody listens there."""
        return cls(*await asyncio.open_unix_connection(path, limit=MAX_LINE_BYTES))

    async def call(self, method: str, params: JsonValue) -> JsonValue:
        """What it answers; cancelled, it is told to give that up. No deadline of its own.

        Raises:
            TooLarge: more is sent than a line may have.
            IdeFailed: the connection ended. CarrelError: as it answers.
        """
        if self.closed.is_set() or len(self._waiting) >= MAX_CALLS:
            raise (
                self._failed()
                if self.closed.is_set()
                else errors.TooMany(
                    f"{MAX_CALLS} calls wait for the IDE.", hint="Ask again when some are answered."
                )
            )
        id_ = next(self._ids)
        line = _line({"id": id_, "method": method, "params": params})
        answered: asyncio.Future[JsonValue] = asyncio.get_running_loop().create_future()
        self._waiting[id_] = answered
        try:
            await self._write(line)
            return await answered
        except asyncio.CancelledError:
            if not self.closed.is_set():  # no await: it is being cancelled. Nobody waits for it.
                cancel = {"id": next(self._ids), "method": "cancel", "params": {"id": id_}}
                self._writer.write(_line(cancel))
            raise
        finally:
            self._waiting.pop(id_, None)

    async def aclose(self) -> None:
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        with suppress(OSError, asyncio.TimeoutError):
            await asyncio.wait_for(self._writer.wait_closed(), _CLOSE_SECONDS)

    async def _write(self, line: bytes) -> None:
        async with self._turn:
            self._writer.write(line)
            try:
                await asyncio.wait_for(self._writer.drain(), _WRITE_SECONDS)
            except asyncio.TimeoutError:
                self._end(f"it has read nothing for {_WRITE_SECONDS:g} s")
                raise self._failed() from None
            except OSError:
                raise self._failed() from None

    async def _read(self) -> None:
        try:
            while True:
                line = await self._reader.readuntil(b"\n")
                answer = _Answer.model_validate_json(line)
                waiting = self._waiting.get(answer.id or 0)
                if waiting is None or waiting.done():
                    continue  # it was given up
                if answer.error is not None:
                    waiting.set_exception(error_of(answer.error))
                else:
                    waiting.set_result(answer.result)
        except asyncio.LimitOverrunError:
            self._why = f"its answer is longer than {MAX_LINE_BYTES >> 20} MiB"
        except ValidationError:
            self._why = "what it sends is no answer"
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._end(self._why)

    def _end(self, why: str) -> None:
        if self.closed.is_set():
            return
        self._why = why
        self.closed.set()
        self._writer.transport.abort()
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(self._failed())

    def _failed(self) -> IdeFailed:
        return IdeFailed(f"The IDE went away before it answered: {self._why}.")


def _line(message: dict[str, Any]) -> bytes:  # Any: JSON values
    line = json.dumps({"jsonrpc": "2.0"} | message, separators=(",", ":")).encode() + b"\n"
    if len(line) > MAX_LINE_BYTES:
        raise TooLarge(f"That is longer than the {MAX_LINE_BYTES >> 20} MiB that an IDE takes.")
    return line
