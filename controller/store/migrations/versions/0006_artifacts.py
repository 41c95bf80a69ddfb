"""Artifacts, their bytes, and which frames a workspace keeps."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column(
        "workspaces",
        sa.Column("keep_frames", sa.String(10), nullable=False, server_default="none"),
    )
    op.create_table(
        "artifacts",
        sa.Column("id", sa.String(20), primary_key=True),
        sa.Column("workspace_id", sa.String(20), nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("media_type", sa.String(100), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("meta", sa.JSON, nullable=False),
    )
    op.create_index(
        "ix_artifacts_workspace_id_created_at_id",
        "artifacts",
        ["workspace_id", "created_at", "id"],
    )
    op.create_index("ix_artifacts_kind_created_at", "artifacts", ["kind", "created_at"])
    op.create_index("ix_artifacts_digest", "artifacts", ["digest"])
    op.create_table(
        "blobs",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("touched_at", _TIME, nullable=False),
        sa.Column("removed_at", _TIME),
    )
    op.create_index("ix_blobs_removed_at", "blobs", ["removed_at"])


def downgrade() -> None:
    op.drop_table("blobs")
    op.drop_table("artifacts")
    op.drop_column("workspaces", "keep_frames")
