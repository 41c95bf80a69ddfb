"""Claims on both databases: whoever asks, and however many at once, none is given twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from controller.live import new_id
from controller.store import Store, databases
from controller.store.claims import NewClaim
from controller.store.warm import Warm
from tests.controller.conftest import both_databases, on_postgres
from workspace.errors import Conflict
from workspace.models import Screen, Workspace

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)


def warm(number: int, shape: str = "s", state: str = "warm") -> Warm:
    return Warm(
        id=f"warm{number:06}",
        template="desktop",
        shape=shape,
        state=state,  # type: ignore[arg-type]  # one of the two
        keeper="a",
        node="here",
        created_at=NOW + timedelta(seconds=number),
    )


def new(shape: str | None = "s", *, key: str | None = None, keeper: str = "a") -> NewClaim:
    name, now = new_id(), datetime.now(timezone.utc)
    workspace = Workspace(
        id=name,
        sandbox=name,
        state="starting",
        template="desktop",
        screen=Screen(),
        created_at=now,
        expires_at=now + timedelta(seconds=60),
    )
    return NewClaim(workspace, owner="me", keeper=keeper, key=key, shape=shape)


@both_databases
async def test_the_oldest_of_the_right_shape_is_taken_and_all_is_written(database_url: str) -> None:
    async with (store := Store(database_url)).run():
        await store.warm.add(
            [warm(3), warm(1), warm(2), warm(4, "other"), warm(0, state="warming")]
        )
        asked = [new(), new(None), new()]
        made = await store.claims.make(asked)
        assert [each.how for each in made] == ["warm", "cold", "warm"]
        assert [made[0].workspace.sandbox, made[2].workspace.sandbox] == [
            "warm000001",
            "warm000002",
        ]
        assert made[1].workspace.sandbox == made[1].workspace.id
        assert [each.workspace.state for each in made] == ["ready", "starting", "ready"]
        assert {each.id for each in await store.warm.all()} == {
            "warm000000",
            "warm000003",
            "warm000004",
        }
        for each in made:
            assert await store.get(each.workspace.id) == each.workspace
            assert await store.get_of(each.workspace.sandbox) == each.workspace
        lines = await store.events(limit=10)
        assert Counter(line.kind for line in lines) == {"claim": 3, "ready": 2}
        assert [line.data.get("warm") for line in lines if line.kind == "claim"] == [
            True,
            False,
            True,
        ]
        there = {*(f"warm00000{n}" for n in range(5)), made[1].workspace.id}
        assert await store.named({*there, "never", *map(str, range(1000))}) == there
        ended = made[0].workspace.model_copy(update={"ended_at": made[0].workspace.created_at})
        assert await store.save(ended, keeper="a")
        assert await store.named(there) == there - {ended.sandbox}


@both_databases
async def test_a_key_is_answered_with_what_it_got_before(database_url: str) -> None:
    async with (store := Store(database_url)).run():
        first, again = await store.claims.make([new(key="k"), new(key="k")])
        assert (first.how, again.how) == ("cold", "known")
        assert first.workspace == again.workspace
        (later, other) = await store.claims.make([new(key="k"), new(key="another")])
        assert (later.how, other.how) == ("known", "cold")
        assert later.workspace == first.workspace
        somebody = NewClaim(new().workspace, owner="somebody else", keeper="a", key="k")
        assert (await store.claims.make([somebody]))[0].how == "cold"
        assert len(await store.events(limit=10)) == 3


@on_postgres
async def test_two_controllers_never_give_one_twice(database_url: str) -> None:
    """Each takes what the other does not, and the same key is one claim, whoever is first."""
    async with (one := Store(database_url)).run(), (two := Store(database_url)).run():
        await one.warm.add([warm(each) for each in range(60)])

        async def many(store: Store, keeper: str) -> list[tuple[str, str, str]]:
            found = []
            for round_ in range(20):
                asked = [new(keeper=keeper), new(keeper=keeper), new(key=f"k{round_}")]
                for each in await store.claims.make(asked):
                    found.append((each.how, each.workspace.id, each.workspace.sandbox))
                await asyncio.sleep(0)
            return found

        answers = await asyncio.gather(many(one, "a"), many(one, "a"), many(two, "b"))
        found = [each for answer in answers for each in answer]
        own = [(name, sandbox) for how, name, sandbox in found if how != "known"]
        assert len(own) == 120 + 20
        assert len({sandbox for _, sandbox in own}) == len(own)
        assert len([how for how, _, _ in found if how == "known"]) == 40
        assert sum(how == "warm" for how, _, _ in found) == 60
        assert await one.warm.all() == []
        assert Counter(line.kind for line in await one.events(limit=1000))["claim"] == 140


@both_databases
async def test_one_that_waits_takes_a_warm_one_once(database_url: str) -> None:
    async with (store := Store(database_url)).run():
        made = (await store.claims.make([new()]))[0].workspace
        assert await store.claims.take(made, shape="s", keeper="a") is None
        await store.warm.add([warm(1)])
        assert await store.claims.take(made, shape="s", keeper="another") is None
        taken = await store.claims.take(made, shape="s", keeper="a")
        assert taken is not None
        assert taken.sandbox == "warm000001"
        assert await store.get(made.id) == taken
        assert await store.claims.take(made, shape="s", keeper="a") is None


@both_databases
async def test_only_the_keeper_writes_and_only_one_takes_over(database_url: str) -> None:
    async with (store := Store(database_url)).run():
        made = (await store.claims.make([new()]))[0].workspace
        ready = made.model_copy(update={"state": "ready"})
        assert not await store.save(ready, keeper="b")
        assert await store.save(ready, keeper="a")
        assert await store.replicas.keeper(made.id) == "a"
        taking = (store.replicas.adopt(made.id, keeper=name, of="a") for name in ("b", "c"))
        taken = await asyncio.gather(*taking)
        assert sum(each == ready for each in taken) == 1
        assert not await store.save(made, keeper="a")
        assert await store.get(made.id) == ready
        keeper = await store.replicas.keeper(made.id)
        assert await store.replicas.keepers() == {keeper}
        assert await store.replicas.kept_by(str(keeper)) == {made.id}
        assert await store.replicas.adopt_all(keeper="d", of="nobody") == []
        assert await store.replicas.adopt_all(keeper="d", of=str(keeper)) == [ready]
        keeper = "d"
        ended = ready.model_copy(update={"state": "released", "ended_at": NOW})
        assert await store.save(ended, keeper=keeper)
        assert await store.replicas.keeper(made.id) is None
        assert await store.replicas.keepers() == set()
        assert await store.replicas.adopt(made.id, keeper="e", of=keeper) is None


@both_databases
async def test_replicas_count_and_one_leads(database_url: str) -> None:
    async with (one := Store(database_url)).run(), (two := Store(database_url)).run():
        for _ in range(3):
            await one.replicas.beat("a")
        await two.replicas.beat("b")
        assert await two.replicas.beats() == {"a": 3, "b": 1}
        await one.replicas.leave("a")
        assert await two.replicas.beats() == {"b": 1}
        assert await one.leadership.is_ours()
        assert await one.leadership.is_ours()
        if database_url.startswith("postgres"):
            assert not await two.leadership.is_ours()
            await one.leadership.resign()
            assert await two.leadership.is_ours()
            assert not await one.leadership.is_ours()


@both_databases
async def test_what_operators_set_is_kept(database_url: str) -> None:
    async with (store := Store(database_url)).run():
        await store.operated.change_pool("desktop", {"warm": 3})
        await store.operated.change_pool("desktop", {"warm": 5, "max": 9})
        assert await store.operated.pools() == {"desktop": {"warm": 5, "max": 9}}
        await store.operated.drain("n1")
        await store.operated.drain("n1")
        assert list(await store.operated.draining()) == ["n1"]
        await store.operated.undrain("n1")
        assert await store.operated.draining() == {}


def test_a_second_controller_of_one_sqlite_file_is_refused(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'carrel.db'}"
    for _ in range(2):
        with databases.alone(url):
            with pytest.raises(Conflict, match="Another controller uses the database") as refused:
                databases.alone(url).__enter__()
            assert "PostgreSQL" in refused.value.hint
    assert list(tmp_path.iterdir()) == []
    with databases.alone("postgresql://db/carrel"), databases.alone("postgresql://db/carrel"):
        pass
