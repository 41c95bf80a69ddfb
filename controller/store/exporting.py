"""The log as JSON lines, for whoever keeps it elsewhere; and such a file verified.

The first line says what the file is; then comes one for each chain in it (where it begins and
ends), then the events in the order of their ids, then one with the SHA-256 of all lines before it,
signed with the controllers' secret. So the chains of a file can be verified by anybody, and with
the secret also that no line of it is another than was written: the file need not be whole to tell.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from sqlalchemy import ColumnElement, exists, func, select, true
from sqlalchemy.ext.asyncio import AsyncConnection

from controller.store.backup import moment
from controller.store.chain import Finding, Head, Line, Walk
from controller.store.checkpoints import base_of
from controller.store.signing import Signer
from controller.store.tables import chains, events
from controller.store.verifying import PAGE, Report, check_schema
from workspace.errors import InvalidRequest

FORMAT = 1
MAX_LINE_BYTES = 16 << 20


async def export(
    url: str,
    signer: Signer | None,
    *,
    workspace: str | None = None,
    since: datetime | None = None,
) -> AsyncGenerator[bytes, None]:
    """The lines, some at a time: of all, or of one workspace; from the beginning, or a time on.

    Raises:
        Unavailable: the database cannot be read, or is of another Carrel.
    """
    running = hashlib.sha256()

    def text(*lines: Mapping[str, Any]) -> bytes:  # Any: JSON values
        told = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines).encode()
        running.update(told)
        return told

    async with moment(url) as connection:
        await check_schema(connection, url)
        first = 0 if since is None else await _first(connection, since)
        yield text(
            {
                "carrel_audit": FORMAT,
                "made_at": _when(datetime.now(timezone.utc)),
                "workspace": workspace,
                "since": since and _when(since),
            }
        )
        async for heads in _heads(connection, workspace, first):
            yield text(*heads)
        many = 0
        which = events.c.id >= first
        if workspace is not None:
            which &= events.c.workspace_id == workspace
        async for lines in _lines(connection, which):
            many += len(lines)
            yield text(*lines)
    sha256 = running.hexdigest()
    end = {"events": many, "sha256": sha256, "signature": signer.file(sha256) if signer else ""}
    yield json.dumps({"end": end}, separators=(",", ":")).encode() + b"\n"


async def _first(connection: AsyncConnection, since: datetime) -> int:
    """The id from which on lines are as new: ids and times go up together."""
    low, high = 0, int(await connection.scalar(select(func.max(events.c.id))) or 0) + 1
    while low < high:
        middle = (low + high) // 2
        asked = select(events.c.id, events.c.at).where(events.c.id > middle).order_by(events.c.id)
        row = (await connection.execute(asked.limit(1))).first()
        if row is None or row.at >= since:
            high = middle
        else:
            low = row.id
    return low + 1


async def _heads(
    connection: AsyncConnection, workspace: str | None, first: int
) -> AsyncIterator[list[dict[str, Any]]]:  # Any: JSON values
    """Where the chains that are in it begin and end."""
    own = events.c.workspace_id == chains.c.chain
    of_none = (chains.c.chain == "") & events.c.workspace_id.is_(None)
    here = exists().where(own, events.c.id >= first)
    here_of_none = exists().where(of_none, events.c.id >= first)
    condition: ColumnElement[bool] = here | here_of_none if first else true()
    asked = select(chains).where(condition).order_by(chains.c.chain).limit(PAGE)
    if workspace is not None:
        asked = asked.where(chains.c.chain == workspace)
    rows = (await connection.execute(asked)).all()
    while rows:
        yield [
            {
                "chain": row.chain,
                "seq": row.seq,
                "hash": row.hash,
                "base_seq": base_of(row).seq,
                "base_hash": base_of(row).hash,
            }
            for row in rows
        ]
        rows = (await connection.execute(asked.where(chains.c.chain > rows[-1].chain))).all()


async def _lines(
    connection: AsyncConnection, which: ColumnElement[bool]
) -> AsyncIterator[list[dict[str, Any]]]:  # Any: JSON values
    asked = select(events).where(which).order_by(events.c.id).limit(PAGE)
    rows = (await connection.execute(asked)).all()
    while rows:
        yield [{**row._mapping, "at": _when(row.at)} for row in rows]
        rows = (await connection.execute(asked.where(events.c.id > rows[-1].id))).all()


def _when(at: datetime) -> str:
    return at.astimezone(timezone.utc).isoformat(timespec="microseconds")


# A file of it.


@dataclass
class _File:
    """What has been read of one."""

    signer: Signer | None
    tell: Callable[[Finding], None]
    report: Report = field(default_factory=Report)
    walks: dict[str, Walk] = field(default_factory=dict)
    heads: dict[str, Head] = field(default_factory=dict)
    is_from_a_time: bool = False
    last_id: int = 0

    def found(self, *findings: Finding) -> None:
        for finding in findings:
            self.report.findings += 1
            self.tell(finding)

    def head(self, told: dict[str, Any]) -> None:  # Any: JSON values
        chain, base = str(told["chain"]), Head(int(told["base_seq"]), str(told["base_hash"]))
        self.heads[chain] = Head(int(told["seq"]), str(told["hash"]))
        self.walks[chain] = Walk(chain, None if self.is_from_a_time else base)

    def event(self, told: dict[str, Any]) -> None:  # Any: JSON values
        line = _parsed(told)
        if line.chain not in self.walks:
            self.walks[line.chain] = Walk(line.chain, None if self.is_from_a_time else Head())
        if line.id <= self.last_id:
            why = f"line {line.seq} ({line.kind}) stands after a later one"
            self.found(Finding(line.chain, line.seq, "reordered", why))
        self.last_id = max(line.id, self.last_id)
        self.report.lines += 1
        self.found(*self.walks[line.chain].step(line))

    def end(self) -> None:
        self.report.chains = len(self.walks)
        for chain, walk in self.walks.items():
            head = self.heads.get(chain)
            if walk.lines or head is None:
                self.found(*walk.end(head))
            elif not self.is_from_a_time:
                self.found(*walk.end(head))
            else:
                why = "it is said to be in this file, and none of its lines is"
                self.found(Finding(chain, None, "removed", why))


def verify_file(
    lines: Iterable[bytes], signer: Signer | None, tell: Callable[[Finding], None]
) -> Report:
    """Verify an export; ``tell`` is told of what is wrong. In memory is what each chain ends with.

    Raises:
        InvalidRequest: it is no export.
    """
    file = _File(signer, tell)
    running = hashlib.sha256()
    told_end: dict[str, Any] | None = None  # Any: JSON values
    objects = _objects(lines)
    raw, told = next(objects, (b"", None))
    if told is None or told.get("carrel_audit") != FORMAT:
        raise InvalidRequest("This is no export of Carrel's log, or a newer Carrel's.")
    file.is_from_a_time = told.get("since") is not None
    running.update(raw)
    for number, (raw, told) in enumerate(objects, 2):
        if told_end is not None:
            file.found(Finding(None, None, "file", f"line {number} of the file is after its end"))
            break
        elif told is not None and isinstance(told.get("end"), dict):
            told_end = told["end"]
            continue
        else:
            try:
                if told is None:
                    raise ValueError("it is no JSON object")
                (file.event if "id" in told else file.head)(told)
            except (KeyError, TypeError, ValueError) as error:
                why = f"line {number} of the file is not as it was written: {error!r:.200}"
                file.found(Finding(None, None, "file", why))
        running.update(raw)
    file.end()
    _check_end(file, told_end, running.hexdigest())
    return file.report


def _check_end(
    file: _File,
    told: dict[str, Any] | None,  # Any: JSON values
    sha256: str,
) -> None:
    if told is None:
        file.found(Finding(None, None, "file", "the end of the file is gone"))
        return
    if told.get("events") != file.report.lines:
        why = f"it was written with {told.get('events')} events, and has {file.report.lines}"
        file.found(Finding(None, None, "file", why))
    if told.get("sha256") != sha256:
        file.found(Finding(None, None, "file", "it is not as it was written"))
    elif file.signer is not None and told.get("signature"):
        file.report.is_signed = True
        if not hmac.compare_digest(str(told["signature"]), file.signer.file(sha256)):
            file.found(Finding(None, None, "file", "it is not signed with this CARREL_SECRET"))


def _objects(lines: Iterable[bytes]) -> Iterator[tuple[bytes, dict[str, Any] | None]]:
    """Each line, and the JSON object that it is. Any: JSON values."""
    for raw in lines:
        try:
            told = json.loads(raw) if len(raw) <= MAX_LINE_BYTES else None
        except (ValueError, RecursionError):
            told = None
        yield raw, told if isinstance(told, dict) else None


def _parsed(told: dict[str, Any]) -> Line:  # Any: JSON values
    return Line(
        int(told["id"]),
        datetime.fromisoformat(told["at"]),
        str(told["workspace_id"] or ""),
        str(told["actor"]),
        str(told["kind"]),
        told["data"],
        int(told["seq"]),
        str(told["hash"]),
    )
