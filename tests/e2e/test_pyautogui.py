"""A program of pyautogui's calls, played on a real desktop through the real service."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import Service
from tests.waiting import until
from workspace.errors import InvalidRequest
from workspace.pyautogui import PyAutoGUI, run
from workspace.sync import SyncCarrel

PROGRAM = """
import pyautogui
import time

width, height = pyautogui.size()
pyautogui.click(width / 2, 200)
time.sleep(0.2)
pyautogui.typewrite('xprintf "%s" "Grüße, A+B" >file', interval=0.01)
with pyautogui.hold('ctrl'):
    pyautogui.press('a')
pyautogui.press('del')
pyautogui.press('enter')
pyautogui.hotkey('ctrl', 'd')
"""


def test_a_program_types_into_a_terminal(service: Service) -> None:
    with SyncCarrel(service.url, service.key) as carrel, carrel.claim() as desktop:
        desktop.start("xterm -T typed -geometry 200x60+0+0 -e bash --norc")
        until(lambda: [w for w in desktop.windows() if w.title == "typed"])
        with pytest.raises(InvalidRequest):
            run(PROGRAM + "import os", desktop)
        run(PROGRAM, desktop)
        until(lambda: not [w for w in desktop.windows() if w.title == "typed"])
        assert desktop.read_file("file").decode() == "Grüße, A+B"

        gui = PyAutoGUI(desktop)
        gui.moveTo(300, 400, duration=0.3)
        assert gui.position() == (300, 400)
        panel = gui.screenshot(region=(0, 0, 60, 24))
        assert gui.locateOnScreen(panel)[:2] == (0, 0)
