"""Agents ask for a person: the ticket, the agent that waits, the answer, and the webhook."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from controller.app import create_app
from controller.settings import Settings
from tests.controller.conftest import (
    LocalCluster,
    add_template,
    both_databases,
    claim,
    serving,
)
from tests.controller.people import Site, site
from tests.serving import listening
from tests.waiting import eventually
from workspace.client import Carrel
from workspace.errors import Conflict, HumanInControl, NotFound

pytestmark = pytest.mark.anyio
__all__ = ["site"]  # a fixture
CLICK = {"type": "click", "x": 1, "y": 1}


@both_databases
async def test_asked_taken_done_and_told(site: Site) -> None:
    async with Carrel(site.url, site.keys["bot"]) as bot, Carrel(site.url, site.keys["ada"]) as ada:
        agents, adas = bot.desktop(site.id), ada.desktop(site.id)
        asked = await agents.request_human("Log in to the bank.", seconds=60)
        assert (asked.state, asked.asked_by, asked.taken_by) == ("open", "bot", None)
        assert asked.expires_at - asked.created_at == timedelta(seconds=60)
        with pytest.raises(HumanInControl) as caught:
            await agents.click(1, 1)
        assert caught.value.details["ticket"] == asked.ticket
        again = await agents.request_human("Anything else?")
        assert again.ticket == asked.ticket, "one is open at a time"
        (listed,) = await ada.human_requests()
        assert (listed.ticket, listed.workspace_id) == (asked.ticket, site.id)

        waiting = asyncio.ensure_future(agents.human_request(asked.ticket, wait_seconds=20))
        taken = await adas.take_control()
        assert (await agents.human_request(asked.ticket)).state == "taken"
        async with await site.watch("ada", f"role=control&grant={taken.grant}") as socket:
            await socket.recv()
            moves = struct.pack(">BBHHBBHH", 5, 1, 3, 4, 5, 0, 3, 4)
            keys = struct.pack(">BBHIBBHI", 4, 1, 0, ord("x"), 4, 0, 0, ord("x"))
            await socket.send(b"RFB 003.008\n\x01\x01" + moves + keys)

            async def is_done() -> bool:
                return len((await adas.control()).did) == 2

            await eventually(is_done)
            done = await adas.answer_human(asked.ticket, "done", "I am in.")
        assert (done.state, done.answered_by, done.note) == ("done", "ada", "I am in.")
        heard = await waiting
        assert heard == done
        assert [deed.type for deed in heard.did] == ["click", "type_withheld"]
        assert (await adas.control()).holder is None
        await agents.click(1, 1)
        assert await ada.human_requests() == []
        with pytest.raises(Conflict):
            await adas.answer_human(asked.ticket, "declined")
    kinds = [event["kind"] for event in await site.all_events()]
    asking = ["human_requested", "control_taken", "control_returned", "human_answered"]
    assert [kind for kind in kinds if kind in asking] == asking


async def test_declined(site: Site) -> None:
    async with Carrel(site.url, site.keys["bot"]) as bot:
        desktop = bot.desktop(site.id)
        asked = await desktop.request_human("Pay.")
        assert (await desktop.answer_human(asked.ticket, "declined", "No.")).state == "declined"
        await desktop.click(1, 1)
        with pytest.raises(NotFound):
            await desktop.human_request("0123456789abcdef")


async def test_handed_back_without_an_answer_it_waits_for_the_next(site: Site) -> None:
    async with Carrel(site.url, site.keys["bot"]) as bot, Carrel(site.url, site.keys["ada"]) as ada:
        agents, adas = bot.desktop(site.id), ada.desktop(site.id)
        asked = await agents.request_human("Look.")
        await adas.take_control()
        await adas.hand_back()
        assert (await agents.human_request(asked.ticket)).state == "open"
        with pytest.raises(HumanInControl):
            await agents.click(1, 1)


async def test_it_expires_and_the_agent_goes_on(site: Site) -> None:
    async with Carrel(site.url, site.keys["bot"]) as bot:
        desktop = bot.desktop(site.id)
        asked = await desktop.request_human("Quick.", seconds=5)
        over = await desktop.human_request(asked.ticket, wait_seconds=15)
        assert over.state == "expired"
        await desktop.click(1, 1)
        with pytest.raises(Conflict):
            await desktop.answer_human(asked.ticket, "done")
        assert len(await site.events("human_request_expired")) == 1


async def test_it_ends_with_its_desktop(site: Site) -> None:
    async with Carrel(site.url, site.keys["bot"]) as bot:
        asked = await bot.desktop(site.id).request_human("Look.")
        await bot.release(site.id)
        assert (await bot.desktop(site.id).human_request(asked.ticket)).state == "expired"
        assert await bot.human_requests() == []


async def test_many_ask_at_once_and_there_is_one_ticket(site: Site) -> None:
    async with Carrel(site.url, site.keys["bot"]) as bot:
        asking = (bot.desktop(site.id).request_human(f"{n}") for n in range(20))
        assert len({each.ticket for each in await asyncio.gather(*asking)}) == 1
        assert len(await bot.human_requests()) == 1


class Hook:
    """A server that is called, and answers with the next of ``answers``, then 204."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.heard: list[tuple[bytes, str]] = []
        self.app = Starlette(routes=[Route("/hook", self.hear, methods=["POST"])])

    async def hear(self, request: Request) -> Response:
        signature = request.headers.get("x-carrel-signature", "")
        self.heard.append((await request.body(), signature))
        status = self.answers.pop(0) if self.answers else 204
        return Response(status_code=status, headers={"location": "/hook"})


