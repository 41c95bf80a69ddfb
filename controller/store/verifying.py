"""The whole log verified as it stands in a database: every line, head, base and checkpoint.

A controller may write meanwhile: what is read is one moment. A page of lines is in memory at a
time, and a hundred bytes for each checkpoint.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from alembic.script import ScriptDirectory
from sqlalchemy import ColumnElement, Row, Select, case, exists, literal, select, true, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from controller.store import databases, signing
from controller.store.backup import moment, step_of
from controller.store.chain import Finding, Head, Line, Walk
from controller.store.checkpoints import base_of, to_checkpoint
from controller.store.migrations import configuration
from controller.store.signing import Checkpoint, Signer
from controller.store.tables import chains, checkpoints, events, workspaces
from workspace.errors import Unavailable

PAGE = 500
Tell = Callable[[Finding], None]


@dataclass
class Report:
    """What was looked at, and what is wrong with it."""

    lines: int = 0
    chains: int = 0
    checkpoints: int = 0
    unsigned: int = 0  # lines that no checkpoint is of yet
    is_signed: bool = False  # whether signatures were looked at: it takes the controllers' secret
    newest: Checkpoint | None = None
    findings: int = 0


@dataclass
class _Sums:
    """What the lines of each checkpoint come to."""

    kept: list[Checkpoint]
    uptos: list[int] = field(init=False)
    sums: list[int] = field(init=False)
    lines: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.uptos = [each.upto for each in self.kept]
        self.sums = [0] * len(self.kept)
        self.lines = [0] * len(self.kept)


async def verify(
    url: str, signer: Signer | None, tell: Tell, *, workspace: str | None = None
) -> Report:
    """Verify all, or one workspace's chain alone; ``tell`` is told of what is wrong.

    Raises:
        Unavailable: the database cannot be read, or is of another Carrel.
    """
    async with moment(url) as connection:
        await check_schema(connection, url)
        return await _Verifier(connection, signer, tell).run(workspace)


async def check_schema(connection: AsyncConnection, url: str) -> None:
    step = await connection.run_sync(step_of)
    head = ScriptDirectory.from_config(configuration()).get_current_head()
    if step != head:
        raise Unavailable(
            f"The state in {databases.shown(url)!r} is another Carrel's: its schema is {step}.",
            hint="Start this Carrel's controller once: it brings the schema up to date.",
        )


class _Verifier:
    def __init__(self, connection: AsyncConnection, signer: Signer | None, tell: Tell) -> None:
        self._connection = connection
        self._signer = signer
        self._tell_one = tell
        self._report = Report(is_signed=signer is not None)

    async def run(self, workspace: str | None) -> Report:
        if workspace is not None:
            await self._walk(events.c.workspace_id == workspace, _Sums([]))
            await self._bases(chains.c.chain == workspace)
            await self._without_chain(workspaces.c.id == workspace)
            self._report.unsigned = 0
            return self._report
        sums = _Sums(await self._checkpoints())
        await self._walk(events.c.workspace_id.is_(None), sums)
        await self._walk(events.c.workspace_id.is_not(None), sums)
        await self._bases(true())
        await self._without_chain(true())
        self._compare(sums)
        return self._report

    def _tell(self, *findings: Finding) -> None:
        for finding in findings:
            self._report.findings += 1
            self._tell_one(finding)

    # Lines.

    async def _walk(self, which: ColumnElement[bool], sums: _Sums) -> None:
        """The lines of chain after chain."""
        walk: Walk | None = None
        kept: dict[str, Row[Any]] = {}  # Any: a chain's columns
        async for rows in self._pages(which):
            lines = [_line(row) for row in rows]
            names = {line.chain for line in lines} | ({walk.chain} if walk else set())
            kept = await self._kept(names, kept)
            for line in lines:
                if walk is None or walk.chain != line.chain:
                    self._end(walk, kept)
                    row = kept.get(line.chain)
                    walk = Walk(line.chain, base_of(row) if row else Head())
                self._tell(*walk.step(line))
                self._count(line, sums)
        self._end(walk, kept)

    def _end(self, walk: Walk | None, kept: Mapping[str, Row[Any]]) -> None:  # Any: as above
        if walk is not None:
            row = kept.get(walk.chain)
            self._report.chains += 1
            self._tell(*walk.end(Head(row.seq, row.hash) if row else None))

    async def _pages(self, which: ColumnElement[bool]) -> AsyncIterator[Sequence[Row[Any]]]:
        """By chain, and in a chain by id: as an index has them. Any: their columns."""
        place = tuple_(events.c.workspace_id, events.c.id)
        asked = select(events).where(which).order_by(*place).limit(PAGE)
        rows = (await self._connection.execute(asked)).all()
        while rows:
            yield rows
            last = rows[-1]
            after = (
                events.c.id > last.id
                if last.workspace_id is None
                else place > tuple_(literal(last.workspace_id), literal(last.id))
            )
            rows = (await self._connection.execute(asked.where(after))).all()

    async def _kept(
        self, names: set[str], known: Mapping[str, Row[Any]]
    ) -> dict[str, Row[Any]]:  # Any: as above
        """What is kept of these chains."""
        rows = await self._rows(select(chains).where(chains.c.chain.in_(names - known.keys())))
        still = {name: known[name] for name in names & known.keys()}
        return still | {row.chain: row for row in rows}

    def _count(self, line: Line, sums: _Sums) -> None:
        self._report.lines += 1
        place = bisect_left(sums.uptos, line.id)
        if place == len(sums.uptos):
            self._report.unsigned += 1
            return
        sums.lines[place] += 1
        if self._signer is not None:
            sums.sums[place] += self._signer.line(line.id, line.hash)

    # What has no line.

    async def _bases(self, which: ColumnElement[bool]) -> None:
        """Chains whose lines are all gone, and those whose first lines were removed in order."""
        has_lines = exists().where(events.c.workspace_id == chains.c.chain)
        has_lines_of_none = exists().where(events.c.workspace_id.is_(None))
        here = case((chains.c.chain == "", has_lines_of_none), else_=has_lines)
        asked = select(chains, here.label("has_lines")).where(which).order_by(chains.c.chain)
        async for row in self._each(asked.limit(PAGE), chains.c.chain):
            base = base_of(row)
            if not row.has_lines and row.seq > base.seq:
                why = f"all of its lines, {base.seq + 1} to {row.seq}, are gone"
                self._tell(Finding(row.chain, base.seq + 1, "removed", why))
            elif not row.has_lines and row.hash != base.hash:
                self._tell(Finding(row.chain, row.seq, "base", "it does not end where it begins"))
            if base.seq and self._signer is not None:
                if row.base_signature != self._signer.base(row.chain, base):
                    why = f"that lines up to {base.seq} were removed by their age is not signed"
                    self._tell(Finding(row.chain, base.seq, "base", why))

    async def _without_chain(self, which: ColumnElement[bool]) -> None:
        """Workspaces of which no line was ever written, as it seems: each has one of its claim."""
        is_known = exists().where(chains.c.chain == workspaces.c.id)
        asked = select(workspaces.c.id).where(which, ~is_known).order_by(workspaces.c.id)
        async for row in self._each(asked.limit(PAGE), workspaces.c.id):
            why = "it is a workspace, and all of its lines are gone"
            self._tell(Finding(row.id, None, "removed", why))

    async def _each(
        self, asked: Select[Any], key: ColumnElement[str]
    ) -> AsyncIterator[Row[Any]]:  # Any: their columns
        rows = await self._rows(asked)
        while rows:
            for row in rows:
                yield row
            rows = await self._rows(asked.where(key > rows[-1][0]))

    async def _rows(self, asked: Select[Any]) -> Sequence[Row[Any]]:  # Any: their columns
        found: Sequence[Row[Any]] = (await self._connection.execute(asked)).all()  # Any: as above
        return found

    # Checkpoints.

    async def _checkpoints(self) -> list[Checkpoint]:
        """All of them, each checked against the one before."""
        found: list[Checkpoint] = []
        asked = select(checkpoints).order_by(checkpoints.c.number).limit(PAGE)
        before: Checkpoint | None = None
        rows = await self._rows(asked)
        while rows:
            for each in map(to_checkpoint, rows):
                self._check(each, before)
                before = each
                found.append(each)
            rows = await self._rows(asked.where(checkpoints.c.number > found[-1].number))
        self._report.checkpoints, self._report.newest = len(found), before
        return found

    def _check(self, each: Checkpoint, before: Checkpoint | None) -> None:
        expected = before.number + 1 if before else 1
        if each.number != expected:
            self._tell_of(each, f"checkpoint {expected} is gone")
            return
        made = signing.hashed(before, each.number, each.at, each.upto, each.lines, each.sum)
        if made != each.hash:
            self._tell_of(each, f"checkpoint {each.number} is not what its hash is of")
        elif self._signer is not None:
            signed = self._signer.checkpoint(each.hash, each.removed_lines, each.removed_sum)
            if signed != each.signature:
                self._tell_of(
                    each, f"checkpoint {each.number} is not signed with this CARREL_SECRET"
                )

    def _compare(self, sums: _Sums) -> None:
        first = 1
        for each, sum_, lines in zip(sums.kept, sums.sums, sums.lines, strict=True):
            wanted = each.lines - each.removed_lines
            where = f"checkpoint {each.number} (events {first} to {each.upto}, until {each.at})"
            first = each.upto + 1
            if lines != wanted:
                self._tell_of(each, f"{where} is of {wanted} lines, and {lines} are there")
            elif self._signer is not None:
                rest = signing.to_number(each.sum) - signing.to_number(each.removed_sum)
                if signing.to_text(rest) != signing.to_text(sum_):
                    self._tell_of(each, f"{where} is of other lines than are there")

    def _tell_of(self, each: Checkpoint, why: str) -> None:
        self._tell(Finding(None, each.number, "checkpoint", why))


def _line(row: Row[Any]) -> Line:  # Any: its columns
    return Line(
        row.id, row.at, row.workspace_id or "", row.actor, row.kind, row.data, row.seq, row.hash
    )
