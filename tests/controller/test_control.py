"""Control through the controller: who takes it by name, what is written, and how it ends."""

from __future__ import annotations

import asyncio
import json
import struct
from contextlib import aclosing, suppress
from datetime import datetime
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from controller import control
from controller.app import create_app
from controller.settings import Settings
from tests.controller.conftest import LocalCluster, add_template, claim, serving
from tests.controller.people import Site, site
from tests.waiting import eventually
from workspace.calls.control import collect
from workspace.client import Carrel
from workspace.control import Control
from workspace.desktop import connect
from workspace.errors import ControlTaken, HumanInControl

pytestmark = pytest.mark.anyio
__all__ = ["site"]  # a fixture
HELLO = b"RFB 003.008\n\x01\x01"


async def test_taken_by_name_told_to_all_and_handed_back(site: Site) -> None:
    async with site.of("ada") as ada, site.of("bob") as bob:
        wanted = {"reason": "a captcha", "display_name": "Ada L.", "seconds": 60}
        taken = (await ada.post(f"{site.base}/control", json=wanted)).json()
        assert (taken["holder"], taken["reason"]) == ("ada", "a captcha")
        assert taken["grant"]
        seen = (await bob.get(f"{site.base}/control")).json()
        assert (seen["holder"], seen["display_name"], seen["grant"]) == ("ada", "Ada L.", None)
        assert (await ada.get(f"{site.base}/control")).json()["grant"] == taken["grant"]
        assert (await bob.get(site.base)).json()["control"]["holder"] == "ada"
        (listed,) = (await bob.get("/v1/workspaces")).json()["workspaces"]
        assert listed["control"]["display_name"] == "Ada L."
        refused = await bob.post(f"{site.base}/control")
        assert (refused.status_code, refused.json()["code"]) == (409, "control_taken")
        details = refused.json()["details"]
        assert details["who"] == "Ada L."
        assert datetime.fromisoformat(details["since"]) == Control.model_validate(taken).since
        refused = await bob.delete(f"{site.base}/control")
        assert refused.json()["code"] == "control_taken"
        acted = await bob.post(f"{site.base}/actions", json={"type": "click", "x": 1, "y": 1})
        assert (acted.status_code, acted.json()["code"]) == (409, "human_in_control")
        assert acted.json()["details"]["who"] == "Ada L."
        back = (await ada.delete(f"{site.base}/control")).json()
        assert back["holder"] is None
        assert back["returned"]["why"] == "handed_back"
        assert (await bob.get(site.base)).json()["control"] is None
        acted = await bob.post(f"{site.base}/actions", json={"type": "click", "x": 1, "y": 1})
        assert acted.status_code == 200
    (event,) = await site.events("control_taken")
    assert (event["actor"], event["data"]["reason"]) == ("ada", "a captcha")
    (event,) = await site.events("control_returned")
    assert (event["actor"], event["data"]["why"]) == ("ada", "handed_back")


@pytest.mark.parametrize("name", ["bot", "opal", "admin"])
async def test_its_owner_or_an_operator_takes_it_from_another_person(site: Site, name: str) -> None:
    async with site.of("ada") as ada, site.of("bob") as bob, site.of(name) as may:
        await ada.post(f"{site.base}/control")
        for asked in (
            bob.post(f"{site.base}/control", json={"force": True}),
            bob.delete(f"{site.base}/control", params={"force": True}),
        ):
            refused = await asked
            assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
        assert (await bob.get(f"{site.base}/control")).json()["holder"] == "ada"
        taken = await may.post(f"{site.base}/control", json={"force": True})
        assert taken.json()["holder"] == name

        async def is_told() -> bool:
            found = await site.events("control_returned")
            return [each["data"]["why"] for each in found] == ["taken_over"]

        await eventually(is_told)
        assert (await ada.get(site.base)).json()["control"]["holder"] == name
        back = await may.delete(f"{site.base}/control", params={"force": True})
        assert back.json()["holder"] is None


async def test_a_connection_takes_it_and_hands_it_back_after_a_grace(site: Site) -> None:
    async with site.of("bob") as bob:
        async with await site.watch("ada") as socket:
            await socket.recv()
            await socket.send(HELLO + struct.pack(">BBHH", 5, 1, 7, 8) + bytes([5, 0, 0, 7, 0, 8]))
            with pytest.raises(InvalidStatus) as caught:
                await site.watch("bob")
            answer = caught.value.response
            assert json.loads(answer.body or b"")["code"] == "control_taken"
            async with await site.watch("bob", "role=view") as view:
                await view.recv()
        assert (await bob.get(f"{site.base}/control")).json()["holder"] == "ada"
        async with await site.watch("ada") as socket:  # within the grace
            await socket.recv()
        first = await site.events("control_taken")

        async def is_over() -> bool:
            return bool((await bob.get(f"{site.base}/control")).json()["holder"] is None)

        await eventually(is_over)

        async def is_told() -> bool:
            return bool(await site.events("control_returned"))

        await eventually(is_told)
    assert len(first) == 1, "a reconnect is no new taking"
    (event,) = await site.events("control_returned")
    assert event["data"]["why"] == "disconnected"
    assert event["data"]["did"] == [{"type": "click", "x": 7, "y": 8}]


async def test_a_grant_is_good_for_its_own_person(site: Site) -> None:
    async with site.of("ada") as ada:
        grant = (await ada.post(f"{site.base}/control")).json()["grant"]
        for name, query, code in [
            ("bob", f"role=control&grant={grant}", "control_taken"),
            ("ada", "role=control&grant=forged", "conflict"),
        ]:
            with pytest.raises(InvalidStatus) as caught:
                await site.watch(name, query)
            assert json.loads(caught.value.response.body or b"")["code"] == code
        async with await site.watch("ada", f"role=control&grant={grant}") as socket:
            await socket.recv()
        assert len(await site.events("control_taken")) == 1