@asynccontextmanager
async def hooked(
    settings: Settings, cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch, *answers: int
) -> AsyncIterator[tuple[FastAPI, Hook]]:
    monkeypatch.setattr("controller.webhook.WAITS_SECONDS", (0.05,))
    hook = Hook()
    hook.answers += answers
    async with listening(hook.app) as port:
        told = {
            "webhook_url": f"http://127.0.0.1:{port}/hook",
            "webhook_secret": SecretStr("a shared secret"),
        }
        yield create_app(settings.model_copy(update=told), cluster), hook


async def test_the_webhook_is_called_and_signed(
    settings: Settings, cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hooked(settings, cluster, monkeypatch, 500) as (app, hook), serving(app) as http:
        await add_template(http, "fake")
        made = await claim(http, template="fake", name="Invoices")
        base = f"/v1/workspaces/{made['id']}"
        asked = (await http.post(f"{base}/requests", json={"reason": "Zahl das für mich."})).json()
        await eventually(lambda: len(hook.heard) == 2)  # again after the 500
        body, signature = hook.heard[1]
        assert hook.heard[0] == hook.heard[1]
        expected = hmac.new(b"a shared secret", body, hashlib.sha256).hexdigest()
        assert signature == f"sha256={expected}"
        told = json.loads(body)
        assert (told["ticket"], told["reason"]) == (asked["ticket"], "Zahl das für mich.")
        assert (told["name"], told["url"]) == (
            "Invoices",
            f"http://127.0.0.1:8700/watch/{made['id']}",
        )
        assert "#" not in told["url"], "no token for whoever hears it"


async def test_a_webhook_that_fails_is_an_event(
    settings: Settings, cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        hooked(settings, cluster, monkeypatch, 302, 302) as (app, hook),
        serving(app) as http,
    ):
        await add_template(http, "fake")
        made = await claim(http, template="fake")
        base = f"/v1/workspaces/{made['id']}"
        answer = await http.post(f"{base}/requests", json={"reason": "Look."})
        assert answer.status_code == 201

        async def is_told() -> bool:
            events = (await http.get(f"{base}/events")).json()["events"]
            return [e["data"]["why"] for e in events if e["kind"] == "webhook_failed"] == [
                "HTTP 302"
            ]

        await eventually(is_told)
        assert len(hook.heard) == 2
