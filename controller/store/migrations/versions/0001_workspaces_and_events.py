"""Workspaces, and the log of events."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "workspaces",
        sa.Column("id", sa.String(20), primary_key=True),
        sa.Column("owner", sa.String(100), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("template", sa.String(63), nullable=False),
        sa.Column("screen", sa.JSON, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("ready_at", _TIME),
        sa.Column("ended_at", _TIME),
        sa.Column("expires_at", _TIME, nullable=False),
        sa.Column("metadata", sa.JSON, nullable=False),
        sa.Column("node", sa.String(200)),
        sa.Column("error", sa.JSON),
    )
    op.create_index("ix_workspaces_created_at_id", "workspaces", ["created_at", "id"])
    op.create_index(
        "ix_workspaces_state_created_at_id", "workspaces", ["state", "created_at", "id"]
    )
    op.create_table(
        "events",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer, "sqlite"),
            primary_key=True,
            autoincrement=True,
        ),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("workspace_id", sa.String(20)),
        sa.Column("actor", sa.String(100), nullable=False),
        sa.Column("kind", sa.String(40), nullable=False),
        sa.Column("data", sa.JSON, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_events_workspace_id_id", "events", ["workspace_id", "id"])


def downgrade() -> None:
    op.drop_table("events")
    op.drop_table("workspaces")
