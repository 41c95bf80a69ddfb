"""The rows of artifacts, and of the bytes (blobs) that they share.

A blob's row is there before its bytes are and goes after them, so that what a crash leaves can be
found by it. It counts up with every use. Bytes are removed in three steps, so that any number of
controllers may save and remove the same at once: the row is marked, if nobody has used it since it
was seen that no artifact has it; the bytes are removed; the row is. While it is marked nobody can
use it, and who wanted to begins anew: see :meth:`ArtifactRows.reserve` and
:meth:`ArtifactRows.add`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Row, delete, exists, func, insert, literal, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from controller.store.doing import Doing
from controller.store.tables import UtcTime, artifacts, blobs, workspaces
from workspace.artifacts import Artifact, ArtifactKind
from workspace.errors import ArtifactNotFound, InvalidRequest


def no_such(artifact_id: str) -> ArtifactNotFound:
    """Of one that never was, and of one that is somebody else's."""
    return ArtifactNotFound(f"There is no artifact {artifact_id[:100]!r}.")


class Blob(NamedTuple):
    """A blob as its row has it."""

    digest: str
    size: int


class ArtifactRows:
    """The artifacts of one store; see :class:`controller.store.Store`."""

    def __init__(self, doing: Doing) -> None:
        self._do = doing.do
        self._rows = doing.rows
        self._transact = doing.transact
        self._insert = doing.insert

    # Saving: reserve, write the bytes, add.

    async def reserve(self, digest: str, size: int, *, now: datetime) -> int:
        """Say that the bytes are about to be written: how often they have been used, this included.

        1: they are new. 0: they are being removed, so they cannot be written yet.
        """
        new = self._insert(blobs).values(digest=digest, size=size, version=1, touched_at=now)
        statement = new.on_conflict_do_update(
            index_elements=[blobs.c.digest],
            set_={"version": blobs.c.version + 1, "touched_at": new.excluded.touched_at},
            where=blobs.c.removed_at.is_(None),
        ).returning(blobs.c.version)
        found: int | None = await self._do(lambda it: it.scalar(statement))
        return found or 0

    async def add(self, artifact: Artifact) -> bool:
        """Keep its row, once its bytes are written. False: they have been removed meanwhile."""
        use = (
            update(blobs)
            .where(blobs.c.digest == artifact.digest, blobs.c.removed_at.is_(None))
            .values(version=blobs.c.version + 1, touched_at=artifact.created_at)
        )

        async def work(connection: AsyncConnection) -> bool:
            if not (await connection.execute(use)).rowcount:
                return False
            await connection.execute(insert(artifacts).values(**artifact.model_dump()))
            return True

        return await self._transact(work)

    # Looking.

    async def get(self, artifact_id: str) -> Artifact:
        """
        Raises:
            ArtifactNotFound.
        """
        rows = await self._rows(select(artifacts).where(artifacts.c.id == artifact_id))
        if not rows:
            raise no_such(artifact_id)
        return _artifact(rows[0])

    async def find(self, workspace_id: str, kind: ArtifactKind, digest: str) -> Artifact | None:
        """One of a workspace with these bytes."""
        asked = select(artifacts).where(
            artifacts.c.digest == digest,
            artifacts.c.workspace_id == workspace_id,
            artifacts.c.kind == kind,
        )
        rows = await self._rows(asked.limit(1))
        return _artifact(rows[0]) if rows else None

    async def page(
        self, workspace_id: str, kind: ArtifactKind | None, *, limit: int, after: str | None
    ) -> list[Artifact]:
        """A workspace's, oldest first, those that were made after ``after``.

        Raises:
            InvalidRequest: it has no artifact ``after``.
        """
        asked = select(artifacts).where(artifacts.c.workspace_id == workspace_id)
        if kind is not None:
            asked = asked.where(artifacts.c.kind == kind)
        if after is not None:
            one = select(artifacts.c.created_at).where(
                artifacts.c.id == after, artifacts.c.workspace_id == workspace_id
            )
            rows = await self._rows(one)
            if not rows:
                raise InvalidRequest(
                    f"after: there is no artifact {after!r}.",
                    hint="Give the 'after' of the page before, or none for the first page.",
                )
            age = tuple_(artifacts.c.created_at, artifacts.c.id)
            asked = asked.where(age > tuple_(literal(rows[0][0], UtcTime), literal(after)))
        asked = asked.order_by(artifacts.c.created_at, artifacts.c.id).limit(limit)
        return [_artifact(row) for row in await self._rows(asked)]

    async def used_by(self, workspace_id: str) -> int:
        """How many bytes a workspace's artifacts have, each counted for itself."""
        total = func.coalesce(func.sum(artifacts.c.size), 0)
        return int(
            (await self._rows(select(total).where(artifacts.c.workspace_id == workspace_id)))[0][0]
        )

    async def used(self) -> int:
        """How many bytes there are in all, those that several have counted once."""
        return int((await self._rows(select(func.coalesce(func.sum(blobs.c.size), 0))))[0][0])

    async def known(self, digests: Collection[str]) -> set[str]:
        """Those of them that have a row."""
        asked = select(blobs.c.digest).where(blobs.c.digest.in_(list(digests)))
        return {row.digest for row in await self._rows(asked)}

    # Removing.

    async def drop(self, artifact_id: str) -> Artifact | None:
        """Take its row away; None if there is none."""
        gone = delete(artifacts).where(artifacts.c.id == artifact_id).returning(*artifacts.c)
        row = await self._do(lambda it: _first(it, gone))
        return _artifact(row) if row is not None else None

    async def drop_old(
        self,
        kind: ArtifactKind,
        *,
        before: datetime,
        limit: int,
        tenant: str | None = None,
        but: Collection[str] = (),
    ) -> Sequence[Artifact]:
        """Take away the rows of a kind that are older; those that were, ``limit`` at most.

        Of one tenant; or, without one, of all ``but`` some.
        """
        old = select(artifacts.c.id).where(artifacts.c.kind == kind)
        if tenant is not None or but:
            whose = workspaces.c.id == artifacts.c.workspace_id
            is_of = workspaces.c.tenant == tenant if tenant else workspaces.c.tenant.in_(but)
            exists = select(workspaces.c.id).where(whose, is_of).exists()
            old = old.where(exists if tenant else ~exists)
        old = (
            old.where(artifacts.c.created_at < before).order_by(artifacts.c.created_at).limit(limit)
        )
        gone = (
            delete(artifacts)
            .where(artifacts.c.id.in_(old.scalar_subquery()))
            .returning(*artifacts.c)
        )

        async def work(connection: AsyncConnection) -> list[Row[Any]]:  # Any: a row's columns
            return list((await connection.execute(gone)).all())

        return [_artifact(row) for row in await self._do(work)]

    async def begin_removal(self, digest: str, *, now: datetime) -> bool:
        """Have nobody use the bytes from now on; False if somebody does."""
        seen = await self._rows(select(blobs.c.version).where(blobs.c.digest == digest))
        if not seen:
            return False
        has = select(artifacts.c.id).where(artifacts.c.digest == digest).limit(1)
        if await self._rows(has):  # in this order: who adds one counts up before it can be seen
            return False
        mark = (
            update(blobs)
            .where(
                blobs.c.digest == digest,
                blobs.c.version == seen[0].version,
                blobs.c.removed_at.is_(None),
            )
            .values(removed_at=now)
        )
        # Once only: a second try could not tell its own deed from another's.
        return bool((await self._do(lambda it: it.execute(mark), is_repeatable=False)).rowcount)

    async def end_removal(self, digest: str) -> None:
        """The bytes are gone."""
        gone = delete(blobs).where(blobs.c.digest == digest, blobs.c.removed_at.is_not(None))
        await self._do(lambda it: it.execute(gone))

    async def half_removed(self, *, before: datetime, limit: int) -> list[Blob]:
        """Those whose removal began before that, and has not ended."""
        asked = select(blobs.c.digest, blobs.c.size).where(blobs.c.removed_at < before)
        return [Blob(row.digest, row.size) for row in await self._rows(asked.limit(limit))]

    async def page_of_unused(
        self, *, after: str, before: datetime, limit: int
    ) -> tuple[list[Blob], str | None]:
        """Of the next ``limit`` blobs after that digest those that no artifact has, untouched since
        ``before``; and the last digest that was looked at, None at the end.
        """
        some = select(blobs).where(blobs.c.digest > after).order_by(blobs.c.digest).limit(limit)
        page = some.subquery()
        is_used = exists().where(artifacts.c.digest == page.c.digest)
        asked = select(page.c.digest, page.c.size, page.c.touched_at, is_used.label("is_used"))
        rows = await self._rows(asked.order_by(page.c.digest))
        unused = [
            Blob(row.digest, row.size)
            for row in rows
            if not row.is_used and row.touched_at < before
        ]
        return unused, rows[-1].digest if len(rows) == limit else None

    async def adopt(self, digest: str, size: int, *, touched_at: datetime) -> None:
        """Write a row for bytes that have none; again is success."""
        new = self._insert(blobs).values(digest=digest, size=size, version=1, touched_at=touched_at)
        await self._do(lambda it: it.execute(new.on_conflict_do_nothing()))


# Any: SQLAlchemy's own, and a row's columns
async def _first(connection: AsyncConnection, statement: Any) -> Row[Any] | None:
    return (await connection.execute(statement)).first()


def _artifact(row: Row[Any]) -> Artifact:  # Any: a row's columns, validated here
    return Artifact.model_validate(dict(row._mapping))
