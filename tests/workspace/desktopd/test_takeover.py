"""A real desktop whose mouse goes between the agent and people: never two, and nothing stuck."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from websockets.exceptions import InvalidStatus

from tests.waiting import eventually
from tests.workspace.desktopd.conftest import Daemon
from tests.workspace.desktopd.person import SHIFT, Person, at, connected
from workspace import actions as a
from workspace.calls.control import collect, park, unpark
from workspace.control import TypeWithheld
from workspace.desktop import Desktop
from workspace.desktopd.control import GRACE_SECONDS
from workspace.errors import Conflict, ControlTaken, HumanInControl, NotFound

pytestmark = pytest.mark.anyio
# What xinput's core keyboard and pointer say is down, of whoever's doing.
PRESSED = """
import ctypes, os
x = ctypes.CDLL("libX11.so.6")
x.XOpenDisplay.restype = ctypes.c_void_p
d = ctypes.c_void_p(x.XOpenDisplay(None))
keys = ctypes.create_string_buffer(32)
x.XQueryKeymap(d, keys)
print(sum(bin(b).count("1") for b in keys.raw))
"""


@pytest.fixture(scope="module")
def light(start_daemon: Callable[..., Daemon]) -> Daemon:
    started = start_daemon(session="openbox")
    assert started.wait_until_ready() == {"ready": True}
    return started


@pytest.fixture
async def desktop(light: Daemon) -> AsyncIterator[Desktop]:
    client = light.connect()
    yield client
    control = await client.control()
    if control.holder is not None:
        await client.hand_back(holder=control.holder)
    if control.parked is not None:
        await unpark(client, control.parked.ticket)
    await client.aclose()


async def pressed(desktop: Desktop) -> int:
    ran = await desktop.run(f"python3 -c '{PRESSED}'")
    assert ran.exit_code == 0, ran.stderr
    return int(ran.stdout)


async def where(desktop: Desktop) -> tuple[int, int]:
    return await desktop.cursor_position()


async def test_while_a_person_has_control_the_agent_only_looks(
    light: Daemon, desktop: Desktop
) -> None:
    await desktop.move(10, 11)
    job = await desktop.start("xterm")
    window = (await desktop.wait_for_window(window_class="xterm", seconds=20)).id
    async with at(light, desktop, "ada") as ada:
        refused: list[Callable[[], Awaitable[object]]] = [
            lambda: desktop.click(5, 5),
            lambda: desktop.act(a.Wait(seconds=0), a.Move(x=1, y=1)),
            lambda: desktop.type("no"),
            lambda: desktop.act(a.KeyUp(chord="shift")),
            lambda: desktop.set_value("e1", "no"),
            lambda: desktop.invoke("e1"),
            lambda: desktop.focus_window(window),
            lambda: desktop.close_window(window),
            lambda: desktop.move_window(window, 1, 1),
            lambda: desktop.resize_window(window, 300, 300),
            lambda: desktop.set_window_state(window, "maximised"),
            lambda: desktop.launch("xterm"),
            lambda: desktop.set_clipboard("no"),
            lambda: desktop.set_screen(800, 600),
        ]
        for ask in refused:
            with pytest.raises(HumanInControl) as caught:
                await ask()
            assert caught.value.details["who"] == "ada"
        assert await desktop.screenshot()
        assert await where(desktop) == (10, 11)
        seen = await desktop.act(a.Wait(seconds=0), a.Screenshot(), observe="frame")
        assert seen.screenshot is not None
        assert await desktop.windows()
        assert (await desktop.run("echo open")).stdout == "open\n"
        await ada.point(40, 41)
        await ada.heard()
        assert await where(desktop) == (40, 41)
        health = await desktop.health()
        assert health.control is not None
        assert (health.control.holder, health.control.grant) == ("ada", None)
        assert health.idle_seconds == 0
    await desktop.hand_back(holder="ada")
    await desktop.click(50, 51)
    await desktop.forget(job.id)


async def test_only_the_holders_input_passes(light: Daemon, desktop: Desktop) -> None:
    await desktop.move(20, 21)
    async with at(light, desktop, "ada") as ada:
        with pytest.raises(ControlTaken) as caught:
            await desktop.take_control(holder="bob")
        assert caught.value.details["who"] == "ada"
        assert caught.value.details["since"]
        for query, code in [
            ("holder=bob", "control_taken"),
            ("holder=ada", "conflict"),
            ("holder=ada&grant=forged", "conflict"),
            ("", "control_taken"),
        ]:
            with pytest.raises(InvalidStatus) as refused:
                async with light.web_socket(f"/vnc?role=control&{query}"):
                    pass
            answer = refused.value.response
            assert (answer.status_code, json.loads(answer.body)["code"]) == (409, code)
        await ada.point(60, 61, buttons=1)
        await ada.key(SHIFT, down=True)
        await ada.heard()
        assert await pressed(desktop) == 1
        taken = await desktop.take_control(holder="bob", force=True)
        assert await pressed(desktop) == 0, "what the former held is released before"
        await ada.point(70, 71)
        await ada.type("nothing of it")
        await ada.heard()  # the stream goes on
        assert await where(desktop) == (60, 61)
        async with connected(light, "bob", taken.grant) as bob:
            await bob.point(80, 81)
            await bob.heard()
            assert await where(desktop) == (80, 81)
            await ada.point(70, 71)
            await ada.heard()
            assert await where(desktop) == (80, 81)


async def test_nothing_of_a_persons_stays_pressed_for_the_agent(
    light: Daemon, desktop: Desktop
) -> None:
    async with at(light, desktop, "ada") as ada:
        await ada.key(SHIFT, down=True)
        await ada.key(ord("a"), down=True)
        await ada.point(100, 100, buttons=5)
        await ada.heard()
        assert await pressed(desktop) == 2
        returned = (await desktop.hand_back(holder="ada")).returned
        assert returned is not None
        assert await pressed(desktop) == 0
        await ada.key(SHIFT, down=True)
        await ada.heard()
        assert await pressed(desktop) == 0
        await desktop.click(30, 30)


async def test_a_batch_stops_where_a_person_takes_over_and_lets_go(
    light: Daemon, desktop: Desktop
) -> None:
    acting = asyncio.ensure_future(
        desktop.act(
            a.Move(x=5, y=5),
            a.MouseDown(),
            a.HoldKey(chord="shift", seconds=20),
            a.Move(x=9, y=9),
        )
    )

    async def holds() -> bool:
        return await pressed(desktop) == 1

    await eventually(holds)
    taken = await desktop.take_control(holder="ada")
    assert await pressed(desktop) == 0
    with pytest.raises(HumanInControl) as caught:
        await acting
    assert (caught.value.details["index"], caught.value.details["completed"]) == (2, 2)
    assert "broken off" in caught.value.message
    assert taken.holder == "ada"
    acting = asyncio.ensure_future(desktop.act(a.Wait(seconds=0.3), a.Move(x=9, y=9)))
    with pytest.raises(HumanInControl):
        await acting
    await desktop.hand_back(holder="ada")
    acting = asyncio.ensure_future(desktop.act(a.Wait(seconds=0.5), a.Move(x=9, y=9)))
    await asyncio.sleep(0.1)  # it waits by now, or has not begun: it is refused either way
    await desktop.take_control(holder="ada")
    with pytest.raises(HumanInControl):
        await acting
    assert await where(desktop) == (5, 5)


async def test_a_button_that_the_agent_left_down_is_released(
    light: Daemon, desktop: Desktop
) -> None:
    await desktop.act(a.KeyDown(chord="shift"))
    assert await pressed(desktop) == 1
    await desktop.take_control(holder="ada")
    assert await pressed(desktop) == 0


async def test_it_ends_by_time_and_by_going_away(light: Daemon, desktop: Desktop) -> None:
    async with at(light, desktop, "ada") as ada:
        await ada.key(SHIFT, down=True)
        await ada.heard()
    assert await pressed(desktop) == 0
    first = await desktop.control()
    assert first.holder == "ada", "a reconnect keeps it"
    over = await desktop.control(after=first.taking, wait_seconds=GRACE_SECONDS + 5)
    assert (over.holder, over.returned and over.returned.why) == (None, "disconnected")
    await desktop.click(5, 5)

    taken = await desktop.take_control(holder="ada", seconds=5)
    over = await desktop.control(after=taken.taking, wait_seconds=10)
    assert (over.holder, over.returned and over.returned.why) == (None, "timed_out")
    assert taken.taking is not None
    assert (await collect(desktop, taken.taking)).why == "timed_out"
    with pytest.raises(NotFound):
        await collect(desktop, taken.taking)


async def test_who_asked_for_a_person_waits_until_it_is_answered(
    light: Daemon, desktop: Desktop
) -> None:
    await park(desktop, "ticket01", "a captcha", 60)
    with pytest.raises(Conflict):
        await park(desktop, "ticket02", "another", 60)
    with pytest.raises(HumanInControl) as caught:
        await desktop.click(5, 5)
    assert caught.value.details["ticket"] == "ticket01"
    async with at(light, desktop, "ada") as ada:
        await ada.point(44, 45)
        await ada.heard()
    await desktop.hand_back(holder="ada")
    with pytest.raises(HumanInControl):
        await desktop.click(5, 5)
    await unpark(desktop, "ticket01")
    await desktop.click(5, 5)


async def test_many_take_at_once_and_one_has_it(light: Daemon, desktop: Desktop) -> None:
    """Fifty people with their streams, the agent beside them: at every moment one has the mouse."""
    chance = random.Random(7)
    holding: list[str] = []
    taken = 0

    async def person(number: int) -> None:
        nonlocal taken
        name, own = f"person{number}", (100 + number, 200 + number)
        await asyncio.sleep(chance.random() * 0.2)
        while True:
            try:
                control = await desktop.take_control(holder=name)
                break
            except ControlTaken:
                if taken >= 3:
                    return
            await asyncio.sleep(0.05)
        holding.append(name)
        assert holding == [name], "nobody else has it"
        taken += 1
        async with connected(light, name, control.grant) as hands:
            await hands.key(SHIFT, down=True)
            await hands.point(*own, buttons=1)
            await hands.heard()
            assert await where(desktop) == own
            with pytest.raises(HumanInControl):
                await desktop.move(1, 1)
            holding.remove(name)
            await desktop.hand_back(holder=name)
            await hands.point(3, 3, buttons=1)  # a former holder's
            await hands.heard()

    async def agent() -> None:
        for _ in range(60):
            try:
                await desktop.move(7, 7)
            except HumanInControl:
                pass
            await asyncio.sleep(0.01)

    await asyncio.gather(agent(), *(person(number) for number in range(50)))
    assert taken >= 3
    assert await where(desktop) != (3, 3)
    assert await pressed(desktop) == 0
    await desktop.click(5, 5)


async def test_what_a_person_did_comes_back(light: Daemon, desktop: Desktop) -> None:
    async with at(light, desktop, "ada") as ada:
        await ada.point(10, 10)
        await ada.point(10, 10, buttons=1)
        await ada.point(10, 10)
        await ada.type("hello\n")  # nobody tells what has the keyboard: it may be a secret
        returned = await _handed_back(desktop, ada)
    assert returned == [
        a.Click(x=10, y=10),
        TypeWithheld(length=5),
        a.Key(chord="Return"),
    ]


async def _handed_back(desktop: Desktop, person: Person) -> list[object]:
    await person.heard()
    returned = (await desktop.hand_back(holder="ada")).returned
    assert returned is not None
    return list(returned.did)
