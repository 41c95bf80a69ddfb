"""The schema's history. Each step is a file in ``versions``; ``upgrade`` plays those still due."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text

_UPGRADING = 0x7363_6865_6D61


def configuration() -> Config:
    """Alembic's, without an ini file."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    return config


def upgrade(connection: Connection, to: str = "head") -> None:
    """Bring the database behind ``connection`` to the newest schema, or to the one named.

    Of several that start at once one does it, in one transaction, however long that takes.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_UPGRADING})"))
        connection.execute(text("SET LOCAL statement_timeout = 0"))
    config = configuration()
    config.attributes["connection"] = connection
    command.upgrade(config, to)
