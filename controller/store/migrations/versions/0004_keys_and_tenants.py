"""Keys, tenants, links that share a desktop; and whose workspaces and volumes are."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)


def _tenant() -> sa.Column[str]:
    return sa.Column("tenant", sa.String(63), nullable=False, server_default="default")


def upgrade() -> None:
    op.add_column("workspaces", _tenant())
    op.add_column("workspaces", sa.Column("cpus", sa.Float))
    op.add_column("workspaces", sa.Column("memory_mib", sa.Integer))
    op.drop_index("ix_workspaces_owner_claim_key", "workspaces")
    op.create_index(
        "ix_workspaces_owner_claim_key",
        "workspaces",
        ["tenant", "owner", "claim_key"],
        unique=True,
    )
    op.create_index(
        "ix_workspaces_tenant_created_at_id", "workspaces", ["tenant", "created_at", "id"]
    )
    op.create_index(
        "ix_workspaces_tenant_unended",
        "workspaces",
        ["tenant"],
        sqlite_where=sa.text("ended_at IS NULL"),
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    op.add_column("volumes", _tenant())
    op.drop_index("ix_volumes_owner_name", "volumes")
    op.create_index("ix_volumes_owner_name", "volumes", ["tenant", "owner", "name"], unique=True)
    op.create_table(
        "keys",
        sa.Column("id", sa.String(20), primary_key=True),
        sa.Column("tenant", sa.String(63), nullable=False),
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("role", sa.String(10), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("created_by", sa.String(100), nullable=False),
        sa.Column("expires_at", _TIME),
        sa.Column("revoked_at", _TIME),
    )
    op.create_index(
        "ix_keys_tenant_name",
        "keys",
        ["tenant", "name"],
        unique=True,
        sqlite_where=sa.text("revoked_at IS NULL"),
        postgresql_where=sa.text("revoked_at IS NULL"),
    )
    op.create_index("ix_keys_created_at_id", "keys", ["created_at", "id"])
    op.create_table(
        "tenants",
        sa.Column("name", sa.String(63), primary_key=True),
        sa.Column("quotas", sa.JSON, nullable=False),
    )
    op.create_table(
        "shares",
        sa.Column("id", sa.String(20), primary_key=True),
        sa.Column("workspace_id", sa.String(20), nullable=False),
        sa.Column("mode", sa.String(10), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("created_by", sa.String(100), nullable=False),
        sa.Column("expires_at", _TIME, nullable=False),
        sa.Column("revoked_at", _TIME),
    )
    op.create_index("ix_shares_workspace_id_created_at", "shares", ["workspace_id", "created_at"])


def downgrade() -> None:
    op.drop_table("shares")
    op.drop_table("tenants")
    op.drop_table("keys")
    op.drop_index("ix_volumes_owner_name", "volumes")
    op.drop_column("volumes", "tenant")
    op.create_index("ix_volumes_owner_name", "volumes", ["owner", "name"], unique=True)
    op.drop_index("ix_workspaces_tenant_unended", "workspaces")
    op.drop_index("ix_workspaces_tenant_created_at_id", "workspaces")
    op.drop_index("ix_workspaces_owner_claim_key", "workspaces")
    for column in ("memory_mib", "cpus", "tenant"):
        op.drop_column("workspaces", column)
    op.create_index(
        "ix_workspaces_owner_claim_key", "workspaces", ["owner", "claim_key"], unique=True
    )
