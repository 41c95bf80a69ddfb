"""One desktop: its words, its clients, its daemon, and the ways to start it.

``from workspace import Carrel`` is the SDK's front door. Importing this package pulls in nothing
heavier than pydantic and httpx, and only when a name is used: the daemon inside a desktop and the
Ray actor share this package and stay small.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workspace.client import Carrel
    from workspace.desktop import Desktop
    from workspace.errors import CarrelError
    from workspace.models import Template, Workspace
    from workspace.sync import SyncCarrel, SyncDesktop

_HOME = {
    "Carrel": "workspace.client",
    "CarrelError": "workspace.errors",
    "Desktop": "workspace.desktop",
    "SyncCarrel": "workspace.sync",
    "SyncDesktop": "workspace.sync",
    "Template": "workspace.models",
    "Workspace": "workspace.models",
}

__all__ = [
    "Carrel",
    "CarrelError",
    "Desktop",
    "SyncCarrel",
    "SyncDesktop",
    "Template",
    "Workspace",
]


def __getattr__(name: str) -> Any:  # Any: PEP 562, the names are typed above
    try:
        module = _HOME[name]
    except KeyError:
        raise AttributeError(f"module 'workspace' has no attribute {name!r}") from None
    return getattr(importlib.import_module(module), name)
