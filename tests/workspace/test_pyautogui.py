"""pyautogui's calls as actions, and programs of such calls: what is played, what is refused."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image as Pillow

from workspace import actions as a
from workspace.desktopd.x11.keys import parse_chord
from workspace.errors import (
    CarrelError,
    InvalidRequest,
    NotFound,
    OffScreen,
    TooLarge,
    UnknownKey,
    Unsupported,
)
from workspace.pyautogui import Box, Point, PyAutoGUI, Size, run
from workspace.pyautogui.pictures import find
from workspace.sync import SyncDesktop

SCREEN = (800, 600)


class Recorder(SyncDesktop):
    """A desktop that notes what it is asked, and shows one picture."""

    def __init__(self) -> None:
        self.batches: list[tuple[a.Action, ...]] = []
        self.cursor = (10, 20)
        self.picture = Pillow.effect_noise(SCREEN, 90).convert("RGB")

    # As SyncDesktop.act, which is made there from Desktop.act.
    def act(
        self, *actions: a.Action, settle_ms: int = 1500, observe: a.Observe = "frame"
    ) -> a.Observation:
        assert (settle_ms, observe) == (0, "none")
        assert 0 < len(actions) <= 100
        seen = None
        for action in actions:
            if isinstance(action, a.Move | a.Click | a.MouseDown) and action.x is not None:
                if not (0 <= action.x < SCREEN[0] and 0 <= (action.y or 0) < SCREEN[1]):
                    raise OffScreen("off")
                self.cursor = (action.x, action.y or 0)
            if isinstance(action, a.Screenshot):
                seen = self._seen(action)
        if not isinstance(actions[0], a.CursorPosition | a.Screenshot):
            self.batches.append(actions)
        return a.Observation(screenshot=seen, cursor=self.cursor, screen=SCREEN)

    def _seen(self, asked: a.Screenshot) -> a.Image:
        assert (asked.format, asked.cursor) == ("png", False)
        part = self.picture
        if (region := asked.region) is not None:
            right, bottom = region.x + region.width, region.y + region.height
            part = part.crop((region.x, region.y, right, bottom))
        data = io.BytesIO()
        part.save(data, "PNG")
        # Base64Bytes takes base64 and is raw bytes afterwards.
        made = a.Image.model_construct(format="png", width=part.width, height=part.height)
        return made.model_copy(update={"data": data.getvalue()})

    @property
    def played(self) -> list[a.Action]:
        return [action for batch in self.batches for action in batch]


@pytest.fixture
def desktop() -> Recorder:
    return Recorder()


@pytest.fixture
def gui(desktop: Recorder) -> PyAutoGUI:
    return PyAutoGUI(desktop)


def wait(seconds: float) -> a.Wait:
    return a.Wait(seconds=seconds)


def down(key: str) -> a.KeyDown:
    return a.KeyDown(chord=key)


def up(key: str) -> a.KeyUp:
    return a.KeyUp(chord=key)


CALLS: list[tuple[str, list[a.Action]]] = [
    ("click(100, 200)", [a.Click(x=100, y=200)]),
    ("click()", [a.Click()]),
    ("click((3.9, 4.2))", [a.Click(x=3, y=4)]),
    ("click([0, 0, 10, 20])", [a.Click(x=5, y=10)]),
    ("click(y=7)", [a.Click(x=10, y=7)]),
    ("click(7)", [a.Click(x=7, y=20)]),
    ("click(1, 2, clicks=2, button='right')", [a.Click(x=1, y=2, count=2, button="right")]),
    ("click(1, 2, 4)", [a.Click(x=1, y=2, count=3), a.Click(x=1, y=2, count=1)]),
    ("click(1, 2, clicks=0)", [a.Move(x=1, y=2)]),
    ("click(1, 2, 2, 0.5)", [a.Click(x=1, y=2), wait(0.5), a.Click(x=1, y=2), wait(0.5)]),
    ("click(1, 2, button='secondary')", [a.Click(x=1, y=2, button="right")]),
    ("leftClick(1, 2)", [a.Click(x=1, y=2)]),
    ("rightClick()", [a.Click(button="right")]),
    ("middleClick(x=5, y=6)", [a.Click(x=5, y=6, button="middle")]),
    ("doubleClick(5, 6)", [a.Click(x=5, y=6, count=2)]),
    ("tripleClick(5, 6, button='middle')", [a.Click(x=5, y=6, count=3, button="middle")]),
    ("mouseDown(5, 6)", [a.MouseDown(x=5, y=6)]),
    ("mouseUp(button='right')", [a.MouseUp(button="right")]),
    ("moveTo(30, 40)", [a.Move(x=30, y=40)]),
    ("moveTo(30, 40, 0.1)", [a.Move(x=30, y=40)]),
    ("moveTo(None, 40)", [a.Move(x=10, y=40)]),
    ("moveTo()", []),
    ("moveRel(5, -5)", [a.Move(x=15, y=15)]),
    ("move((5, 6))", [a.Move(x=15, y=26)]),
    ("move(None, 5)", [a.Move(x=10, y=25)]),
    ("move(0, 0)", []),
    (
        "moveTo(20, 40, duration=0.2)",
        [
            *(wait(0.05), a.Move(x=12, y=25), wait(0.05), a.Move(x=15, y=30)),
            *(wait(0.05), a.Move(x=18, y=35), wait(0.05), a.Move(x=20, y=40)),
        ],
    ),
    ("dragTo(30, 40)", [a.Drag(path=[(10, 20), (30, 40)])]),
    ("drag(5, 5, button='right')", [a.Drag(path=[(10, 20), (15, 25)], button="right")]),
    ("dragRel(0, 0)", []),
    ("dragTo(30, 40, mouseDownUp=False)", [a.Move(x=30, y=40)]),
    (
        "dragTo(10, 40, 0.101, pyautogui.easeInQuad)",
        [
            a.MouseDown(),
            *(wait(0.101 / 2), a.Move(x=10, y=25), wait(0.101 / 2), a.Move(x=10, y=40)),
            a.MouseUp(),
        ],
    ),
    ("scroll(5)", [a.Scroll(dy=-5)]),
    ("scroll(-3, 100, 50)", [a.Scroll(x=100, y=50, dy=3)]),
    ("vscroll(-150)", [a.Scroll(dy=100), a.Scroll(dy=50)]),
    ("hscroll(2)", [a.Scroll(dx=2)]),
    ("scroll(0)", []),
    ("write('hello\\n')", [a.Type(text="hello\n")]),
    ("typewrite('Grü')", [a.Type(text="Grü")]),
    ("write('ab', 0.25)", [a.Type(text="a"), wait(0.25), a.Type(text="b"), wait(0.25)]),
    ("write(['a', 'Enter', '+'])", [a.Key(chord="a"), a.Key(chord="enter"), a.Key(chord="+")]),
    ("write('')", []),
    ("press('ENTER')", [a.Key(chord="enter")]),
    ("press('tab', presses=3)", [a.Key(chord="tab", repeat=3)]),
    ("press('tab', 150)", [a.Key(chord="tab", repeat=100), a.Key(chord="tab", repeat=50)]),
    ("press('A', 2, 0.1)", [a.Key(chord="A"), wait(0.1), a.Key(chord="A"), wait(0.1)]),
    ("press(['left', 'up'])", [a.Key(chord="left"), a.Key(chord="up")]),
    ("keyDown('shift')", [down("shift")]),
    ("keyUp('Shift')", [up("shift")]),
    ("hotkey('ctrl', 'C')", [a.Key(chord="ctrl+C")]),
    ("hotkey(['ctrl', 'shift', '+'])", [a.Key(chord="ctrl+shift+plus")]),
    (
        "hotkey('ctrl', 'c', interval=0.1)",
        [
            *(down("ctrl"), wait(0.1), down("c"), wait(0.1)),
            *(up("c"), wait(0.1), up("ctrl"), wait(0.1)),
        ],
    ),
    ("sleep(2)", [wait(2)]),
    ("screenshot()", []),
]


@pytest.mark.parametrize(("call", "actions"), CALLS)
def test_a_call_becomes_actions(desktop: Recorder, call: str, actions: list[a.Action]) -> None:
    run(f"import pyautogui\npyautogui.{call}", desktop)
    assert desktop.played == actions


def test_where_things_are(desktop: Recorder, gui: PyAutoGUI) -> None:
    assert gui.position() == Point(10, 20)
    assert gui.position(x=5.7) == Point(5, 20)
    assert gui.size() == Size(*SCREEN)
    assert gui.onScreen(799, 599)
    assert not gui.onScreen((800, 0))
    assert gui.center((10, 20, 5, 5)) == Point(12, 22)


def test_a_pause_follows_each_act_and_keys_are_held(desktop: Recorder, gui: PyAutoGUI) -> None:
    gui.PAUSE = 0.5
    gui.click(1, 2)
    gui.click(_pause=False)
    assert desktop.batches == [(a.Click(x=1, y=2), wait(0.5)), (a.Click(),)]
    gui.PAUSE, desktop.batches = 0, []

    def failing() -> None:
        with gui.hold(["ctrl", "shift"]):
            gui.click()
            raise KeyError

    with pytest.raises(KeyError):
        failing()
    assert desktop.played == [down("ctrl"), down("shift"), a.Click(), up("ctrl"), up("shift")]


def test_slow_movement_is_one_bounded_batch_and_ends_where_asked(
    desktop: Recorder, gui: PyAutoGUI
) -> None:
    gui.dragTo(700, 500, duration=30, tween=lambda n: 3 * n)  # overshoots
    (batch,) = desktop.batches
    moves = [action for action in batch if isinstance(action, a.Move)]
    assert (len(moves), desktop.cursor) == (48, (700, 500))
    assert sum(action.seconds for action in batch if isinstance(action, a.Wait)) == pytest.approx(
        30
    )
    assert (batch[0], batch[-1]) == (a.MouseDown(), a.MouseUp())
    desktop.batches.clear()
    with pytest.raises(OffScreen):
        gui.moveTo(800, 5, duration=5)
    assert desktop.batches == []


def test_long_waits_come_in_parts(desktop: Recorder, gui: PyAutoGUI) -> None:
    gui.sleep(130)
    assert desktop.batches == [(wait(60),), (wait(60),), (wait(10),)]
    desktop.batches.clear()
    gui.press("a", presses=70, interval=2)
    assert [len(batch) for batch in desktop.batches] == [61, 60, 19]


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda gui: gui.click(900, 5), OffScreen),
        (lambda gui: gui.click(1e9, 5), OffScreen),
        (lambda gui: gui.click(float("nan"), 5), OffScreen),
        (lambda gui: gui.click("1", "2"), InvalidRequest),
        (lambda gui: gui.click((1, 2), 3), InvalidRequest),
        (lambda gui: gui.click((1, 2, 3)), InvalidRequest),
        (lambda gui: gui.click(1, 2, button="best"), InvalidRequest),
        (lambda gui: gui.click(1, 2, button=4), InvalidRequest),
        (lambda gui: gui.click(1, 2, clicks=10**9), InvalidRequest),
        (lambda gui: gui.click(1, 2, interval=-1), InvalidRequest),
        (lambda gui: gui.moveTo(1, 2, duration=61), InvalidRequest),
        (lambda gui: gui.dragTo(), InvalidRequest),
        (lambda gui: gui.write("x" * 6000, interval=1), InvalidRequest),
        (lambda gui: gui.press(["a", "b"], presses=9000), InvalidRequest),
        (lambda gui: gui.press(5), InvalidRequest),
        (lambda gui: gui.press(""), InvalidRequest),
        (lambda gui: gui.hotkey(5), InvalidRequest),
        (lambda gui: gui.typewrite(5), InvalidRequest),
        (lambda gui: gui.click(len), InvalidRequest),
        (lambda gui: gui.sleep(-1), InvalidRequest),
        (lambda gui: gui.pixelMatchesColor(1, 1, "red"), InvalidRequest),
        (lambda gui: gui.locateOnScreen("/nowhere.png"), InvalidRequest),
        (lambda gui: gui.locateOnScreen(__file__), InvalidRequest),
        (lambda gui: gui.locateOnScreen("/nowhere.png", confidence=0.9), Unsupported),
    ],
)
def test_wrong_arguments_do_nothing(
    desktop: Recorder, gui: PyAutoGUI, call: object, error: type[CarrelError]
) -> None:
    assert callable(call)
    with pytest.raises(error):
        call(gui)
    assert desktop.batches == []


# Pictures.


def test_pictures(desktop: Recorder, gui: PyAutoGUI, tmp_path: Path) -> None:
    file = tmp_path / "whole.png"
    assert gui.screenshot(str(file)).size == SCREEN
    with Pillow.open(file) as written:
        assert written.size == SCREEN
    assert gui.screenshot(region=(1, 2, 30, 40)).size == (30, 40)
    assert gui.pixel(5, 6) == desktop.picture.getpixel((5, 6))
    red, green, blue = gui.pixel(5, 6)
    assert gui.pixelMatchesColor(5, 6, (red, green, blue))
    assert gui.pixelMatchesColor(5, 6, (red + 3, green, blue), tolerance=3)
    assert not gui.pixelMatchesColor(5, 6, (red + 4, green, blue), tolerance=3)


def test_a_picture_is_found_to_the_pixel(desktop: Recorder, gui: PyAutoGUI, tmp_path: Path) -> None:
    part = desktop.picture.crop((300, 200, 350, 240))
    part.save(tmp_path / "part.png")
    assert gui.locateOnScreen(part) == Box(300, 200, 50, 40)
    assert gui.locateOnScreen(part, grayscale=True) == Box(300, 200, 50, 40)
    assert gui.locateOnScreen(part, region=(290, 190, 100, 100)) == Box(300, 200, 50, 40)
    gui.click(str(tmp_path / "part.png"))
    assert desktop.played == [a.Click(x=325, y=220)]
    part.putpixel((49, 39), (1, 2, 3))
    with pytest.raises(gui.ImageNotFoundException):
        gui.locateOnScreen(part)
    with pytest.raises(NotFound):
        gui.locateCenterOnScreen(Pillow.new("RGB", (900, 10)), minSearchTime=0.1)


def test_a_search_is_bounded() -> None:
    screen = Pillow.new("RGB", (1280, 800))
    needle = Pillow.new("RGB", (20, 20))
    assert find(needle, screen) == (0, 0)
    needle.putpixel((10, 10), (9, 9, 9))
    assert find(needle, screen) is None  # the row that is not plain is looked for
    plain = Pillow.new("RGB", (2, 2))
    plain.paste((9, 9, 9), (0, 1, 2, 2))
    with pytest.raises(TooLarge):
        find(plain, screen)


# Programs.

ALLOWED: list[tuple[str, list[a.Action]]] = [
    (
        "import pyautogui; import time; pyautogui.click(100, 200); time.sleep(0.5);"
        " pyautogui.typewrite('hello')",
        [a.Click(x=100, y=200), wait(0.5), a.Type(text="hello")],
    ),
    ("import pyautogui as pg, time as t\npg.press('a')\nt.sleep(1)", [a.Key(chord="a"), wait(1)]),
    (
        "from time import sleep\nfrom pyautogui import click as c\nc(1, 2)\nsleep(1)",
        [a.Click(x=1, y=2), wait(1)],
    ),
    (
        "import pyautogui\nx, y = pyautogui.position()\npyautogui.click(x + 5, y * 2 - 1)",
        [a.Click(x=15, y=39)],
    ),
    (
        "import pyautogui\nw, h = pyautogui.size()\npyautogui.moveTo(w / 2, h // 2)",
        [a.Move(x=400, y=300)],
    ),
    ("import pyautogui\np = pyautogui.position()\npyautogui.click(p)", [a.Click(x=10, y=20)]),
    ("import pyautogui\nfor i in range(3):\n    pyautogui.press('a')", [a.Key(chord="a")] * 3),
    ("import pyautogui\nfor i in range(2):\n    pyautogui.click(i * 10, 5)",
     [a.Click(x=0, y=5), a.Click(x=10, y=5)]),
    (
        "import pyautogui\nwith pyautogui.hold('shift'):\n    pyautogui.press('left')",
        [down("shift"), a.Key(chord="left"), up("shift")],
    ),
    ("import pyautogui\npyautogui.PAUSE = 1\npyautogui.FAILSAFE = False\npyautogui.click()",
     [a.Click(), wait(1)]),
    ('"""What it does."""\n# nothing\npass', []),
    ("import pyautogui\npyautogui.click(-1 + 5, +3, button=pyautogui.RIGHT)",
     [a.Click(x=4, y=3, button="right")]),
    ("import pyautogui\nkeys = ['a', 'b']\npyautogui.press(keys)",
     [a.Key(chord="a"), a.Key(chord="b")]),
    ("import pyautogui\nfor _ in range(0):\n    pyautogui.click()", []),
]  # fmt: skip


@pytest.mark.parametrize(("code", "actions"), ALLOWED)
def test_a_program_is_played(desktop: Recorder, code: str, actions: list[a.Action]) -> None:
    run(code, desktop)
    assert desktop.played == actions


REFUSED = [
    ("import os", "Line 3: 'import os'"),
    ("import pyautogui.sub", "'import pyautogui.sub'"),
    ("from os import system", "an import"),
    ("from pyautogui import *", r"'from pyautogui import \*'"),
    ("from time import time", "'from time import time'"),
    ("from . import pyautogui", "an import"),
    ("__import__('os').system('id')", "a call"),
    ("eval('1')", "a call of eval"),
    ("print(1)", "a call of print"),
    ("open('/etc/passwd')", "a call of open"),
    ("pyautogui.__class__", "no call"),
    ("pyautogui._desktop.run('id')", "a call of anything but"),
    ("pyautogui.click.__globals__['os']", "no call"),
    ("pyautogui.__getattribute__('click')()", "a call of anything but"),
    ("pyautogui.locateOnScreen('/etc/passwd')", "a call of pyautogui.locateOnScreen"),
    ("pyautogui.screenshot('/tmp/file.png')", r"screenshot\(\): too many"),
    ("pyautogui.screenshot(imageFilename='/tmp/x')", r"screenshot\(\): .*imageFilename"),
    ("pyautogui.click('/etc/passwd')", "a picture's file"),
    ("x = '/etc/passwd'\npyautogui.moveTo(x)", "a picture's file"),
    ("pyautogui.run('c')", "a call of pyautogui.run"),
    ("f = lambda: 1", "a lambda"),
    ("x = [n for n in (1, 2)]", "a comprehension"),
    ("pyautogui.write(f'{pyautogui.size()}')", "an f-string"),
    ("pyautogui.click(x := 1, 2)", "a walrus"),
    ("x = 9**9**9", "this operator"),
    ("x = 10**9", "this operator"),
    ("x = 'a' * 1000000000", "arithmetic of anything but numbers"),
    ("n = 1000\nx = 'a' + 'b'", "arithmetic of anything but numbers"),
    ("x = [0] * 1000", "arithmetic of anything but numbers"),
    ("x = 10000000\nx = x * x", "a number beyond"),
    ("x = 1e999", "a number beyond"),
    ("x = 1 << 9", "this operator"),
    ("x = 1 / 0", "a division by zero"),
    ("x = 3j", "such a constant"),
    ("x = b'a'", "such a constant"),
    ("x = ...", "such a constant"),
    ("pyautogui.click(*[1, 2])", r"a \*argument"),
    ("pyautogui.click(**{'x': 1})", r"\*\*arguments"),
    ("pyautogui.click(y, 5)", "the name 'y'"),
    ("pyautogui.click(__name__)", "the name '__name__'"),
    ("pyautogui.click(pyautogui)", "the name 'pyautogui'"),
    ("@pyautogui.click\ndef f(): pass", "a function of its own"),
    ("class A: pass", "a class of its own"),
    ("while True: pass", "a while loop"),
    ("if 1: pass", "an if"),
    ("try:\n    pass\nexcept: pass", "a try"),
    ("for c in 'abc': pass", "a loop over anything but range"),
    ("for i in range(1001): pass", "a loop that is not"),
    ("for i in range(pyautogui.position()): pass", "a loop that is not"),
    ("for i in range(2):\n    pass\nelse:\n    pass", "a for of"),
    ("for i in range(0):\n    import os", "'import os'"),
    ("for i in range(1000):\n    for j in range(1000):\n        pass", "more than 10000 steps"),
    ("for i in range(1000):\n    x = [" + "1," * 500 + "]", "so much to work out"),
    ("from time import sleep as s\nx = [" + "s(0)," * 10_001 + "]", "more than 10000 steps"),
    ("with open('x'): pass", "a call of open"),
    ("with pyautogui.hold('a') as x: pass", "a with of"),
    ("with pyautogui.click(): pass", "a with of"),
    ("x += 1", "such an assignment"),
    ("x = y = 1", "such an assignment"),
    ("pyautogui.click = 5", "an attribute"),
    ("pyautogui._player = 5", "an attribute"),
    ("pyautogui.PAUSE = 1000", "a PAUSE beyond"),
    ("time.sleep(61)", "a sleep beyond"),
    ("time.sleep(-1)", "a sleep beyond"),
    ("time.sleep('1')", "a sleep of no number"),
    ("time.time()", "a call of time.time"),
    ("pyautogui = 5", "another meaning of 'pyautogui'"),
    ("a, b = pyautogui.pixel(1, 1)", "another number of parts"),
    ("a = [1]\nb = [a, a]", "a list inside a list"),
    ("pyautogui.moveTo(1, 2, 1, 'fast')", "a tween of its own"),
    ("pyautogui.click(1, 2, wrong=3)", r"click\(\): .*wrong"),
    ("del time", "Delete"),
    ("global os", "Global"),
    ("x = 1 if 1 else 2", "an if"),
    ("pyautogui.click(pyautogui.position()[0])", "an index"),
    ("pyautogui.click(", "Line"),
    ("x = " + "(" * 60 + "1" + ",)" * 60, "so deep a nesting"),
    ("x = " + "-" * 5000 + "1", "so deep a nesting|cannot be parsed"),
    ("x = " + "+".join("1" * 20_000), "so deep a nesting|cannot be parsed"),
    ("x = '\0'", "null bytes|cannot be parsed"),
]


@pytest.mark.parametrize(("code", "why"), REFUSED)
def test_a_program_is_refused_before_anything_is_done(
    desktop: Recorder, code: str, why: str
) -> None:
    with pytest.raises(InvalidRequest, match=why):
        run(f"import pyautogui, time; pyautogui.click()\n# then\n{code}\n", desktop)
    assert desktop.batches == []


def test_too_long_a_program_is_refused(desktop: Recorder) -> None:
    with pytest.raises(TooLarge):
        run("#" * 100_001, desktop)


# Keys.

# The names of pyautogui 0.9.54 that are longer than a character.
NAMES = """
accept add alt altleft altright apps backspace browserback browserfavorites browserforward
browserhome browserrefresh browsersearch browserstop capslock clear convert ctrl ctrlleft ctrlright
decimal del delete divide down end enter esc escape execute f1 f10 f11 f12 f13 f14 f15 f16 f17 f18
f19 f2 f20 f21 f22 f23 f24 f3 f4 f5 f6 f7 f8 f9 final fn hanguel hangul hanja help home insert junja
kana kanji launchapp1 launchapp2 launchmail launchmediaselect left modechange multiply nexttrack
nonconvert num0 num1 num2 num3 num4 num5 num6 num7 num8 num9 numlock pagedown pageup pause pgdn pgup
playpause prevtrack print printscreen prntscrn prtsc prtscr return right scrolllock select separator
shift shiftleft shiftright sleep space stop subtract tab up volumedown volumemute volumeup win
winleft winright yen command option optionleft optionright
""".split()
NO_KEYS = {"accept", "final"}  # no X11 keysym: pyautogui on Linux does nothing for them


def test_every_key_of_pyautogui_is_a_key_here() -> None:
    characters = [chr(code) for code in range(0x20, 0x7F)]
    for name in {*NAMES, *characters, "\t", "\n", "\r"} - NO_KEYS:
        assert len(parse_chord(name)) == 1, name
    for name in NO_KEYS:
        with pytest.raises(UnknownKey):
            parse_chord(name)
