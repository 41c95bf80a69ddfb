"""Keys beside the admin's: made, used, remembered for moments, revoked; and never told of again."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta

import httpx
import pytest
from fastapi import FastAPI

from controller import remembering
from controller.access import Caller
from controller.events import Events
from controller.keyring import Keyring
from controller.remembering import Remembered
from controller.settings import Settings
from controller.store import Store
from tests.controller.conftest import (
    KEY,
    URL,
    add_template,
    bearer,
    both_databases,
    claim,
    client,
    new_key,
)
from tests.waiting import eventually
from workspace.access import KeyRequest
from workspace.errors import Conflict, InvalidRequest, KeyNotFound, Unavailable

pytestmark = pytest.mark.anyio
ORIGIN = {"Origin": URL}
ADMIN = Caller("admin", "admin")


@pytest.fixture
async def anybody(app: FastAPI, http: httpx.AsyncClient) -> AsyncIterator[httpx.AsyncClient]:
    async with client(app) as anybody:
        yield anybody


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


@both_databases
async def test_a_key_is_kept_by_its_digest_and_good_until_revoked(database_url: str) -> None:
    async with (store := Store(database_url)).run(), (events := Events(store)).run():
        ring = Keyring(store, events)
        made = await ring.make(KeyRequest(name="ci", tenant="billing", ttl_seconds=60), by=ADMIN)
        assert made.key.startswith(f"carrel_{made.id}_")
        caller = await ring.caller(made.key)
        assert caller is not None
        assert (caller.name, caller.role, caller.tenant) == ("ci", "user", "billing")
        kept = await store.keys.get(made.id)
        assert kept is not None
        assert made.key.rpartition("_")[2] not in repr(kept)
        for wrong in (made.key[:-1] + "!", made.key[:-1], made.id, "", f"{made.key} ", "carrel__"):
            assert await ring.caller(wrong) is None
        swapped = "a" if made.key[-1] != "a" else "b"
        assert await ring.caller(made.key[:-1] + swapped) is None
        with pytest.raises(Conflict, match="has a key 'ci' already"):
            await ring.make(KeyRequest(name="ci", tenant="billing"), by=ADMIN)
        other = await ring.make(KeyRequest(name="ci"), by=ADMIN)  # another tenant's
        await ring.revoke(made.id, by=ADMIN)
        await ring.revoke(made.id, by=ADMIN)
        assert await ring.caller(made.key) is None
        assert await ring.caller(other.key) is not None
        again = await ring.make(KeyRequest(name="ci", tenant="billing"), by=ADMIN)
        assert [key.id for key in await ring.page(limit=9, after=None)] == [again.id, other.id]
        assert [key.id for key in await ring.page(limit=9, after=again.id)] == [other.id]
        for unknown in ("abcdefghjk", "a\0b"):
            with pytest.raises(KeyNotFound):
                await ring.revoke(unknown, by=ADMIN)
        for name in ("admin", "controller", "viewer"):
            with pytest.raises(InvalidRequest):
                await ring.make(KeyRequest(name=name), by=ADMIN)
        told = [line for line in await store.events(limit=99) if "key" in line.kind]
        assert [line.kind for line in told] == [
            "key_created",
            "key_created",
            "key_revoked",
            "key_created",
        ]


@both_databases
async def test_a_key_that_is_revoked_elsewhere_is_void_within_seconds(database_url: str) -> None:
    async with AsyncExitStack() as stack:
        rings = []
        for _ in range(2):
            store = Store(database_url)
            await stack.enter_async_context(store.run())
            events = Events(store)
            await stack.enter_async_context(events.run())
            rings.append(Keyring(store, events))
        here, there = rings
        made = await here.make(KeyRequest(name="ci"), by=ADMIN)
        assert await there.caller(made.key) is not None
        await here.revoke(made.id, by=ADMIN)
        assert await here.caller(made.key) is None

        async def is_void() -> bool:
            return await there.caller(made.key) is None

        await eventually(is_void, seconds=2 * remembering.FRESH_SECONDS)


async def test_what_is_remembered_is_read_once_and_outlives_a_database_that_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    values: dict[str, str] = {"a": "1"}
    is_away = False

    async def read(name: str) -> str | None:
        asked.append(name)
        if is_away:
            raise Unavailable("It is away.")
        return values.get(name)

    now = 1000.0
    monkeypatch.setattr("controller.remembering.time.monotonic", lambda: now)
    known = Remembered(read)
    assert [await known.get("a") for _ in range(3)] == ["1"] * 3
    assert asked == ["a"]
    assert await known.get("b") is None
    values["b"] = "2"
    assert await known.get("b") == "2"  # that there was none is not remembered
    values["a"] = "changed"
    assert await known.get("a") == "1"
    known.forget("a")
    assert await known.get("a") == "changed"
    values["a"] = "changed elsewhere"
    now += remembering.FRESH_SECONDS + 0.1
    assert await known.get("a") == "changed elsewhere"
    is_away = True
    now += remembering.FRESH_SECONDS + 0.1
    asked.clear()
    assert [await known.get("a") for _ in range(3)] == ["changed elsewhere"] * 3
    assert asked == ["a"]  # and is not asked again at once
    with pytest.raises(Unavailable):
        await known.get("c")
    now += remembering.STALE_SECONDS
    with pytest.raises(Unavailable):
        await known.get("a")
    is_away = False
    del values["a"]
    assert await known.get("a") is None


async def test_what_changes_while_it_is_read_is_read_again() -> None:
    values = {"a": "old"}

    async def read(name: str) -> str | None:
        found = values[name]
        if found == "old":  # it is revoked here meanwhile
            values[name] = "new"
            known.forget(name)
        return found

    known: Remembered[str] = Remembered(read)
    assert await known.get("a") == "new"
    assert await known.get("a") == "new"


async def test_a_click_asks_no_database_whose_key_it_is(
    app: FastAPI, http: httpx.AsyncClient, anybody: httpx.AsyncClient
) -> None:
    await add_template(http, "fake")
    key = bearer((await new_key(http, "ci", tenant="billing"))["key"])
    async with client(app, headers=key) as user:
        made = await claim(user, template="fake")
        url = f"/v1/workspaces/{made['id']}/actions"
        app.state.parts.store.keys._doing = None  # who asks it now fails
        app.state.parts.store.tenant_of = None
        for _ in range(5):
            answer = await user.post(url, json={"type": "click", "x": 1, "y": 1})
            assert answer.status_code == 200


async def test_a_key_is_told_once_and_stands_nowhere(
    app: FastAPI,
    http: httpx.AsyncClient,
    anybody: httpx.AsyncClient,
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.WARNING, "httpx")  # the tests' own client
    made = await new_key(http, "ci", role="viewer")
    secret = made["key"].rpartition("_")[2]
    assert secret not in (await http.get("/v1/keys")).text
    for path in (f"/?key={made['key']}", f"/v1/whoami?x={made['key']}", "/v1/whoami?token=abc"):
        answer = await anybody.get(path)
        assert code(answer) == (422, "invalid_request")
        assert "URL" in answer.json()["message"]
        assert secret not in answer.text
    assert (await anybody.get("/v1/whoami?x=carrel_&monkey=1")).status_code == 401
    await anybody.post("/v1/login", json={"key": made["key"]}, headers=ORIGIN)
    assert code(await anybody.post("/v1/keys", json={}, headers=ORIGIN)) == (403, "forbidden")
    await http.delete(f"/v1/keys/{made['id']}")
    assert secret not in (await http.get("/v1/events")).text
    assert secret not in caplog.text
    for file in settings.home.glob("carrel.db*"):
        assert secret.encode() not in file.read_bytes()


async def test_a_session_stands_for_its_key(
    http: httpx.AsyncClient, anybody: httpx.AsyncClient
) -> None:
    made = await new_key(http, "ann", role="user", tenant="billing")
    answer = await anybody.post("/v1/login", json={"key": made["key"]}, headers=ORIGIN)
    assert answer.status_code == 204
    assert made["key"].rpartition("_")[2] not in answer.headers["set-cookie"]
    me = {"name": "ann", "role": "user", "tenant": "billing"}
    assert (await anybody.get("/v1/whoami")).json() == me
    # Nobody makes another's session of it.
    (name, cookie) = next(iter(anybody.cookies.items()))
    expiry, key_id, signature = cookie.split(".")
    other = await new_key(http, "bob", role="admin")
    async with httpx.AsyncClient(transport=anybody._transport, base_url=URL) as forger:
        for forged in (
            f"{expiry}.{other['id']}.{signature}",
            f"{expiry}..{signature}",
            f"{int(expiry) + 1}.{key_id}.{signature}",
        ):
            answer = await forger.get("/v1/whoami", headers={"Cookie": f"{name}={forged}"})
            assert answer.status_code == 401
    await http.delete(f"/v1/keys/{made['id']}")
    assert (await anybody.get("/v1/whoami")).status_code == 401


async def test_a_session_is_over_with_its_key_s_time(
    app: FastAPI, http: httpx.AsyncClient, anybody: httpx.AsyncClient
) -> None:
    made = await new_key(http, "ann", ttl_seconds=3600)
    await anybody.post("/v1/login", json={"key": made["key"]}, headers=ORIGIN)
    assert (await anybody.get("/v1/whoami")).status_code == 200
    known = app.state.parts.auth.keyring._known._known[made["id"]]
    key = known.value.key
    past = key.model_copy(update={"expires_at": key.created_at - timedelta(seconds=1)})
    known.value = known.value._replace(key=past)
    assert (await anybody.get("/v1/whoami")).status_code == 401
    answer = await anybody.get("/v1/whoami", headers=bearer(made["key"]))
    assert code(answer) == (401, "unauthorized")


async def test_the_admin_s_key_is_as_ever(http: httpx.AsyncClient) -> None:
    assert (await http.get("/v1/whoami", headers=bearer(KEY))).json()["role"] == "admin"
    answer = await http.post("/v1/keys", json={"name": "Not A Name"})
    assert code(answer) == (422, "invalid_request")
    assert code(await http.delete("/v1/keys/abcdefghjk")) == (404, "key_not_found")
