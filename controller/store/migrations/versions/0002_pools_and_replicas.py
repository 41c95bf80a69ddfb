"""Warm desktops, pools, replicas, and what a workspace has of them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column(
        "workspaces", sa.Column("sandbox", sa.String(20), nullable=False, server_default="")
    )
    op.add_column(
        "workspaces", sa.Column("keeper", sa.String(200), nullable=False, server_default="")
    )
    op.add_column("workspaces", sa.Column("claim_key", sa.String(100)))
    op.add_column("workspaces", sa.Column("idle_seconds", sa.Float))
    op.add_column(
        "workspaces",
        sa.Column("when_idle", sa.String(10), nullable=False, server_default="release"),
    )
    op.execute("UPDATE workspaces SET sandbox = id")
    op.create_index("ix_workspaces_sandbox", "workspaces", ["sandbox"])
    op.create_index(
        "ix_workspaces_owner_claim_key", "workspaces", ["owner", "claim_key"], unique=True
    )
    op.create_table(
        "warm",
        sa.Column("id", sa.String(20), primary_key=True),
        sa.Column("template", sa.String(63), nullable=False),
        sa.Column("shape", sa.String(64), nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("keeper", sa.String(200), nullable=False),
        sa.Column("node", sa.String(200)),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("ready_at", _TIME),
    )
    op.create_index("ix_warm_state_shape_created_at", "warm", ["state", "shape", "created_at"])
    op.create_table(
        "pools",
        sa.Column("template", sa.String(63), primary_key=True),
        sa.Column("changes", sa.JSON, nullable=False),
    )
    op.create_table(
        "replicas",
        sa.Column("id", sa.String(200), primary_key=True),
        sa.Column("beats", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "drains",
        sa.Column("node", sa.String(100), primary_key=True),
        sa.Column("since", _TIME, nullable=False),
    )


def downgrade() -> None:
    for table in ("drains", "replicas", "pools", "warm"):
        op.drop_table(table)
    op.drop_index("ix_workspaces_owner_claim_key", "workspaces")
    op.drop_index("ix_workspaces_sandbox", "workspaces")
    for column in ("when_idle", "idle_seconds", "claim_key", "keeper", "sandbox"):
        op.drop_column("workspaces", column)
