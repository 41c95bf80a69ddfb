"""The schema's history. Each step is a file in ``versions``; ``upgrade`` plays those still due."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection


def configuration() -> Config:
    """Alembic's, without an ini file."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    return config


def upgrade(connection: Connection) -> None:
    """Bring the database behind ``connection`` to the newest schema."""
    config = configuration()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
