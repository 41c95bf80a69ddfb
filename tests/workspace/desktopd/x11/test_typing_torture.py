"""A hundred hard strings, typed into real programs and read back byte for byte."""

from __future__ import annotations

import asyncio
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from xml.etree import ElementTree

from tests.waiting import eventually
from tests.workspace.desktopd.x11.hard_strings import HARD_STRINGS
from tests.workspace.desktopd.x11.harness import Server
from workspace import actions as a
from workspace.desktopd.screen import Screen
from workspace.desktopd.x11.contents import Contents

_END = re.compile(r"\n=(\d+)=\n")


def _normal(text: str) -> str:
    """What a program that has lines makes of it: every line end is Return."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _without(keys: str) -> dict[str, str]:
    """The strings that have none of these in them."""
    return {name: text for name, text in HARD_STRINGS.items() if not set(keys) & set(text)}


async def _type_all(screen: Screen, texts: Mapping[str, str]) -> str:
    """Type them, each closed by a line with its number; what the program should hold then."""
    for number, text in enumerate(texts.values()):
        await screen.act([a.Type(text=f"{text}\n={number}=\n")])
    return "".join(f"{_normal(text)}\n={n}=\n" for n, text in enumerate(texts.values()))


def _compare(program: str, texts: Mapping[str, str], held: str) -> None:
    """Fail with the names of those that the program does not hold as they were typed."""
    parts = _END.split(held)
    found = {int(number): text for text, number in zip(parts[::2], parts[1::2], strict=False)}
    wrong = [
        f"{name!r} in {program}: typed {_normal(text)!a}, found {found.get(number)!a}"
        for number, (name, text) in enumerate(texts.items())
        if found.get(number) != _normal(text)
    ]
    assert not wrong, "\n".join(wrong)


def _read(file: Path) -> str:
    return file.read_bytes().decode("utf-8", "replace") if file.exists() else ""


def _has(file: Path, number: int) -> Callable[[], bool]:
    """Whether a file has all of them, up to the one of that number."""
    return lambda: _read(file).rstrip("\n").endswith(f"={number}=")


async def _start(
    server: Server, screen: Screen, window_class: str, *command: str, **environment: str
) -> subprocess.Popen[bytes]:
    """Start a program under a window manager, and wait until its window has the keyboard."""
    server.start_on_bus("xfwm4", "--compositor=off")
    await screen.wait_for_window_manager(20)
    program = server.start(*command, **environment)
    await eventually(
        lambda: any(
            w.is_focused and window_class in w.window_class.lower() for w in screen.windows.listed()
        ),
        60,
    )
    await screen.act([a.Wait(seconds=0.2)], settle_ms=5000)
    return program


async def test_xterm(server: Server, screen: Screen, tmp_path: Path) -> None:
    out, ready = tmp_path / "out", tmp_path / "ready"
    # Not line by line, which would end lines at 4,096 bytes.
    script = f"stty -icanon -echo min 1; touch {ready}; exec cat > {out}"
    await _start(server, screen, "xterm", "xterm", "-u8", "-e", "bash", "-c", script)
    await eventually(ready.exists)
    await _type_all(screen, HARD_STRINGS)
    await eventually(_has(out, len(HARD_STRINGS) - 1))
    _compare("xterm", HARD_STRINGS, _read(out))


async def test_mousepad(server: Server, screen: Screen, tmp_path: Path) -> None:
    await _check_editor("mousepad", server, screen, tmp_path / "text.txt")


async def test_featherpad(server: Server, screen: Screen, tmp_path: Path) -> None:
    settings = Path(server.environment["HOME"]) / ".config" / "featherpad" / "fp.conf"
    settings.parent.mkdir(parents=True)
    settings.write_text("[text]\nnoIndent=true\n")
    await _check_editor("featherpad", server, screen, tmp_path / "text.txt")


async def _check_editor(editor: str, server: Server, screen: Screen, file: Path) -> None:
    await _start(server, screen, editor, editor, str(file))
    await _type_all(screen, HARD_STRINGS)
    await screen.act([a.Key(chord="ctrl+s")])
    await eventually(_has(file, len(HARD_STRINGS) - 1))
    _compare(editor, HARD_STRINGS, _read(file))


_PAGE = """<meta charset=utf-8><title>loaded</title>
<textarea autofocus style='position: fixed; inset: 10px; width: 95vw; height: 90vh'></textarea>
<script>
document.onkeydown = event => {
  const body = document.querySelector('textarea').value;
  if (event.key == 'F2') fetch('/', {method: 'POST', body: body});
}
</script>"""


@contextmanager
def _serving_page() -> Iterator[tuple[str, list[str]]]:
    """A page with a text area whose text F2 posts; its address, and what was posted."""
    posted: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(_PAGE.encode())

        def do_POST(self) -> None:
            size = int(self.headers["Content-Length"])
            posted.append(self.rfile.read(size).decode())
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = Thread(target=http.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_port}/", posted
        finally:
            http.shutdown()
            thread.join()


async def test_chromium(server: Server, screen: Screen, tmp_path: Path) -> None:
    with _serving_page() as (address, posted):
        await _start(
            *(server, screen, "chromium", "chromium", "--no-sandbox", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *("--disable-gpu", "--test-type", f"--user-data-dir={tmp_path / 'profile'}"),
            *("--window-size=1200,700", "--window-position=0,0", address),
        )
        await eventually(lambda: any("loaded" in w.title for w in screen.windows.listed()), 60)
        await screen.act([a.Click(x=500, y=400)], settle_ms=5000)
        texts = _without("\t")  # which goes to the next field
        await _type_all(screen, texts)
        await screen.act([a.Key(chord="F2")])
        await eventually(lambda: posted)
        _compare("Chromium's page", texts, posted[0])
    await _check_address_bar(screen)


async def _copied(screen: Screen, end: str) -> str:
    """What a field that has the keyboard holds, copied once it has come to the end."""
    deadline = time.monotonic() + 20
    copied = ""
    while not copied.endswith(end) and time.monotonic() < deadline:
        copied = ""
        screen.clipboard.offer(Contents())
        await screen.act([a.Key(chord="ctrl+a"), a.Key(chord="ctrl+c")])
        patience = time.monotonic() + 1
        while not copied and time.monotonic() < patience:
            copied = (await screen.clipboard.contents()).text
            await asyncio.sleep(0.01)
    return copied


async def _check_address_bar(screen: Screen) -> None:
    """Type them, five at a time, as what is to be searched for, and copy that."""
    texts = _without("\r\n\t")
    names = list(texts)
    for start in range(0, len(names), 5):
        some = {name: texts[name] for name in names[start : start + 5]}
        whole = "q " + "".join(f"{text} ={number}= " for number, text in enumerate(some.values()))
        # The page is asked first whether it wants the chord: what is typed meanwhile is its own.
        await screen.act([a.Key(chord="ctrl+l")], settle_ms=2000)
        await screen.act([a.Type(text=whole)])
        copied = await _copied(screen, whole[-6:])
        assert copied[:2] == "q "
        _compare("Chromium's address bar", some, re.sub(r" =(\d+)= ", "\n=\\1=\n", copied[2:]))


_SPREADSHEET = """<?xml version="1.0" encoding="UTF-8"?>
<office:document xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0"
 xmlns:table="urn:oasis:names:tc:opendocument:xmlns:table:1.0" office:version="1.3"
 office:mimetype="application/vnd.oasis.opendocument.spreadsheet"><office:body>
