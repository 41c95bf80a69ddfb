from __future__ import annotations

import asyncio

import pytest

from tests.waiting import eventually
from tests.workspace.desktopd.x11.harness import Client, Server
from workspace import actions as a
from workspace.desktopd import screen as screen_module
from workspace.desktopd.screen import Screen
from workspace.errors import OffScreen, UnknownKey

CTRL, SHIFT, T, S, EQUAL = 37, 50, 28, 39, 21  # keycodes of the server's own map


@pytest.mark.parametrize("point", [(0, 0), (1279, 799), (640, 400)])
async def test_click_every_button_in_every_corner(
    screen: Screen, client: Client, point: tuple[int, int]
) -> None:
    x, y = point
    buttons: list[a.Button] = ["left", "middle", "right", "back", "forward"]
    for button, number in zip(buttons, (1, 2, 3, 8, 9), strict=True):
        client.events.clear()
        seen = await screen.act([a.Click(x=x, y=y, button=button)])
        assert seen.cursor == point
        assert [e for e in client.told() if e[0] != "move"] == [
            ("press", number, x, y),
            ("release", number, x, y),
        ]


@pytest.mark.parametrize(
    "action",
    [
        a.Move(x=-1, y=0),
        a.Click(x=1280, y=0),
        a.MouseDown(x=0, y=800),
        a.Drag(path=[(5, 5), (5, -1)]),
        a.Scroll(x=0, y=-1, dy=1),
    ],
)
async def test_off_screen_is_refused_before_anything_is_done(
    screen: Screen, client: Client, action: a.Action
) -> None:
    await screen.act([a.Move(x=100, y=100)])
    client.collect()
    client.events.clear()
    with pytest.raises(OffScreen) as caught:
        await screen.act([action])
    assert caught.value.details == {"index": 0, "completed": 0}
    assert client.told() == []


async def test_double_click_is_one(screen: Screen, client: Client) -> None:
    await screen.act([a.Click(x=50, y=60, count=3)])
    presses = [e for e in client.collect() if e.response_type & 0x7F == 4]
    assert [(e.root_x, e.root_y) for e in presses] == [(50, 60)] * 3
    assert presses[2].time - presses[0].time < 100


async def test_modifiers_are_held_and_released(screen: Screen, client: Client) -> None:
    await screen.act([a.Click(x=5, y=5, modifiers=["ctrl", "shift"])])
    kinds = [e[:2] for e in client.told() if e[0] != "move"]
    assert kinds == [
        *(("key", CTRL), ("key", SHIFT), ("press", 1), ("release", 1)),
        *(("key up", SHIFT), ("key up", CTRL)),
    ]
    with pytest.raises(UnknownKey):
        await screen.act([a.Click(x=9, y=9, modifiers=["ctrl", "shfit"])])
    assert (await screen.act([a.CursorPosition()])).cursor == (5, 5)


async def test_drag_moves_through_real_motion(screen: Screen, client: Client) -> None:
    await screen.act([a.Drag(path=[(100, 100), (200, 100), (200, 180)], modifiers=["shift"])])
    told = client.told()
    press, release = told.index(("press", 1, 100, 100)), told.index(("release", 1, 200, 180))
    moves = [e[1:] for e in told[press:release] if e[0] == "move"]
    assert len(moves) >= 20
    assert (200, 100) in moves
    assert moves[-1] == (200, 180)
    times = [e.time for e in client.events if e.response_type & 0x7F in (4, 5)]
    assert times[1] - times[0] >= 100
    assert told[0] == ("key", SHIFT)
    assert told[-1] == ("key up", SHIFT)


async def test_scroll_in_notches(screen: Screen, client: Client) -> None:
    await screen.act([a.Scroll(x=70, y=70, dy=3, dx=-2), a.Scroll(dy=-1, dx=1)])
    presses = [e for e in client.told() if e[0] == "press"]
    assert presses == [("press", n, 70, 70) for n in (5, 5, 5, 6, 6, 4, 7)]
    client.events.clear()
    await screen.act([a.Scroll(dy=100)])
    assert len([e for e in client.told() if e[0] == "press"]) == 100


async def test_chords(screen: Screen, client: Client) -> None:
    await screen.act([a.Key(chord="ctrl+shift+T")])
    assert client.told() == [
        *(("key", CTRL), ("key", SHIFT), ("key", T)),
        *(("key up", T), ("key up", SHIFT), ("key up", CTRL)),
    ]
    client.events.clear()
    await screen.act([a.Key(chord="ctrl++")])
    assert client.told()[:3] == [("key", CTRL), ("key", SHIFT), ("key", EQUAL)]
    client.events.clear()
    await screen.act([a.Key(chord="s", repeat=100)])
    assert client.told() == [("key", S), ("key up", S)] * 100
    client.events.clear()
    await screen.act([a.Key(chord="é")])  # on no key of this keyboard
    assert [e[0] for e in client.told()] == ["key", "key up"]


async def test_held_across_calls_until_released(screen: Screen, client: Client) -> None:
    await screen.act([a.KeyDown(chord="shift"), a.MouseDown(x=10, y=10)])
    await screen.act([a.Click(button="right", modifiers=["shift"])])
    await screen.act([a.MouseUp(x=30, y=30), a.KeyUp(chord="shift")])
    assert [e for e in client.told() if e[0] != "move"] == [
        *(("key", SHIFT), ("press", 1, 10, 10), ("press", 3, 10, 10), ("release", 3, 10, 10)),
        *(("release", 1, 30, 30), ("key up", SHIFT)),
    ]
    assert screen._input.held == frozenset()


