"""The real thing: a daemon with X and XFCE, used and ended in every way."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import InvalidStatus

from tests.waiting import eventually, until
from tests.workspace.desktopd.conftest import Daemon, until_closed
from workspace import actions as a
from workspace.desktop import Desktop
from workspace.errors import NotReady

pytestmark = pytest.mark.anyio


async def test_ready_means_a_whole_desktop(daemon: Daemon, desktop: Desktop) -> None:
    health = await desktop.health()
    assert (health.ready, health.screen) == (True, (1280, 800))
    assert health.pss_mib is not None
    assert health.pss_mib <= 50
    picture = Image.open(io.BytesIO(await desktop.screenshot(format="png"))).convert("RGB")
    colors = picture.getcolors(1 << 24)
    assert colors is not None
    assert len(colors) > 50, "a panel and a backdrop, not one flat colour"
    classes = {window.window_class for window in await desktop.windows()}
    assert {"Xfdesktop", "Xfce4-panel"} <= classes


async def test_the_agent_types_into_a_program(daemon: Daemon, desktop: Desktop) -> None:
    job = await desktop.start("xterm -e bash -c 'read x; printf %s \"$x\" >~/typed'")
    await until_window(desktop, "XTerm")
    seen = await desktop.act(a.Type(text="Grüße, 世界 🚀"))
    assert seen.effect == "changed"
    assert seen.screenshot is not None
    await desktop.act(a.Key(chord="Return"))
    assert (await desktop.poll(job.id, wait_seconds=10)).exit_code == 0
    assert await desktop.read_file("typed") == "Grüße, 世界 🚀".encode()


async def test_input_dies_with_its_caller(daemon: Daemon, desktop: Desktop) -> None:
    asking = asyncio.ensure_future(desktop.hold_key("shift", 20))
    await until_shift_is(desktop, "down")
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await until_shift_is(desktop, "up")


async def test_clipboard_and_windows(desktop: Desktop) -> None:
    await desktop.set_clipboard("kopiert: 世界")
    assert await desktop.clipboard() == "kopiert: 世界"
    job = await desktop.start("xterm -T 'the window'")
    window = await until_window(desktop, "XTerm")
    await desktop.focus_window(window)
    await desktop.close_window(window)
    assert (await desktop.poll(job.id, wait_seconds=10)).state == "exited"


async def test_an_application_and_its_window(desktop: Desktop) -> None:
    names = [each.name for each in (await desktop.applications()).applications]
    assert "org.xfce.mousepad" in names
    launched = await desktop.launch("mousepad")
    assert launched.window is not None
    window = launched.window.id
    assert (await desktop.wait_for_window(title="MOUSEPAD", seconds=10)).id == window
    moved = await desktop.move_window(window, 100, 120)
    assert (moved.x, moved.y) == (100, 120)
    resized = await desktop.resize_window(window, 500, 300)
    assert resized in await desktop.windows()
    assert (resized.x, resized.y, resized.width, resized.height) == (100, 120, 500, 300)
    assert (await desktop.set_window_state(window, "maximised")).state == ["maximised"]
    kinds = {each.window_class: each.kind for each in await desktop.windows()}
    assert (kinds["Xfce4-panel"], kinds["Xfdesktop"]) == ("panel", "desktop")
    await desktop.close_window(window)
    assert (await desktop.poll(launched.job.id, wait_seconds=10)).state == "exited"


# VNC.


async def test_a_viewer_sees_but_moves_nothing(daemon: Daemon, desktop: Desktop) -> None:
    await desktop.move(300, 301)
    async with daemon.web_socket("/vnc?role=view", subprotocols=["binary"]) as socket:
        assert socket.subprotocol == "binary"
        assert await greet(socket) == (1280, 800)
        await socket.send(pointer(0, 640, 400) + key("a", down=True))
        await socket.send(struct.pack(">BBHHHH", 3, 0, 0, 0, 16, 16))
        update = await socket.recv()
        assert update[0] == 0
        # The server answers in order: what came before the request has been dealt with.
        assert await desktop.cursor_position() == (300, 301)


async def test_control_moves_and_what_it_held_is_released(daemon: Daemon, desktop: Desktop) -> None:
    taken = await desktop.take_control(holder="ada")
    async with daemon.web_socket(f"/vnc?role=control&holder=ada&grant={taken.grant}") as socket:
        assert socket.subprotocol is None
        await greet(socket)
        await socket.send(pointer(0, 640, 401) + key(0xFFE1, down=True))
        await until_cursor(desktop, (640, 401))
        await until_shift_is(desktop, "down")
    await until_shift_is(desktop, "up")
    await desktop.hand_back(holder="ada")


async def test_view_is_the_default_and_no_other_role_exists(daemon: Daemon) -> None:
    with pytest.raises(InvalidStatus) as caught:
        async with daemon.web_socket("/vnc?role=admin"):
            pass
    assert caught.value.response.status_code == 422


@pytest.mark.parametrize("said", [b"RFB 003.003\n", b"GET / HTTP/1", "RFB 003.008\n"])
async def test_what_is_no_vnc_closes(daemon: Daemon, said: bytes | str) -> None:
    async with daemon.web_socket("/vnc") as socket:
        await socket.send(said)
        assert await until_closed(socket) == 1002


# The end.


async def test_sigterm_ends_everything(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon(startup=["touch ~/started"])
    assert daemon.wait_until_ready() == {"ready": True}
    desktop = daemon.connect()
    await desktop.run("setsid -f sleep 91; nohup sleep 92 >/dev/null 2>&1 &")
    await desktop.start("sleep 93")
    await eventually((daemon.home / "started").exists)
    async with daemon.web_socket("/terminal") as socket:
        await socket.send(b"sleep 94\n")
        await socket.recv()
        commands = {command for command, _ in daemon.programs()}
        assert {"sleep 91", "sleep 92", "sleep 93"} <= commands
        assert await asyncio.to_thread(daemon.stop) == 0
    await desktop.aclose()


def test_sigterm_ends_a_start_too(start_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    server = tmp_path / "Xtigervnc"
    server.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\nexec sleep 95\n")
    server.chmod(0o755)
    daemon = start_daemon(environment={"PATH": f"{tmp_path}:/usr/bin:/bin"})
    until((tmp_path / "started").exists, 20)
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.wait_until_ready()["error"]["code"] == "start_failed"
    assert daemon.wait_for_end() == 0


async def test_without_its_x_server_all_is_started_anew_and_said_so(
    start_daemon: Callable[..., Daemon],
) -> None:
    daemon = start_daemon(session="openbox", startup=["xterm -title again"])
    assert daemon.wait_until_ready() == {"ready": True}
    desktop = daemon.connect()
    await eventually(lambda: shows(desktop, "again"))
    job = await desktop.start("sleep 97")
    await desktop.write_file("kept", b"kept")
    kill_x_server(daemon)
    await eventually(lambda: is_up(desktop))
    health = await desktop.health()
    assert (health.ready, health.restarts, health.screen) == (True, 1, (1280, 800))
    await eventually(lambda: shows(desktop, "again"))
    seen = await desktop.act(a.Move(x=40, y=50), observe="frame")
    assert seen.restarted
    assert seen.summary is not None
    assert seen.summary.startswith("The X server died")
    seen = await desktop.act(a.Move(x=41, y=50), observe="frame")
    assert not seen.restarted
    assert seen.cursor == (41, 50)
    assert await desktop.read_file("kept") == b"kept"
    assert (await desktop.poll(job.id)).exit_code is None, "what shows no window goes on"
    await desktop.type("exit\n")
    await eventually(lambda: shows(desktop, ""))
    names = [command.split()[0] for command, _ in daemon.programs()]
    assert [names.count(name) for name in ("Xtigervnc", "openbox", "dbus-daemon")] == [1, 1, 1]
    await desktop.aclose()
    assert await asyncio.to_thread(daemon.stop) == 0
    assert "Xtigervnc ended with -9" in daemon.log.read_text()


async def test_without_another_x_server_it_ends_with_an_error(
    start_daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    server = tmp_path / "Xtigervnc"
    server.write_text(f'#!/bin/sh\n[ ! -e {tmp_path}/broken ] && exec /usr/bin/Xtigervnc "$@"\n')
    server.chmod(0o755)
    daemon = start_daemon(session="openbox", environment={"PATH": f"{tmp_path}:/usr/bin:/bin"})
    assert daemon.wait_until_ready() == {"ready": True}
    desktop = daemon.connect()
    display = (await desktop.run("printf %s $DISPLAY")).stdout
    await desktop.aclose()
    (tmp_path / "broken").touch()
    kill_x_server(daemon)
    assert await asyncio.to_thread(daemon.wait_for_end) == 1
    assert daemon.stop() == 1, "and nothing is left"
    os.unlink(f"/tmp/.X11-unix/X{display.removeprefix(':')}")  # what a killed X server leaves
    assert "cannot be started anew" in daemon.log.read_text()


def kill_x_server(daemon: Daemon) -> None:
    (server,) = [each for command, each in daemon.programs() if "Xtigervnc" in command.split()[0]]
    server.send_signal(signal.SIGKILL)


async def is_up(desktop: Desktop) -> bool:
    try:
        return (await desktop.health()).restarts == 1
    except NotReady:  # until it is
        return False


async def shows(desktop: Desktop, title: str) -> bool:
    return [each.title for each in await desktop.windows()] == ([title] if title else [])


def test_a_program_that_is_missing_is_named(
    start_daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    daemon = start_daemon(path=str(tmp_path))
    assert daemon.wait_until_ready() == {"ready": True}, "a path of its own, not the caller's"


def test_a_desktop_that_does_not_come_up_says_why(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon(environment={"PATH": "/nowhere"})
    error = daemon.wait_until_ready()["error"]
    assert error["code"] == "start_failed"
    assert daemon.wait_for_end() == 1
    daemon = start_daemon(start_seconds=0.05)
    error = daemon.wait_until_ready()["error"]
    assert error["code"] == "start_failed"
    assert "0.05 s" in error["message"]
    assert daemon.wait_for_end() == 1


def test_a_wrong_configuration_names_the_field_and_keeps_the_token(
    start_daemon: Callable[..., Daemon],
) -> None:
    daemon = start_daemon(token="short", screen={"width": 7})
    said = daemon.wait_until_ready()
    assert said["error"]["code"] == "invalid_request"
    assert "token" in said["error"]["message"]
    assert "short" not in str(said) + daemon.log.read_text().replace("too short", "")
    assert daemon.wait_for_end() == 2


def test_programs_cannot_read_the_daemons_memory(daemon: Daemon) -> None:
    # The kernel gives the files of a process that may not be traced to root.
    environ = Path(f"/proc/{daemon.process.pid}/environ")
    assert environ.stat().st_uid == 0


SHIFT_STATE = """python3 - <<'E'
import ctypes
x = ctypes.CDLL("libX11.so.6")
x.XOpenDisplay.restype = ctypes.c_void_p
display = ctypes.c_void_p(x.XOpenDisplay(None))
keys = ctypes.create_string_buffer(32)
x.XQueryKeymap(display, keys)
code = x.XKeysymToKeycode(display, 0xFFE1)
print("down" if keys.raw[code // 8] >> code % 8 & 1 else "up", end="")
E"""


async def until_window(desktop: Desktop, window_class: str) -> int:
    found: list[int] = []

    async def is_there() -> bool:
        for window in await desktop.windows():
            if window.window_class == window_class and window.is_focused:
                found.append(window.id)
        return bool(found)

    await eventually(is_there)
    return found[0]


async def until_cursor(desktop: Desktop, expected: tuple[int, int]) -> None:
    async def is_there() -> bool:
        return await desktop.cursor_position() == expected

    await eventually(is_there)


async def until_shift_is(desktop: Desktop, expected: str) -> None:
    async def is_so() -> bool:
        return (await desktop.run(SHIFT_STATE)).stdout == expected

    await eventually(is_so)


async def greet(socket: ClientConnection) -> tuple[int, int]:
    """The handshake of RFB 3.8; the screen's size."""
    received = bytearray()

    async def take(count: int) -> bytes:
        while len(received) < count:
            message = await socket.recv()
            assert isinstance(message, bytes)
            received.extend(message)
        taken = bytes(received[:count])
        del received[:count]
        return taken

    assert await take(12) == b"RFB 003.008\n"
    await socket.send(b"RFB 003.008\n")
    assert await take(2) == b"\x01\x01"
    await socket.send(b"\x01")
    assert await take(4) == bytes(4)
    await socket.send(b"\x00")
    width, height = struct.unpack(">HH", await take(4))
    (length,) = struct.unpack(">I", (await take(20))[16:])
    await take(length)
    assert not received
    return width, height


def key(keysym: int | str, *, down: bool) -> bytes:
    number = ord(keysym) if isinstance(keysym, str) else keysym
    return struct.pack(">BBHI", 4, down, 0, number)


def pointer(mask: int, x: int, y: int) -> bytes:
    return struct.pack(">BBHH", 5, mask, x, y)
