"""Ways to start a sandbox, by name. Each is imported only when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workspace.backends.base import Backend

_HOME = {
    "bubblewrap": ("workspace.backends.bubblewrap", "BubblewrapBackend"),
    "docker": ("workspace.backends.docker", "DockerBackend"),
    "kata": ("workspace.backends.kata", "KataBackend"),
    "fake": ("workspace.backends.fake", "FakeBackend"),
}


def create(name: str, **settings: Any) -> Backend:  # Any: each backend has its own
    """The backend of that name with its settings.

    Raises:
        InvalidRequest: there is none of that name.
    """
    if name not in _HOME:
        from workspace.errors import InvalidRequest

        known = ", ".join(sorted(_HOME))
        raise InvalidRequest(f"There is no backend {name!r}.", hint=f"There are: {known}.")
    import importlib

    module, cls = _HOME[name]
    backend: Backend = getattr(importlib.import_module(module), cls)(**settings)
    return backend
