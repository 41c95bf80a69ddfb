"""What every backend promises: start a sandbox and say where its desktopd answers.

A backend knows nothing of owners, claims or Ray. It must leave nothing behind: a start that fails
or is cancelled cleans up after itself, and whatever dies, ``list`` still names what is left of a
sandbox until ``stop`` has removed it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pydantic import BaseModel, ConfigDict

from workspace.models import Stats, Template


class Endpoint(BaseModel):
    """Where a desktopd answers: ``unix:///path/to.sock`` or ``http://host:port``, and its token."""

    model_config = ConfigDict(frozen=True)
    url: str
    token: str

    def __repr__(self) -> str:  # never the token: endpoints end up in logs
        return f"Endpoint(url={self.url!r})"

    __str__ = __repr__


class Backend(Protocol):
    """Starts and stops sandboxes."""

    async def start(self, workspace_id: str, template: Template) -> Endpoint:
        """Start a sandbox; its desktop is ready to act when this returns.

        Raises:
            BackendUnavailable: this node cannot run sandboxes; the hint says what to install.
            StartFailed: it did not come up; the message has the daemon's own last words.
        """
        ...

    async def stop(self, workspace_id: str) -> None:
        """End a sandbox and remove everything of it. One already gone is success."""
        ...

    async def wait(self, workspace_id: str) -> str:
        """Return once the sandbox has ended by itself, with the reason as a sentence.

        One that this backend does not run, or that ``stop`` has ended, has ended too.
        """
        ...

    async def list(self) -> Sequence[str]:
        """Every sandbox this backend ever made of which something still exists."""
        ...

    async def pause(self, workspace_id: str) -> None:
        """Freeze it. Raises Unsupported where the backend cannot."""
        ...

    async def resume(self, workspace_id: str) -> None:
        """Thaw it."""
        ...

    async def stats(self, workspace_id: str) -> Stats:
        """What it uses now."""
        ...
