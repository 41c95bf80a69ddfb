"""What agents have asked people for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "requests",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("workspace_id", sa.String(20), nullable=False),
        sa.Column("asked_by", sa.String(100), nullable=False),
        sa.Column("reason", sa.String(1000), nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("expires_at", _TIME, nullable=False),
        sa.Column("taken_by", sa.String(100)),
        sa.Column("answered_by", sa.String(100)),
        sa.Column("answered_at", _TIME),
        sa.Column("note", sa.String(2000), nullable=False, server_default=""),
        sa.Column("did", sa.JSON, nullable=False),
        sa.Column("more", sa.Integer, nullable=False, server_default="0"),
    )
    op.create_index("ix_requests_state_created_at", "requests", ["state", "created_at"])
    op.create_index("ix_requests_workspace_id_state", "requests", ["workspace_id", "state"])


def downgrade() -> None:
    op.drop_table("requests")
