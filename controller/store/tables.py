"""The tables. Portable between SQLite and PostgreSQL: times are UTC, ids count up by themselves."""

from __future__ import annotations

from datetime import datetime, timezone

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    DateTime,
    Dialect,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    text,
)
from sqlalchemy.types import TypeDecorator


class UtcTime(TypeDecorator[datetime]):
    """An aware UTC time. SQLite keeps no zone, so none is written there and UTC is read back."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        utc = value.astimezone(timezone.utc)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=timezone.utc) if value.tzinfo is None else value


metadata = MetaData(naming_convention={"ix": "ix_%(table_name)s_%(column_0_N_name)s"})

workspaces = Table(
    "workspaces",
    metadata,
    Column("id", String(20), primary_key=True),
    Column("owner", String(100), nullable=False),
    Column("name", String(100), nullable=False),
    Column("state", String(20), nullable=False),
    Column("template", String(63), nullable=False),
    Column("screen", JSON, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("ready_at", UtcTime),
    Column("ended_at", UtcTime),
    Column("expires_at", UtcTime, nullable=False),
    Column("metadata", JSON, nullable=False),
    Column("node", String(200)),
    Column("error", JSON(none_as_null=True)),
    Column("sandbox", String(20), nullable=False, server_default=""),
    Column("keeper", String(200), nullable=False, server_default=""),
    Column("claim_key", String(100)),
    Column("idle_seconds", Float),
    Column("when_idle", String(10), nullable=False, server_default="release"),
    Column("volume", String(63)),
    Column("tenant", String(63), nullable=False, server_default="default"),
    Column("keep_frames", String(10), nullable=False, server_default="none"),
    Column("cpus", Float),
    Column("memory_mib", Integer),
    Column("egress", JSON, nullable=False, server_default='"none"'),
    Column("secrets", JSON, nullable=False, server_default="[]"),
    Index(None, "created_at", "id"),
    Index(None, "state", "created_at", "id"),
    Index(None, "tenant", "created_at", "id"),
    # What counts against a tenant's quotas, however many have ended.
    Index(
        "ix_workspaces_tenant_unended",
        "tenant",
        sqlite_where=text("ended_at IS NULL"),
        postgresql_where=text("ended_at IS NULL"),
    ),
    Index("ix_workspaces_sandbox", "sandbox"),
    # Of those that have none, all are distinct, on both databases.
    Index("ix_workspaces_owner_claim_key", "tenant", "owner", "claim_key", unique=True),
)

# Homes that stay. One is free once the workspace that had it has ended, whoever says so or not.
volumes = Table(
    "volumes",
    metadata,
    Column("id", String(20), primary_key=True),  # what its folder is called
    Column("owner", String(100), nullable=False),
    Column("name", String(63), nullable=False),
    Column("node", String(200)),
    Column("size_bytes", BigInteger),
    Column("created_at", UtcTime, nullable=False),
    Column("last_used_at", UtcTime),
    Column("used_by", String(20)),
    Column("removed_at", UtcTime),  # since when it is being removed
    Column("tenant", String(63), nullable=False, server_default="default"),
    Index("ix_volumes_owner_name", "tenant", "owner", "name", unique=True),
)

# What is kept of desktops. Many may have the same bytes.
artifacts = Table(
    "artifacts",
    metadata,
    Column("id", String(20), primary_key=True),
    Column("workspace_id", String(20), nullable=False),
    Column("kind", String(20), nullable=False),
    Column("name", String(255), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("media_type", String(100), nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("meta", JSON, nullable=False),
    Index("ix_artifacts_workspace_id_created_at_id", "workspace_id", "created_at", "id"),
    Index("ix_artifacts_kind_created_at", "kind", "created_at"),
    Index("ix_artifacts_digest", "digest"),
)

# Their bytes. A row is there before them and goes after them: see `artifacts`, the module.
blobs = Table(
    "blobs",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),  # counts up with every use
    Column("touched_at", UtcTime, nullable=False),
    Column("removed_at", UtcTime),  # since when they are being removed
    Index("ix_blobs_removed_at", "removed_at"),
)

# Desktops that wait for a claim. A claim deletes one and writes a workspace in its place.
warm = Table(
    "warm",
    metadata,
    Column("id", String(20), primary_key=True),  # its sandbox
    Column("template", String(63), nullable=False),
    Column("shape", String(64), nullable=False),
    Column("state", String(10), nullable=False),
    Column("keeper", String(200), nullable=False),
    Column("node", String(200)),
    Column("created_at", UtcTime, nullable=False),
    Column("ready_at", UtcTime),
    Index(None, "state", "shape", "created_at"),
)

# What was changed of a template's pool since.
pools = Table(
    "pools",
    metadata,
    Column("template", String(63), primary_key=True),
    Column("changes", JSON, nullable=False),
)

# Controllers. Each counts up while it lives; the others see by it that it does.
replicas = Table(
    "replicas",
    metadata,
    Column("id", String(200), primary_key=True),
    Column("beats", BigInteger, nullable=False),
)

# Nodes that get no new desktops.
drains = Table(
    "drains",
    metadata,
    Column("node", String(100), primary_key=True),
    Column("since", UtcTime, nullable=False),
)

# Of the keys that are good, no two of a tenant have one name.
keys = Table(
    "keys",
    metadata,
    Column("id", String(20), primary_key=True),
    Column("tenant", String(63), nullable=False),
    Column("name", String(63), nullable=False),
    Column("role", String(10), nullable=False),
    Column("digest", String(64), nullable=False),  # SHA-256 of its secret part
    Column("created_at", UtcTime, nullable=False),
    Column("created_by", String(100), nullable=False),
    Column("expires_at", UtcTime),
    Column("revoked_at", UtcTime),
    Index(
        "ix_keys_tenant_name",
        "tenant",
        "name",
        unique=True,
        sqlite_where=text("revoked_at IS NULL"),
        postgresql_where=text("revoked_at IS NULL"),
    ),
    Index(None, "created_at", "id"),
)

# What tenants may have; one without a row has no limits.
tenants = Table(
    "tenants",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("quotas", JSON, nullable=False),
)

# Links that share one desktop; what proves each is signed and not kept.
shares = Table(
    "shares",
    metadata,
    Column("id", String(20), primary_key=True),
    Column("workspace_id", String(20), nullable=False),
    Column("mode", String(10), nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("created_by", String(100), nullable=False),
    Column("expires_at", UtcTime, nullable=False),
    Column("revoked_at", UtcTime),
    Index(None, "workspace_id", "created_at"),
)

# MCP servers whose tools are offered beside the desktops'.
tools = Table(
    "tools",
    metadata,
    Column("id", String(20), primary_key=True),
    Column("tenant", String(63), nullable=False),
    Column("name", String(32), nullable=False),
    Column("url", String(2000), nullable=False),
    Column("header", String(100), nullable=False),
    Column("sealed", Text, nullable=False),  # see `sealing`; empty: it has no secret
    Column("created_at", UtcTime, nullable=False),
    Column("created_by", String(100), nullable=False),
    Index(None, "tenant", "name", unique=True),
)

# What agents have asked people for.
requests = Table(
    "requests",
    metadata,
    Column("id", String(32), primary_key=True),  # the ticket
    Column("workspace_id", String(20), nullable=False),
    Column("asked_by", String(100), nullable=False),
    Column("reason", String(1000), nullable=False),
    Column("state", String(10), nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("expires_at", UtcTime, nullable=False),
    Column("taken_by", String(100)),
    Column("answered_by", String(100)),
    Column("answered_at", UtcTime),
    Column("note", String(2000), nullable=False, server_default=""),
    Column("did", JSON, nullable=False),
    Column("more", Integer, nullable=False, server_default="0"),
    Index(None, "state", "created_at"),
    Index(None, "workspace_id", "state"),
)

events = Table(
    "events",
    metadata,
    Column(
        "id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True
    ),
    Column("at", UtcTime, nullable=False),
    Column("workspace_id", String(20)),
    Column("actor", String(100), nullable=False),
    Column("kind", String(40), nullable=False),
    Column("data", JSON, nullable=False),
    Column("seq", BigInteger, nullable=False, server_default="0"),  # in its chain, from 1
    Column("hash", String(64), nullable=False, server_default=""),
    Index(None, "workspace_id", "id"),
    sqlite_autoincrement=True,  # an id is never used again
)

# Where each chain of events ends, and where what is left of it begins: see ``chain``.
chains = Table(
    "chains",
    metadata,
    Column("chain", String(20), primary_key=True),  # a workspace's id, or "" for none
    Column("seq", BigInteger, nullable=False),
    Column("hash", String(64), nullable=False),
    Column("base_seq", BigInteger, nullable=False, server_default="0"),
    Column("base_hash", String(64), nullable=False, server_default=""),
    Column("base_signature", String(64), nullable=False, server_default=""),
)

# What the log was, at moments: see ``checkpoints``.
checkpoints = Table(
    "checkpoints",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("at", UtcTime, nullable=False),
    Column("upto", BigInteger, nullable=False),  # the last event's id
    Column("lines", BigInteger, nullable=False),
    Column("sum", String(64), nullable=False),
    Column("removed_lines", BigInteger, nullable=False, server_default="0"),
    Column("removed_sum", String(64), nullable=False, server_default=""),
    Column("hash", String(64), nullable=False),
    Column("signature", String(64), nullable=False),
)
