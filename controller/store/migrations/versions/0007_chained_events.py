"""Events are chained; what was there is chained as it stands."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

from controller.store.chain import Head, canonical, digest
from controller.store.tables import UtcTime

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)
_PAGE = 1000
_events = sa.table(
    "events",
    sa.column("id", sa.BigInteger),
    sa.column("at", UtcTime),
    sa.column("workspace_id", sa.String),
    sa.column("actor", sa.String),
    sa.column("kind", sa.String),
    sa.column("data", sa.JSON),
    sa.column("seq", sa.BigInteger),
    sa.column("hash", sa.String),
)


def upgrade() -> None:
    op.add_column("events", sa.Column("seq", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("events", sa.Column("hash", sa.String(64), nullable=False, server_default=""))
    chains = op.create_table(
        "chains",
        sa.Column("chain", sa.String(20), primary_key=True),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("base_seq", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("base_hash", sa.String(64), nullable=False, server_default=""),
        sa.Column("base_signature", sa.String(64), nullable=False, server_default=""),
    )
    op.create_table(
        "checkpoints",
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("upto", sa.BigInteger, nullable=False),
        sa.Column("lines", sa.BigInteger, nullable=False),
        sa.Column("sum", sa.String(64), nullable=False),
        sa.Column("removed_lines", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("removed_sum", sa.String(64), nullable=False, server_default=""),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("signature", sa.String(64), nullable=False),
    )
    _chain(op.get_bind(), chains)


def _chain(connection: sa.Connection, chains: sa.Table) -> None:
    """Link the lines that are there, chain after chain."""
    of_none = _events.c.workspace_id.is_(None)
    place = sa.tuple_(_events.c.workspace_id, _events.c.id)
    chain, head = "", Head()
    for begin, order in ((of_none, [_events.c.id]), (~of_none, list(place))):
        asked = sa.select(_events).where(begin).order_by(*order).limit(_PAGE)
        page = asked
        while rows := connection.execute(page).all():
            changes: list[dict[str, Any]] = []  # Any: column values
            for row in rows:
                if (row.workspace_id or "") != chain:
                    _end(connection, chains, chain, head)
                    chain, head = row.workspace_id, Head()
                seq = head.seq + 1
                text = canonical(row.data)
                made = digest(head.hash, chain, seq, row.at, row.actor, row.kind, text)
                head = Head(seq, made)
                changes.append({"of": row.id, "to_seq": seq, "to_hash": made})
            connection.execute(
                sa.update(_events)
                .where(_events.c.id == sa.bindparam("of"))
                .values(seq=sa.bindparam("to_seq"), hash=sa.bindparam("to_hash")),
                changes,
            )
            last = rows[-1]
            after = (
                _events.c.id > last.id
                if last.workspace_id is None
                else place > sa.tuple_(sa.literal(last.workspace_id), sa.literal(last.id))
            )
            page = asked.where(after)
    _end(connection, chains, chain, head)


def _end(connection: sa.Connection, chains: sa.Table, chain: str, head: Head) -> None:
    if head.seq:
        connection.execute(sa.insert(chains).values(chain=chain, seq=head.seq, hash=head.hash))


def downgrade() -> None:
    op.drop_table("checkpoints")
    op.drop_table("chains")
    op.drop_column("events", "hash")
    op.drop_column("events", "seq")
