"""What each kind of IDE is asked through: one that runs, and how it is started.

Nothing that an IDE says is trusted: it is one of the user's programs, and so is whatever answers in
its place. An adapter parses it, within limits, and makes errors of the tree of what it cannot use.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from workspace import ide as i
from workspace.desktopd.children import Child
from workspace.desktopd.programs import Programs
from workspace.errors import Forbidden

_READING = frozenset(
    {"state", "diagnostics", "symbols", "definition", "references", "hover"}
)  # fmt: skip


class Adapter(Protocol):
    """One IDE that was started, from its first moment to its end."""

    async def health(self) -> i.IdeHealth:
        """How it is now; answers within two seconds, whatever the IDE does. Raises nothing.

        ``restarts`` is not its own: who has it fills that in.
        """
        ...

    async def do(self, action: i.IdeAction) -> i.IdeAnswer:
        """Do it within ``action.seconds``, which begin anew here; cancelled, it is given up.

        Called only once ``health`` has said ``ready``, and by several at once.

        Raises:
            CarrelError: IdeNotReady if it is not ready any more, IdeFailed if it ends or answers
                what is no answer, TimedOut, Unsupported with what it can, and as the IDE says.
        """
        ...

    async def until_ready(self) -> None:
        """Return once ``health`` would say ``ready``. No deadline: the caller has one."""
        ...

    async def aclose(self) -> None:
        """Let go of connections; its processes are ended by who started it."""
        ...


@dataclass
class Launched:
    """An IDE that was started. It has ended when one of ``children`` has."""

    adapter: Adapter
    children: Sequence[Child]
    last_words: Callable[[], str] = field(default=lambda: "")


class Launch(Protocol):
    """How an IDE of a kind is started: ``workspace.desktopd.ide.<kind>.launch``.

    ``folder`` is the daemon's own (0700); ``shown`` returns once there is a screen to be shown on.

    Raises:
        CarrelError: Unavailable if it is not there or does not start. What was started has ended.
    """

    async def __call__(
        self,
        programs: Programs,
        settings: i.IdeSettings,
        folder: str,
        shown: Callable[[], Awaitable[None]],
    ) -> Launched: ...


def check_allowed(action: i.IdeAction, settings: i.IdeSettings) -> None:
    """
    Raises:
        Forbidden: the template does not permit it.
    """
    if action.type == "command" and not any(
        action.id == each or (each.endswith("*") and action.id.startswith(each[:-1]))
        for each in settings.commands
    ):
        raise Forbidden(
            f"This template does not permit the command {action.id}.",
            hint=f"It permits: {', '.join(settings.commands[:50]) or 'none'} (`ide.commands`).",
        )
    if action.type == "install_extension" and not settings.install_extensions:
        raise Forbidden(
            "This template does not permit extensions to be installed.",
            hint="It is `ide.install_extensions` of the template.",
        )


def is_acting(action: i.IdeAction) -> bool:
    """Whether it changes anything, if only what the window shows (as ``code_actions`` does, to have
    them offered): such waits while a person has control."""
    if action.type == "debug":
        return action.do not in ("stack", "variables")
    return action.type not in _READING
