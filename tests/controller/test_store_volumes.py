"""Volumes as they are kept: taken by one, free once that one has ended, gone when removed."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import AsyncExitStack
from datetime import datetime, timedelta, timezone

import pytest

from controller.store import Store
from controller.store.volumes import Kept, Owner
from tests.controller.conftest import both_databases, keep, on_postgres
from tests.controller.test_store import workspace
from workspace.errors import CarrelError, Conflict, VolumeInUse, VolumeNotFound

pytestmark = pytest.mark.anyio
NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=timezone.utc)
ME, YOU = Owner("default", "me"), Owner("other", "me")  # of two tenants, with one name


async def claim(store: Store, workspace_id: str, *, owner: Owner = ME, name: str = "v") -> Kept:
    """As a claim does: the workspace is kept first."""
    live = workspace(workspace_id).model_copy(update={"volume": name, "error": None})
    await keep(store, live, owner=owner.name)
    new_id = secrets.token_hex(5)
    return await store.volumes.take(owner, name, workspace_id=workspace_id, new_id=new_id, now=NOW)


async def end(store: Store, workspace_id: str) -> None:
    ended = workspace(workspace_id).model_copy(update={"state": "failed", "ended_at": NOW})
    assert await store.save(ended, keeper="me")


@both_databases
async def test_one_has_it_until_it_has_ended_however_that_came(database_url: str) -> None:
    store = Store(database_url)
    async with store.run():
        await claim(store, "zzzzzzzzzz", name="other")  # whose end makes no other one free
        await end(store, "zzzzzzzzzz")
        made = await claim(store, "aaaaaaaaaa")
        assert (made.is_new, made.node) == (True, None)
        assert await claim(store, "aaaaaaaaaa") == made  # again is success
        with pytest.raises(VolumeInUse, match="workspace aaaaaaaaaa"):
            await claim(store, "bbbbbbbbbb")
        with pytest.raises(VolumeInUse, match="workspace aaaaaaaaaa"):
            await store.volumes.check(ME, "v")
        assert (await store.volumes.get(ME, "v")).used_by == "aaaaaaaaaa"
        await store.volumes.place(made.id, "here")
        later = NOW + timedelta(minutes=1)
        await store.volumes.let_go("aaaaaaaaaa", now=later, size_bytes=5)  # it never came up
        assert (await claim(store, "aaaaaaaaaa")).is_new
        await store.volumes.used("aaaaaaaaaa", now=NOW)
        await store.volumes.let_go("aaaaaaaaaa", now=later, size_bytes=5 << 40)
        await store.volumes.place(made.id, "elsewhere")  # too late: its files are there
        await end(store, "aaaaaaaaaa")  # nobody said that the volume is free
        await store.volumes.check(ME, "v")
        again = await claim(store, "cccccccccc")
        assert again == made._replace(node="here", is_new=False)
        told = await store.volumes.get(ME, "v")
        assert (told.used_by, told.size_bytes, told.node) == ("cccccccccc", 5 << 40, "here")
        assert (told.created_at, told.last_used_at) == (NOW, later)


@both_databases
async def test_each_owner_has_names_of_its_own(database_url: str) -> None:
    store = Store(database_url)
    async with store.run():
        first, second = await claim(store, "aaaaaaaaaa"), await claim(store, "b" * 10, owner=YOU)
        assert first.id != second.id
        await claim(store, "cccccccccc", name="a")
        await claim(store, "dddddddddd", name="w-2")
        page = await store.volumes.page(ME, limit=2, after=None)
        assert [volume.name for volume in page] == ["a", "v"]
        page = await store.volumes.page(ME, limit=2, after="v")
        assert [volume.name for volume in page] == ["w-2"]
        assert [v.name for v in await store.volumes.page(YOU, limit=9, after=None)] == ["v"]
        with pytest.raises(VolumeNotFound, match="'w-2'"):
            await store.volumes.get(YOU, "w-2")


@both_databases
async def test_what_is_removed_is_nobodys_and_then_gone(database_url: str) -> None:
    store = Store(database_url)
    async with store.run():
        with pytest.raises(VolumeNotFound):
            await store.volumes.begin_removal(ME, "v", now=NOW)
        made = await claim(store, "aaaaaaaaaa")
        with pytest.raises(VolumeInUse, match="workspace aaaaaaaaaa"):
            await store.volumes.begin_removal(ME, "v", now=NOW)
        with pytest.raises(VolumeInUse):
            await store.volumes.free(ME, "v")
        await end(store, "aaaaaaaaaa")
        assert (await store.volumes.free(ME, "v")).id == made.id
        await store.volumes.forget(made.id)  # nobody asked for that
        assert (await store.volumes.begin_removal(ME, "v", now=NOW)).id == made.id
        assert (await store.volumes.get(ME, "v")).is_being_removed
        for work in (claim(store, "bbbbbbbbbb"), store.volumes.free(ME, "v")):
            with pytest.raises(Conflict, match="being removed"):
                await work
        assert (await store.volumes.begin_removal(ME, "v", now=NOW)).id == made.id
        await store.volumes.forget(made.id)
        assert await store.volumes.page(ME, limit=9, after=None) == []
        assert (await claim(store, "cccccccccc")).id != made.id


@pytest.mark.parametrize("is_there", [True, False])
@both_databases
async def test_of_many_who_take_it_at_once_one_has_it(database_url: str, is_there: bool) -> None:
    store = Store(database_url)
    async with store.run():
        await _race(store, [store], is_there=is_there)


@on_postgres
async def test_nor_do_several_replicas_give_it_to_two(database_url: str) -> None:
    store = Store(database_url)
    async with AsyncExitStack() as stack:
        others = [Store(database_url) for _ in range(3)]
        for each in (store, *others):
            await stack.enter_async_context(each.run())
        for _ in range(5):
            await _race(store, [store, *others], is_there=True)


async def _race(store: Store, stores: list[Store], *, is_there: bool) -> None:
    name = secrets.token_hex(4)
    if is_there:
        first = secrets.token_hex(5)
        await claim(store, first, name=name)
        await end(store, first)
    tries = [
        claim(stores[index % len(stores)], secrets.token_hex(5), name=name) for index in range(12)
    ]
    done = await asyncio.gather(*tries, return_exceptions=True)
    won = [each for each in done if isinstance(each, Kept)]
    assert len(won) == 1
    assert all(isinstance(each, (Kept, VolumeInUse)) for each in done), done
    assert all(isinstance(each, CarrelError) for each in done if each not in won)
