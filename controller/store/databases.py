"""The two databases: how each is connected to, how long it is waited for, and what its errors say.

SQLite is a file of this machine. PostgreSQL is named by the URL that libpq takes (several hosts,
``sslmode``, ``target_session_attrs``), may be away for a while, and come back as another server: so
nothing waits for it longer than ``TRY_SECONDS``, and what is safe to do twice is tried again for
``AGAIN_SECONDS``. Every connection commits each statement by itself there, in one round trip; what
needs a transaction asks for one (:func:`transactional`).
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import anyio
import asyncpg  # type: ignore[import-untyped]  # it has no stubs
from sqlalchemy import Engine, create_engine, make_url
from sqlalchemy import event as sqlalchemy_event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from workspace import locks
from workspace.errors import CarrelError, Conflict, DiskFull, Unavailable

T = TypeVar("T")

SQLITE_PRAGMAS = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=NORMAL",
    "PRAGMA busy_timeout=5000",
    "PRAGMA foreign_keys=ON",
)
TRY_SECONDS = 5.0  # one attempt, connecting included
AGAIN_SECONDS = 3.0  # from the first attempt to the beginning of the last
POOL = 10  # connections; as many again while it is busy
# What the server itself gives up, so that a controller that is gone leaves no lock behind.
_SERVER_SETTINGS = {
    "application_name": "carrel",
    "statement_timeout": "4000",
    "lock_timeout": "4000",
    "idle_in_transaction_session_timeout": "60000",
}
FAILURES = (
    SQLAlchemyError,
    sqlite3.Error,
    OSError,
    asyncio.TimeoutError,  # another one than the builtin before Python 3.11
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
# Answers that are another's a moment later: shutting down, starting, too many connections, only
# a standby, a deadlock. Every other error that a server answers with stays.
_PASSING = frozenset({"57P01", "57P02", "57P03", "53300", "25006", "40001", "40P01"})
_NO_ROOM = "53100"
_closing: set[asyncio.Future[Any]] = set()  # Any: what nobody waits for


def is_postgres(engine: AsyncEngine) -> bool:
    return engine.dialect.name == "postgresql"


def connect(url: str) -> AsyncEngine:
    """The engine of a database; nothing is connected yet.

    Raises:
        Unavailable: it is no URL of a database that Carrel knows.
    """
    if url.partition(":")[0] in ("postgresql", "postgres", "postgresql+asyncpg"):
        return _postgres("postgresql:" + url.partition(":")[2])
    try:
        engine = create_async_engine(url, json_serializer=to_json)
        if engine.dialect.name != "sqlite":
            raise Unavailable(f"There is no way to a {engine.dialect.name} database.", hint=_URLS)
        _private(engine.url.database)
    except (SQLAlchemyError, ImportError, OSError) as error:
        raise Unavailable(
            f"The database that CARREL_DATABASE_URL names cannot be used: {error}", hint=_URLS
        ) from error
    sqlalchemy_event.listen(engine.sync_engine, "connect", _set_pragmas)
    return engine


_URLS = (
    "Give sqlite+aiosqlite:///path/to/carrel.db, or postgresql://user:password@host/database "
    "for the whole database."
)


async def dial(url: str) -> Any:  # Any: the driver's connection, untyped
    """A connection to a PostgreSQL, by its driver alone."""
    dsn = "postgresql:" + url.partition(":")[2]
    return await asyncpg.connect(dsn, timeout=TRY_SECONDS, server_settings=_SERVER_SETTINGS)


def _postgres(dsn: str) -> AsyncEngine:
    async def creator() -> Any:  # Any: the driver's connection, untyped
        return await dial(dsn)

    return create_async_engine(
        "postgresql+asyncpg://",
        async_creator=creator,
        isolation_level="AUTOCOMMIT",
        json_serializer=to_json,
        pool_size=POOL,
        max_overflow=POOL,
        pool_timeout=TRY_SECONDS,
    )


def transactional(engine: AsyncEngine, level: str = "READ COMMITTED") -> AsyncEngine:
    """``engine`` with transactions of more than one statement."""
    return engine.execution_options(isolation_level=level) if is_postgres(engine) else engine


def file_of(url: str) -> Path | None:
    """The file of a SQLite database; None for another one."""
    try:
        parsed = make_url(url)
    except SQLAlchemyError:  # of several hosts, or none at all: `connect` says so
        return None
    is_file = parsed.get_backend_name() == "sqlite" and parsed.database not in (None, ":memory:")
    return Path(str(parsed.database)) if is_file else None


@contextmanager
def alone(url: str) -> Iterator[None]:
    """For one controller at a time, if it is a file of SQLite; a PostgreSQL serves many.

    Raises:
        Conflict: another one uses that file.
    """
    file = file_of(url)
    if file is None:
        yield
        return
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = file.with_name(f"{file.name}.controller")
    descriptor = locks.take(lock)
    if descriptor is None:
        raise Conflict(
            f"Another controller uses the database {str(file)!r}.",
            hint="SQLite serves one controller. For several, have all of them use one PostgreSQL: "
            "set CARREL_DATABASE_URL.",
        )
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(descriptor)


def in_thread(engine: AsyncEngine) -> Engine | None:
    """A synchronous engine of the same file of SQLite; None where there is no such file."""
    if engine.dialect.name != "sqlite" or engine.url.database in (None, "", ":memory:"):
        return None
    own = create_engine(engine.url.set(drivername="sqlite"), json_serializer=to_json)
    sqlalchemy_event.listen(own, "connect", _set_pragmas)
    return own


def shown(url: str) -> str:
    """A URL without what must not be told."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


