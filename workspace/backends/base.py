"""What every backend promises: start a sandbox and say where its desktopd answers.

A backend knows nothing of owners, claims or Ray. It must leave nothing behind: a start that fails
or is cancelled cleans up after itself, and whatever dies, ``list`` still names what is left of a
sandbox until ``stop`` has removed it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Protocol

from pydantic import BaseModel, ConfigDict, Field

from workspace.egress import Egress, Secret
from workspace.models import WORKSPACE_ID, Stats, Template
from workspace.proxy.tally import Tally


class Endpoint(BaseModel):
    """Where a desktopd answers: ``unix:///path/to.sock`` or ``http://host:port``, and its token."""

    model_config = ConfigDict(frozen=True)
    url: str
    token: str

    def __repr__(self) -> str:  # never the token: endpoints end up in logs
        return f"Endpoint(url={self.url!r})"

    __str__ = __repr__


class Mount(BaseModel):
    """A volume that is to be a sandbox's home; a new one need not be on the node yet."""

    model_config = ConfigDict(frozen=True)
    id: Annotated[str, Field(pattern=WORKSPACE_ID)]
    is_new: bool = False


class PauseResult(BaseModel):
    """What pausing gave back to the machine; None where the kernel cannot be asked to."""

    reclaimed_mib: float | None = None


class Backend(Protocol):
    """Starts and stops sandboxes."""

    async def start(
        self,
        workspace_id: str,
        template: Template,
        *,
        background: bool = False,
        volume: Mount | None = None,
    ) -> Endpoint:
        """Start a sandbox; its desktop is ready to act when this returns.

        With ``background`` it yields the processor to the others until :meth:`foreground`. A
        ``volume`` is its home, and stays when the sandbox ends.

        Raises:
            BackendUnavailable: this node cannot run sandboxes; the hint says what to install.
            StartFailed: it did not come up; the message has the daemon's own last words. Or there
                is one of that id, which goes on.
            VolumeInUse: another has the volume.
            Unsupported: this backend has no volumes.
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

    async def pause(self, workspace_id: str) -> PauseResult:
        """Freeze it: no instruction of it runs, and memory goes back. Again is success.

        It can be stopped as it is. When this fails it goes on as before.

        Raises:
            WorkspaceNotFound: there is no such sandbox.
            Unsupported: this machine cannot freeze it.
            Unavailable: it did not come to rest, or was resumed meanwhile.
        """
        ...

    async def resume(self, workspace_id: str) -> None:
        """Thaw it; one that is not frozen is left as it is. Raises like :meth:`pause`."""
        ...

    async def foreground(
        self, workspace_id: str, *, whose: Mapping[str, str] | None = None
    ) -> None:
        """Somebody has it: its processor time counts as any other's from now on. ``whose`` is
        shown to those who look at sandboxes by other means, like ``{"tenant": "acme"}``. Where
        there is no such thing, or nothing of the sandbox is left, nothing happens.
        """
        ...

    async def set_egress(
        self,
        workspace_id: str,
        *,
        egress: Egress | None = None,
        secrets: Sequence[Secret] | None = None,
    ) -> None:
        """Let it out by other rules, with other secrets; what is None stays as it is.

        In force when this returns; what is open and no longer permitted is broken off.

        Raises:
            WorkspaceNotFound: there is no such sandbox.
            Unsupported: this backend has no way out.
        """
        ...

    def tally(self, workspace_id: str) -> Tally | None:
        """What comes of its connections; it stays valid when the sandbox ends. None if it has no
        way out.
        """
        ...

    async def stats(self, workspace_id: str) -> Stats:
        """What it uses now."""
        ...
