"""What each workspace may reach, and which secrets it uses: never their values."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "workspaces", sa.Column("egress", sa.JSON, nullable=False, server_default='"none"')
    )
    op.add_column("workspaces", sa.Column("secrets", sa.JSON, nullable=False, server_default="[]"))


def downgrade() -> None:
    op.drop_column("workspaces", "secrets")
    op.drop_column("workspaces", "egress")
