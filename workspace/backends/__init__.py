"""The ways to start a sandbox, by name; a backend's module is imported when it is first asked for.

The Ray actor that owns a desktop imports this package: it must stay small.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from workspace.errors import BackendUnavailable

if TYPE_CHECKING:
    from workspace.backends.base import Backend

_CLASSES = {
    "bubblewrap": ("workspace.backends.bubblewrap", "BubblewrapBackend"),
    "fake": ("workspace.backends.fake", "FakeBackend"),
}


def create(name: str, **settings: Any) -> Backend:  # Any: each backend's own, plain JSON
    """The backend of that name, with its settings.

    Raises:
        BackendUnavailable: there is none of that name.
    """
    try:
        module, cls = _CLASSES[name]
    except KeyError:
        raise BackendUnavailable(
            f"There is no backend {name!r}.", hint=f"Use one of: {', '.join(_CLASSES)}."
        ) from None
    backend: Backend = getattr(importlib.import_module(module), cls)(**settings)
    return backend
