"""Volumes, and which a workspace has."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("workspaces", sa.Column("volume", sa.String(63)))
    op.create_table(
        "volumes",
        sa.Column("id", sa.String(20), primary_key=True),
        sa.Column("owner", sa.String(100), nullable=False),
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("node", sa.String(200)),
        sa.Column("size_bytes", sa.BigInteger),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("last_used_at", _TIME),
        sa.Column("used_by", sa.String(20)),
        sa.Column("removed_at", _TIME),
    )
    op.create_index("ix_volumes_owner_name", "volumes", ["owner", "name"], unique=True)


def downgrade() -> None:
    op.drop_table("volumes")
    op.drop_column("workspaces", "volume")
