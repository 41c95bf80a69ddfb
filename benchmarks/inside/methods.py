"""How others see and act, written from the description of what each of them does.

Each is as it is once its request has come into the desktop: no network, no server of its own in
between, except for Cua, whose server is the real one. So the times are a floor for them.
"""

from __future__ import annotations

import base64
import http.client
import importlib
import io
import json
import os
import shlex
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

Point = tuple[int, int]
SIZE = "1280x800"


class Method:
    """What a peer can do; what it cannot stays unimplemented."""

    observe_after = 0.0  # the sleep between an action and the screenshot that follows it

    def screenshot(self, format: str) -> bytes:
        raise NotImplementedError

    def click(self, at: Point) -> None:
        raise NotImplementedError

    def type(self, text: str) -> None:
        raise NotImplementedError

    def drag(self, start: Point, end: Point) -> None:
        raise NotImplementedError


def chunks(text: str, size: int) -> list[str]:
    return [text[begin : begin + size] for begin in range(0, len(text), size)]


class E2B(Method):
    """Every step is a command in a login shell: scrot to a file, xdotool."""

    def _run(self, command: str) -> None:
        subprocess.run(["/bin/bash", "-l", "-c", command], check=True)

    def screenshot(self, format: str) -> bytes:
        path = Path(f"/tmp/screenshot-{uuid.uuid4()}.png")
        self._run(f"scrot --pointer {path}")
        picture = path.read_bytes()
        path.unlink()
        return picture

    def click(self, at: Point) -> None:
        self._run(f"xdotool mousemove --sync {at[0]} {at[1]}")
        self._run("xdotool click 1")

    def type(self, text: str) -> None:
        for chunk in chunks(text, 25):
            self._run(f"xdotool type --delay 75 -- {shlex.quote(chunk)}")

    def drag(self, start: Point, end: Point) -> None:
        self._run(f"xdotool mousemove --sync {start[0]} {start[1]}")
        self._run("xdotool mousedown 1")
        self._run(f"xdotool mousemove --sync {end[0]} {end[1]}")
        self._run("xdotool mouseup 1")


class Anthropic(Method):
    """Anthropic's computer-use demo: one shell command a step, then two seconds' sleep.

    Its screenshot goes through ImageMagick's ``convert`` as well, which is left out here.
    """

    observe_after = 2.0

    def _shell(self, command: str) -> None:
        subprocess.run(command, shell=True, check=True)

    def screenshot(self, format: str) -> bytes:
        path = Path(f"/tmp/screenshot_{uuid.uuid4().hex}.png")
        self._shell(f"scrot -p {path}")
        picture = path.read_bytes()
        base64.b64encode(picture)
        path.unlink()  # not theirs: they never remove it
        return picture

    def click(self, at: Point) -> None:
        self._shell(f"xdotool mousemove --sync {at[0]} {at[1]} click 1")

    def type(self, text: str) -> None:
        for chunk in chunks(text, 50):
            self._shell(f"xdotool type --delay 12 -- {shlex.quote(chunk)}")

    def drag(self, start: Point, end: Point) -> None:
        ends = f"{start[0]} {start[1]} mousedown 1 mousemove --sync {end[0]} {end[1]} mouseup 1"
        self._shell(f"xdotool mousemove --sync {ends}")