async def attempt(once: Callable[[], Awaitable[T]], url: str, *, is_repeatable: bool) -> T:
    """Do ``once`` within its time; again while the server is away, if doing it twice is harmless.

    Raises:
        Unavailable: it could not be done.
        DiskFull: for want of room.
    """
    is_remote = not url.startswith("sqlite")  # a file is waited for by its own busy_timeout
    last = time.monotonic() + AGAIN_SECONDS
    pause = 0.05
    while True:
        try:
            return await (_within(TRY_SECONDS, once()) if is_remote else _whole(once()))
        except FAILURES as error:
            again = is_repeatable and is_remote and is_passing(error)
            if not again or time.monotonic() + pause > last:
                raise unavailable(url, error) from error
        await anyio.sleep(pause)
        pause *= 2


async def _whole(work: Awaitable[T]) -> T:
    """``work``, done to its end though its caller may give it up: its thread goes on in any case,
    and a connection that was cut off in it could not be closed in order.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    finally:
        if not task.done():
            _closing.add(task)
            task.add_done_callback(_closed)


async def closed() -> None:
    """Wait for what was given up, for as long as one attempt may take."""
    mine = [task for task in _closing if task.get_loop() is asyncio.get_running_loop()]
    if mine:
        await asyncio.wait(mine, timeout=TRY_SECONDS)


async def _within(seconds: float, work: Awaitable[T]) -> T:
    """``work``, or TimeoutError. What is cut off is closed in a task of its own, as is what its
    caller gives up: that takes another two seconds of a server that hangs.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task}, timeout=seconds)
    finally:
        if not task.done():
            task.cancel()
            _closing.add(task)
            task.add_done_callback(_closed)
    if not task.done():
        raise TimeoutError
    return task.result()


def _closed(task: asyncio.Future[Any]) -> None:  # Any: what nobody waits for
    _closing.discard(task)
    if not task.cancelled():
        task.exception()  # or its loss would be logged


def is_passing(error: BaseException) -> bool:
    """Whether it may be well in a moment: the server is away, or tells so itself."""
    own = getattr(error, "orig", None) or error
    state = getattr(own, "sqlstate", None)
    if isinstance(state, str):
        return state in _PASSING or state.startswith("08")
    if isinstance(own, TimeoutError):  # one that hangs is not asked again
        return False
    return isinstance(own, OSError) or (
        isinstance(error, DBAPIError) and error.connection_invalidated
    )


def unavailable(url: str, error: BaseException) -> CarrelError:
    """What is told of a database that failed."""
    why = getattr(error, "orig", None) or error  # the driver's words, without the statement
    if "disk is full" in str(why) or getattr(why, "sqlstate", None) == _NO_ROOM:
        return DiskFull(f"The database {shown(url)!r} has no room.", hint="Free some on its disk.")
    told = str(why) or (
        "it did not answer in time"
        if isinstance(why, (TimeoutError, asyncio.TimeoutError))
        else type(why).__name__
    )
    return Unavailable(
        f"The database {shown(url)!r} cannot be used: {told}",
        hint="Desktops live on meanwhile: try again in a moment. Whoever runs the controller "
        "should check that database, CARREL_DATABASE_URL, and the room on its disk.",
    )


def to_json(value: Any) -> str:  # Any: JSON values
    """As JSON without the character that PostgreSQL keeps nowhere: U+FFFD stands in its place."""
    text = json.dumps(value, allow_nan=False)
    return json.dumps(_without_nul(value), allow_nan=False) if r"\u0000" in text else text


def _without_nul(value: Any) -> Any:  # Any: JSON values
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if isinstance(value, dict):
        return {_without_nul(key): _without_nul(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nul(each) for each in value]
    return value


def _private(path: str | None) -> None:
    """Make the file 0600 before SQLite does; its log files get the same mode."""
    if path and path != ":memory:":
        Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))


def _set_pragmas(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    for pragma in SQLITE_PRAGMAS:
        cursor.execute(pragma)
    cursor.close()