async def test_failure_releases_what_the_call_pressed(screen: Screen, client: Client) -> None:
    await screen.act([a.KeyDown(chord="shift")])
    batch = [a.KeyDown(chord="ctrl"), a.MouseDown(x=1, y=1), a.Click(x=5000, y=0), a.Move(x=2, y=2)]
    with pytest.raises(OffScreen) as caught:
        await screen.act(batch)
    assert caught.value.details == {"index": 2, "completed": 2}
    assert str(caught.value).startswith("action 3 of 4 (click): (5000, 0) is outside")
    told = [e[:2] for e in client.told() if e[0] != "move"]
    assert told[-2:] == [("release", 1), ("key up", CTRL)]
    assert screen._input.held == {("key", SHIFT)}
    screen.release_held()
    assert client.told()[-1] == ("key up", SHIFT)


@pytest.mark.parametrize(
    "action",
    [
        a.HoldKey(chord="ctrl+t", seconds=20),
        a.Drag(path=[(10, 10), (1000, 700), (10, 10)]),
    ],
)
async def test_cancellation_releases(screen: Screen, client: Client, action: a.Action) -> None:
    batch = [a.KeyDown(chord="shift"), action]
    task = asyncio.create_task(screen.act(batch))
    await eventually(lambda: len(screen._input.held) > 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert screen._input.held == frozenset()
    told = client.told()
    downs = [e[:2] for e in told if e[0] in ("key", "press")]
    ups = [e[:2] for e in told if e[0] in ("key up", "release")]
    assert len(downs) == len(ups) >= 2
    await screen.act([a.Click(x=3, y=3)])  # the turn was given back


async def test_a_caller_who_leaves_while_the_screen_settles(screen: Screen, client: Client) -> None:
    task = asyncio.create_task(screen.act([a.KeyDown(chord="shift")], settle_ms=5000))
    await eventually(lambda: bool(screen._input.held))
    await asyncio.sleep(0)  # the key is down, and now it settles
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert screen._input.held == frozenset()
    assert [e[:2] for e in client.told()][-1:] == [("key up", SHIFT)]


async def test_watchdog_releases_what_nobody_does(
    screen: Screen, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(screen_module, "HELD_SECONDS", 0.1)
    await screen.act([a.KeyDown(chord="shift"), a.MouseDown(x=4, y=4)])
    assert screen._input.held
    await eventually(lambda: not screen._input.held)
    assert [e[:2] for e in client.told()][-2:] == [("release", 1), ("key up", SHIFT)]


async def test_batches_take_turns(screen: Screen, client: Client) -> None:
    first = asyncio.create_task(screen.act([a.Move(x=1, y=1), a.Wait(seconds=0.1), a.Click()]))
    await asyncio.sleep(0)
    second = asyncio.create_task(screen.act([a.Click(x=2, y=2)]))
    await asyncio.gather(first, second)
    assert [e for e in client.told() if e[0] == "press"] == [
        ("press", 1, 1, 1),
        ("press", 1, 2, 2),
    ]


async def test_caps_lock_does_not_change_text(screen: Screen, client: Client) -> None:
    await screen.act([a.Key(chord="Caps_Lock")])
    client.told()
    client.events.clear()
    await screen.act([a.Type(text="tT")])
    keys = [e for e in client.events or client.collect() if e.response_type & 0x7F == 2]
    typed = [(e.detail, e.state & 0xFF) for e in keys if e.detail == T]
    assert typed == [(T, 0), (T, 1)]  # without Lock, then with Shift alone
    assert screen._keymap.refresh() & 2  # and it is on again
    await screen.act([a.Key(chord="capslock")])
    assert not screen._keymap.refresh() & 2


async def test_server_grab_does_not_block(server: Server, screen: Screen) -> None:
    other = Client(server.display)
    try:
        other.core.GrabServer(is_checked=True).check()
        await asyncio.wait_for(screen.act([a.Click(x=1, y=1), a.Screenshot()]), 5)
    finally:
        other.close()


async def test_closing_gives_the_keyboard_back(server: Server, screen: Screen) -> None:
    def mapping() -> list[int]:
        return list(screen._display.core.GetKeyboardMapping(8, 248).reply().keysyms)

    before = mapping()
    other = await Screen.open(server.display)
    try:
        many = "".join(chr(code) for code in range(0x4E00, 0x4E14))
        await other.act([a.Type(text=many)])
        assert mapping() != before
    finally:
        await other.aclose()
    assert mapping() == before


async def test_map_changed_by_others_is_read_again(screen: Screen, client: Client) -> None:
    await screen.act([a.Type(text="ß")])
    spare = next(iter(screen._keymap._given))
    row = client.core.GetKeyboardMapping(T, 1).reply()
    try:
        # Someone takes the spare key and puts ß on the key of t.
        client.core.ChangeKeyboardMapping(1, spare, 1, [ord("x")], True).check()
        client.core.ChangeKeyboardMapping(1, T, 2, [0xDF, 0xDF], True).check()
        client.collect()
        client.events.clear()
        await screen.act([a.Type(text="ß")])
        assert client.told() == [("key", T), ("key up", T)]
    finally:
        width = row.keysyms_per_keycode
        client.core.ChangeKeyboardMapping(1, T, width, list(row.keysyms), True).check()
        client.core.ChangeKeyboardMapping(1, spare, 1, [0], True).check()
