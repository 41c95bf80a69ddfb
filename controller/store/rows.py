"""A workspace as a row of its table."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Row

from workspace.errors import Unavailable
from workspace.models import Workspace

_NOT_KEPT = frozenset({"watch_url", "queue", "control"})
_log = logging.getLogger(__name__)


def columns(workspace: Workspace) -> dict[str, Any]:  # Any: column values
    return workspace.model_dump(exclude=set(_NOT_KEPT))


def to_workspace(row: Row[Any]) -> Workspace:  # Any: a row's columns, validated here
    """
    Raises:
        Unavailable: what was kept is no workspace as this release knows them.
    """
    try:
        return Workspace.model_validate(dict(row._mapping))
    except ValidationError as error:
        where = ", ".join(sorted({str(each["loc"][0]) for each in error.errors() if each["loc"]}))
        raise Unavailable(
            f"What is kept of workspace {row.id} cannot be read: {where or 'the whole row'}.",
            hint="An operator has to mend its row; all others are served.",
        ) from error


def all_readable(rows: Iterable[Row[Any]]) -> list[Workspace]:
    """The workspaces of many rows: one that cannot be read is logged, and keeps none back."""
    found: list[Workspace] = []
    for row in rows:
        try:
            found.append(to_workspace(row))
        except Unavailable as error:
            _log.error("left out: %s", error.message)
    return found
