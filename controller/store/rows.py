"""A workspace as a row of its table."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row

from workspace.models import Workspace

_NOT_KEPT = frozenset({"watch_url", "queue", "control"})


def columns(workspace: Workspace) -> dict[str, Any]:  # Any: column values
    return workspace.model_dump(exclude=set(_NOT_KEPT))


def to_workspace(row: Row[Any]) -> Workspace:  # Any: a row's columns, validated here
    return Workspace.model_validate(dict(row._mapping))