<office:spreadsheet><table:table table:name="one"/></office:spreadsheet></office:body>
</office:document>"""
_TEXT = "{urn:oasis:names:tc:opendocument:xmlns:text:1.0}"
_CELL = "{urn:oasis:names:tc:opendocument:xmlns:table:1.0}table-cell"
# What Calc makes of what is typed is its own affair: here it is to take it as it is.
_CORRECTIONS = (
    *("UseReplacementTable", "TwoCapitalsAtStart", "CapitalAtStartSentence", "SetInetAttribute"),
    *("ChangeOrdinalNumber", "ChangeDash", "AddNonBreakingSpace", "TransliterateRTL"),
    *("ChangeAngleQuotes", "CorrectAccidentalCapsLock", "ReplaceSingleQuote"),
    "ReplaceDoubleQuote",
)


def _write_settings(profile: Path) -> None:
    off = [("Common/AutoCorrect", name) for name in _CORRECTIONS] + [("Calc/Input", "AutoInput")]
    items = "".join(
        f'<item oor:path="/org.openoffice.Office.{path}"><prop oor:name="{name}" oor:op="fuse">'
        "<value>false</value></prop></item>"
        for path, name in off
    )
    (profile / "user").mkdir(parents=True)
    (profile / "user" / "registrymodifications.xcu").write_text(
        f'<oor:items xmlns:oor="http://openoffice.org/2001/registry">{items}</oor:items>'
    )


def _text_of(element: ElementTree.Element) -> str:
    """The text of an ODF paragraph (OpenDocument 1.3, part 3, 6.1.2)."""
    spaces = int(element.get(f"{_TEXT}c", "1")) if element.tag == f"{_TEXT}s" else 0
    within = "".join(_text_of(child) + (child.tail or "") for child in element)
    return " " * spaces + (element.text or "") + within


async def test_calc(server: Server, screen: Screen, tmp_path: Path) -> None:
    profile, file = tmp_path / "profile", tmp_path / "sheet.fods"
    _write_settings(profile)
    file.write_text(_SPREADSHEET)
    office = await _start(
        *(server, screen, "libreoffice-calc", "soffice", "--calc", "--norestore", "--nologo"),
        *(f"-env:UserInstallation={profile.as_uri()}", str(file)),
        SAL_USE_VCLPLUGIN="gtk3",
    )
    # One cell each, as text; Return and Tab go to the next.
    texts = _without("\r\n\t")
    for text in texts.values():
        await screen.act([a.Type(text=f"t{text}\n")])
    await screen.act([a.Key(chord="ctrl+s")])
    await eventually(lambda: file.read_text() != _SPREADSHEET and _is_whole(file))
    cells = ["".join(map(_text_of, cell))[1:] for cell in ElementTree.parse(file).iter(_CELL)]
    _compare("Calc", texts, "".join(f"{text}\n={n}=\n" for n, text in enumerate(cells)))
    await screen.act([a.Key(chord="ctrl+q")])  # killed, it would leave a socket behind
    await eventually(lambda: office.poll() is not None)


def _is_whole(file: Path) -> bool:
    return file.read_bytes().rstrip().endswith(b"</office:document>")
