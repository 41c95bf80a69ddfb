"""When a desktop that is kept warm has settled."""

from __future__ import annotations

from typing import cast

import pytest

from controller import warmed
from workspace.desktop import Desktop
from workspace.errors import StartFailed
from workspace.ide import IdeHealth, IdeSettings, Phase
from workspace.models import Template, Window

pytestmark = pytest.mark.anyio


class Slow:
    """A desktop whose window comes after so many looks."""

    def __init__(self, looks: int) -> None:
        self.looks, self.looked, self.has_rested = looks, 0, False

    async def windows(self) -> list[Window]:
        self.looked += 1
        if self.looked < self.looks:
            return []
        box = {"x": 0, "y": 0, "width": 9, "height": 9, "layer": 0}
        return [Window.model_validate({"id": 1, "title": "", "window_class": "", **box})]

    async def wait_for_rest(self, *, stable_ms: int, seconds: float) -> None:
        self.has_rested = True

    async def ide_health(self) -> IdeHealth:
        self.looked += 1
        phase: Phase = "starting" if self.looked < self.looks else "ready"
        return IdeHealth(ide="vscode", phase=phase)

    async def screenshot(self) -> bytes:
        return b""


async def settled(desktop: Slow, *startup: str, ide: IdeSettings | None = None) -> Slow:
    template = Template(name="t", startup=list(startup), ide=ide)
    # What is asked of it here, it answers.
    await warmed._settle(cast(Desktop, desktop), template)
    return desktop


async def test_a_programs_window_is_waited_for_however_late_it_was_the_last_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(warmed, "LOOK_SECONDS", 0.01)
    with monkeypatch.context() as hurried:
        hurried.setattr(warmed, "STARTUP_SECONDS", 0.05)
        never = await settled(Slow(10**9), "program")
        assert never.looked >= 1
        assert never.has_rested  # it is used as it is
    assert (await settled(Slow(5), "program")).looked == 5
    assert (await settled(Slow(5))).looked == 0


async def test_an_ide_is_waited_for_until_it_is_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warmed, "IDE_LOOK_SECONDS", 0.01)
    assert (await settled(Slow(5), ide=IdeSettings())).looked == 5

    class Without(Slow):
        async def ide_health(self) -> IdeHealth:
            return IdeHealth(ide="vscode", phase="not_started", message="There is no VS Code.")

    with pytest.raises(StartFailed, match="There is no VS Code"):
        await settled(Without(1), ide=IdeSettings())
