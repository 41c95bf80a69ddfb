"""pyautogui's calls, played on a Carrel desktop instead of the machine that runs them.

For code that was written for pyautogui: ``gui = PyAutoGUI(desktop)``, then ``gui.click(10, 20)``.
``run(code, desktop)`` plays *strings* of such code, as OSWorld's agents write them, without
executing them on this machine.
"""

from workspace.pyautogui.calls import PyAutoGUI
from workspace.pyautogui.code import run
from workspace.pyautogui.player import Box, Point, Size

__all__ = ["Box", "Point", "PyAutoGUI", "Size", "run"]
