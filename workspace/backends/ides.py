"""What an IDE of desktops runs from: code-server, a Node, language tools and the bridge.

``scripts/setup-ide`` builds it in a folder beside the runtime's, named by a hash of what it is made
from, and lets the link ``current`` lead there. It is mounted read-only in desktops whose template
has such an IDE; those that run keep the one they started with.
"""

from __future__ import annotations

from pathlib import Path

from workspace.errors import BackendUnavailable
from workspace.ide import IdeSettings

BUILD_HINT = "Run `make setup-ide` on the node."
_CURRENT = "current"
_NEEDED = ("code-server", "node/bin/node", "carrel-bridge.vsix")


def folder_beside(runtime_dir: Path) -> Path:
    """Where IDEs lie, by where the runtime does."""
    return runtime_dir.parent / "ide"


def is_there(runtime_dir: Path) -> bool:
    """Whether set-up has built one, whole or not."""
    return (folder_beside(runtime_dir) / _CURRENT).is_symlink()


def built(runtime_dir: Path) -> Path:
    """The folder to mount.

    Raises:
        BackendUnavailable: set-up has not built it, or not all of it.
    """
    place = folder_beside(runtime_dir)
    path = (place / _CURRENT).resolve()
    if path.parent != place.resolve() or not path.is_dir():
        raise BackendUnavailable(
            f"The IDE that desktops run is not built: {place / _CURRENT} is not there.",
            hint=BUILD_HINT,
        )
    missing = [name for name in _NEEDED if not (path / name).exists()]
    if missing:
        raise BackendUnavailable(
            f"The IDE that desktops run is not whole: {', '.join(missing)} missing in {path}.",
            hint=BUILD_HINT,
        )
    return path


def is_mounted_for(ide: IdeSettings | None) -> bool:
    """Whether desktops with that IDE run it from there."""
    return ide is not None and ide.kind == "vscode"
