"""Control through the controller: who takes it by name, what is written, and how it ends."""

from __future__ import annotations

import asyncio
import json
import struct
from datetime import datetime

import pytest
from websockets.exceptions import InvalidStatus

from tests.controller.people import Site, site
from tests.waiting import eventually
from workspace.client import Carrel
from workspace.control import Control
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


async def test_taken_from_another_person_by_force(site: Site) -> None:
    async with site.of("ada") as ada, site.of("bob") as bob:
        await ada.post(f"{site.base}/control")
        taken = await bob.post(f"{site.base}/control", json={"force": True})
        assert taken.json()["holder"] == "bob"

        async def is_told() -> bool:
            found = await site.events("control_returned")
            return [each["data"]["why"] for each in found] == ["taken_over"]

        await eventually(is_told)
        assert (await ada.get(site.base)).json()["control"]["holder"] == "bob"
        back = await ada.delete(f"{site.base}/control", params={"force": True})
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