class OSWorld(Method):
    """A Python of its own for each action; a screenshot in the server, with the pointer on it."""

    observe_after = 2.0

    def __init__(self) -> None:
        self._pyautogui = pyautogui()

    def _python(self, code: str) -> None:
        start = "import pyautogui; import time; pyautogui.FAILSAFE = False; "
        subprocess.run([sys.executable, "-c", start + code], check=True, timeout=120)

    def screenshot(self, format: str) -> bytes:
        from PIL import Image

        display = importlib.import_module("Xlib.display").Display()
        importlib.import_module("Xlib.ext.xfixes")
        display.xfixes_query_version()
        cursor = display.xfixes_get_cursor_image(display.screen().root)
        shape = [pixel & 0xFFFFFFFF for pixel in cursor.cursor_image]
        raw = b"".join(pixel.to_bytes(4, "little") for pixel in shape)
        pointer = Image.frombytes("RGBA", (cursor.width, cursor.height), raw, "raw", "BGRA")
        display.close()
        picture = self._pyautogui.screenshot()
        picture.paste(pointer, tuple(self._pyautogui.position()), pointer)
        path = Path("/tmp/screenshot.png")
        picture.save(path)
        return path.read_bytes()

    def click(self, at: Point) -> None:
        self._python(f"pyautogui.click({at[0]}, {at[1]})")

    def type(self, text: str) -> None:
        self._python(f"pyautogui.typewrite({text!r})")

    def drag(self, start: Point, end: Point) -> None:
        self._python(
            f"pyautogui.moveTo({start[0]}, {start[1]}); "
            f"pyautogui.dragTo({end[0]}, {end[1]}, duration=1.0, button='left')"
        )


class PyAutoGUI(Method):
    """The library in this very process: ``pause`` 0.1 is what it does unless told otherwise."""

    def __init__(self, pause: float) -> None:
        self._pyautogui = pyautogui()
        self._pyautogui.PAUSE = pause

    def screenshot(self, format: str) -> bytes:
        buffer = io.BytesIO()
        options = {"quality": 80} if format == "jpeg" else {}
        self._pyautogui.screenshot().save(buffer, format, **options)
        return buffer.getvalue()

    def click(self, at: Point) -> None:
        self._pyautogui.click(*at)

    def type(self, text: str) -> None:
        self._pyautogui.write(text)

    def drag(self, start: Point, end: Point) -> None:
        self._pyautogui.moveTo(*start)
        self._pyautogui.dragTo(*end, button="left")


class Cua(Method):
    """Cua's computer-server, over its HTTP interface; it must be running."""

    def __init__(self) -> None:
        self._http = http.client.HTTPConnection("127.0.0.1", CUA_PORT, timeout=60)

    def _command(self, command: str, **params: object) -> dict[str, Any]:  # Any: JSON values
        body = json.dumps({"command": command, "params": params})
        self._http.request("POST", "/cmd", body, {"Content-Type": "application/json"})
        told: dict[str, Any]  # Any: as above
        told = json.loads(self._http.getresponse().read().removeprefix(b"data: "))
        if not told["success"]:
            raise RuntimeError(told["error"])
        return told

    def screenshot(self, format: str) -> bytes:
        options: dict[str, object] = {"format": "jpeg", "quality": 80}
        told = self._command("screenshot", **(options if format == "jpeg" else {}))
        return base64.b64decode(told["image_data"])

    def click(self, at: Point) -> None:
        self._command("left_click", x=at[0], y=at[1])

    def type(self, text: str) -> None:
        self._command("type_text", text=text)

    def drag(self, start: Point, end: Point) -> None:
        self._command("drag", path=[start, end])


class FFmpeg(Method):
    """One frame of ffmpeg's x11grab, to its standard output."""

    def screenshot(self, format: str) -> bytes:
        codec = "mjpeg" if format == "jpeg" else "png"
        done = subprocess.run(
            ["ffmpeg", "-loglevel", "error", "-f", "x11grab", "-video_size", SIZE,
             "-i", os.environ["DISPLAY"], "-frames:v", "1", "-c:v", codec, "-f", "image2pipe", "-"],
            check=True, stdout=subprocess.PIPE,
        )  # fmt: skip
        return done.stdout


CUA_PORT = 8123


def pyautogui() -> Any:  # Any: it has no types, and is only there in the desktop
    return importlib.import_module("pyautogui")


METHODS = {
    "e2b": E2B,
    "anthropic": Anthropic,
    "osworld": OSWorld,
    "pyautogui": lambda: PyAutoGUI(0.1),
    "pyautogui-unpaused": lambda: PyAutoGUI(0.0),
    "cua": Cua,
    "ffmpeg": FFmpeg,
}


def wait_for_cua(seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            Cua().screenshot("jpeg")
            return
        except (OSError, http.client.HTTPException):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