async def test_many_take_it_at_once_and_one_has_it(site: Site) -> None:
    async def take(number: int) -> str | None:
        async with site.of(f"person{number}") as http:
            answer = await http.post(f"{site.base}/control")
            assert answer.status_code in (200, 409)
            return answer.json()["holder"] if answer.status_code == 200 else None

    taken = [each for each in await asyncio.gather(*map(take, range(40))) if each]
    assert len(taken) == 1
    async with site.of("admin") as http:
        assert (await http.get(f"{site.base}/control")).json()["holder"] == taken[0]


async def test_the_sdk_has_it_too(site: Site) -> None:
    async with Carrel(site.url, site.keys["ada"]) as ada, Carrel(site.url, site.keys["bob"]) as bob:
        mine, theirs = ada.desktop(site.id), bob.desktop(site.id)
        assert (await mine.take_control(reason="look")).holder == "ada"
        with pytest.raises(ControlTaken):
            await theirs.take_control()
        with pytest.raises(HumanInControl) as caught:
            await theirs.click(1, 1)
        assert caught.value.details["who"] == "ada"
        assert (await theirs.control()).holder == "ada"
        returned = (await mine.hand_back()).returned
        assert returned is not None
        assert returned.why == "handed_back"


async def test_a_released_desktop_has_none(site: Site) -> None:
    async with site.of("ada") as ada:
        await ada.post(f"{site.base}/control")
        assert (await ada.delete(site.base)).status_code == 204
        refused = await ada.get(f"{site.base}/control")
        assert refused.json()["code"] == "workspace_ended"


@pytest.mark.parametrize("is_held", [False, True])
async def test_the_end_of_a_taking_is_written_by_who_comes_after(
    settings: Settings, cluster: LocalCluster, is_held: bool
) -> None:
    """The controller that a person took control through is gone before they hand it back."""
    lives_on = settings.model_copy(update={"ray_address": "none: what lives is left to the next"})
    async with serving(create_app(lives_on, cluster)) as http:
        await add_template(http, "fake")
        base = f"/v1/workspaces/{(await claim(http, template='fake'))['id']}"
        taken = (await http.post(f"{base}/control", json={"reason": "a form"})).json()
    (located,) = cluster.live.values()

    async def is_told() -> bool:
        return bool(await told("control_returned"))

    async def told(kind: str) -> list[dict[str, Any]]:  # Any: JSON values
        found = (await http.get(f"{base}/events", params={"limit": 1000})).json()["events"]
        return [each["data"] for each in found if each["kind"] == kind]

    async with aclosing(connect(located.endpoint)) as desktop:
        if not is_held:
            await desktop.hand_back(holder="admin")
        async with serving(create_app(lives_on, cluster)) as http:
            if is_held:
                assert not await told("control_returned")
                await desktop.hand_back(holder="admin")
            await eventually(is_told)
            (returned,) = await told("control_returned")
            assert (returned["why"], returned["taking"]) == ("handed_back", taken["taking"])
            assert not await told("adopted"), "it is the same controller again"
            await http.delete(base)


async def test_what_another_one_collected_and_never_wrote_is_told_as_far_as_it_is_known(
    settings: Settings, cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "WRITE_SECONDS", 0.1)
    lives_on = settings.model_copy(update={"ray_address": "none: what lives is left to the next"})
    async with serving(create_app(lives_on, cluster)) as http:
        await add_template(http, "fake")
        base = f"/v1/workspaces/{(await claim(http, template='fake'))['id']}"
        taking = (await http.post(f"{base}/control")).json()["taking"]
    (located,) = cluster.live.values()
    async with aclosing(connect(located.endpoint)) as desktop:
        await desktop.hand_back(holder="admin")
        await collect(desktop, taking)

    async def is_told() -> bool:
        found = (await http.get(f"{base}/events", params={"limit": 1000})).json()["events"]
        return [e["data"]["why"] for e in found if e["kind"] == "control_returned"] == ["not_known"]

    async with serving(create_app(lives_on, cluster)) as http:
        await eventually(is_told)
        await http.delete(base)


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        HELLO + b"\xff" * 4000,
        HELLO + struct.pack(">BxH", 2, 65535),  # more encodings than follow
        HELLO + b"\x06\x00\x00\x00" + struct.pack(">I", 2**31),  # a clipboard of 2 GiB
        HELLO + b"\x05\x00",  # half of a click
    ],
    ids=["no RFB", "no message", "too few encodings", "a huge clipboard", "half a click"],
)
async def test_malformed_rfb_ends_that_viewer_and_nothing_else(site: Site, sent: bytes) -> None:
    async with await site.watch("bob", "role=view") as other:
        await other.recv()
        async with await site.watch("ada", "role=view") as socket:
            await socket.recv()
            await socket.send(sent)
            with suppress(TimeoutError, asyncio.TimeoutError):
                await asyncio.wait_for(socket.wait_closed(), 1)
            closed = socket.close_code
        assert closed != 1011, "it is the viewer's fault, and nothing broke"
        await asyncio.wait_for(await other.ping(), 5)
        assert other.close_code is None
    async with site.of("bot") as bot:
        acted = await bot.post(f"{site.base}/actions", json={"type": "click", "x": 1, "y": 1})
        assert acted.status_code == 200
    assert not await site.events("control_taken")
