"""What becomes of artifacts by themselves, on a clock of the test's."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path

import pytest

from controller.artifacts import Artifacts
from controller.artifacts import retention as module
from controller.artifacts.blobs import Blob, digest_of
from controller.artifacts.opening import retention
from controller.artifacts.retention import Retention
from controller.events import Events
from controller.settings import Settings
from controller.store import Store
from tests.controller.artifacts.conftest import Place, pieces, quota
from tests.controller.conftest import both_databases, keep
from workspace.access import Quotas
from workspace.artifacts import Artifact, ArtifactKind
from workspace.errors import Unavailable
from workspace.models import Screen, Workspace

pytestmark = pytest.mark.anyio
DAY = timedelta(days=1)
W = "aaaaaaaaaa"


class Leads:
    """Whether this one does, as the test says."""

    ours = True

    async def is_ours(self) -> bool:
        return self.ours


class Clock:
    def __init__(self) -> None:
        self.now = datetime.now(timezone.utc)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def events(store: Store) -> AsyncIterator[Events]:
    events = Events(store)
    async with events.run():
        yield events


@pytest.fixture
async def artifacts(store: Store, place: Place, tmp_path: Path, clock: Clock) -> Artifacts:
    made = Artifacts(store, place.blobs, tmp_path / "incoming", quota(), now=clock)
    await made._spool.begin()
    return made


async def save(
    artifacts: Artifacts, data: bytes, kind: ArtifactKind = "file", workspace_id: str = W
) -> Artifact:
    return await artifacts.save(pieces(data), workspace_id=workspace_id, kind=kind, name="a")


async def left(artifacts: Artifacts) -> list[Artifact]:
    return await artifacts.rows.page(W, None, limit=1000, after=None)


async def test_the_old_go_and_then_their_bytes(
    artifacts: Artifacts, place: Place, events: Events, store: Store, clock: Clock
) -> None:
    ages: dict[ArtifactKind, timedelta] = {"frame": DAY, "file": 7 * DAY}
    sweeping = Retention(artifacts, Leads(), events, ages=ages)
    shared, frame = await save(artifacts, b"both"), await save(artifacts, b"both", "frame")
    own = await save(artifacts, b"own", "frame")
    film = await save(artifacts, b"film", "recording")
    assert await sweeping.sweep() == module.Swept()
    clock.now += 2 * DAY
    young = await save(artifacts, b"young", "frame")
    assert (await sweeping.sweep()).old == 2
    assert await left(artifacts) == sorted(
        (shared, film, young), key=lambda it: (it.created_at, it.id)
    )
    assert place.there() == sorted({shared.digest, film.digest, young.digest})
    assert await artifacts.read(shared) == b"both"
    clock.now += 365 * DAY
    assert (await sweeping.sweep()).old == 2
    assert await left(artifacts) == [film]  # kinds that are not named stay
    told = [event.data for event in await store.events(limit=99)]
    assert told == [
        {"artifact": "frame", "count": 2},
        {"artifact": "frame", "count": 1},
        {"artifact": "file", "count": 1},
    ]
    assert {frame.digest, own.digest} & set(place.there()) == set()


@both_databases
@pytest.mark.parametrize("place", ["folder"], indirect=True)
async def test_a_tenant_may_keep_its_own_for_another_time(
    artifacts: Artifacts, place: Place, events: Events, store: Store, clock: Clock
) -> None:
    tenants = {"brief": "b" * 10, "ever": "e" * 10, "default": "d" * 10}
    now = datetime.now(timezone.utc)
    for tenant, workspace_id in tenants.items():
        made = Workspace(
            id=workspace_id,
            tenant=tenant,
            state="released",
            template="t",
            screen=Screen(),
            created_at=now,
            expires_at=now,
            ended_at=now,
        )
        await keep(store, made)
        for kind in ("file", "frame"):
            await save(artifacts, f"{tenant} {kind}".encode(), kind, workspace_id)
    await store.tenants.put("brief", Quotas(artifact_days=1))
    await store.tenants.put("ever", Quotas(artifact_days=0, event_days=3))
    await store.tenants.put("other", Quotas(workspaces=1))
    assert await store.tenants.days("artifact_days") == {"brief": 1, "ever": 0}
    assert await store.tenants.days("event_days") == {"ever": 3}

    async def of(tenant: str) -> int:
        return len(await artifacts.rows.page(tenants[tenant], None, limit=9, after=None))

    own = partial(store.tenants.days, "artifact_days")
    sweeping = Retention(artifacts, Leads(), events, ages={"file": 7 * DAY}, own=own)
    clock.now += 2 * DAY
    assert (await sweeping.sweep()).old == 2
    assert [await of(tenant) for tenant in tenants] == [0, 2, 2]
    clock.now += 30 * DAY
    assert (await sweeping.sweep()).old == 1
    assert [await of(tenant) for tenant in tenants] == [0, 2, 1]


@both_databases
@pytest.mark.parametrize("place", ["folder"], indirect=True)
async def test_many_go_in_batches_and_others_go_on(
    artifacts: Artifacts,
    place: Place,
    events: Events,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "BATCH", 4)
    monkeypatch.setattr(module, "BATCHES", 2)
    for number in range(10):
        await save(artifacts, str(number).encode())
    sweeping = Retention(artifacts, Leads(), events, ages={"file": DAY})
    clock.now += 2 * DAY
    assert [(await sweeping.sweep()).old for _ in range(3)] == [8, 2, 0]
    assert place.there() == []
    assert await artifacts.rows.used() == 0


@pytest.mark.parametrize("place", ["folder"], indirect=True)
async def test_only_who_leads_removes(
    artifacts: Artifacts, place: Place, events: Events, clock: Clock
) -> None:
    leads = Leads()
    leads.ours = False
    kept = await save(artifacts, b"a")
    clock.now += 9 * DAY
    sweeping = Retention(artifacts, leads, events, ages={"file": DAY})
    assert await sweeping.sweep() == module.Swept()
    assert await artifacts.read(kept) == b"a"


async def test_bytes_that_no_row_names_go_once_they_are_old(
    artifacts: Artifacts, place: Place, events: Events, clock: Clock
) -> None:
    """As after a database was restored from a backup."""
    kept = await save(artifacts, b"kept")
    data = os.urandom(100)
    await place.blobs.put(Blob(digest_of(data), 100, data))
    sweeping = Retention(artifacts, Leads(), events, ages={})
    assert (await sweeping.sweep()).strays == 0
    assert len(place.there()) == 2
    clock.now += DAY / 2
    again = await save(artifacts, b"kept too")  # one that is used is young again
    clock.now += DAY
    await artifacts.rows.reserve(again.digest, again.size, now=clock.now)
    assert (await sweeping.sweep()).strays == 1
    assert place.there() == sorted([kept.digest, again.digest])


@both_databases
@pytest.mark.parametrize("place", ["folder"], indirect=True)
async def test_a_removal_that_broke_off_is_finished(
    artifacts: Artifacts, place: Place, events: Events, clock: Clock
) -> None:
    kept = await save(artifacts, b"half")
    remove = place.blobs.remove

    async def away(_digest: str) -> None:
        raise Unavailable("It is away.")

    place.blobs.remove = away  # type: ignore[method-assign]
    await artifacts.remove(kept.id)  # the caller need not know
    assert place.there() == [kept.digest]
    place.blobs.remove = remove  # type: ignore[method-assign]
    sweeping = Retention(artifacts, Leads(), events, ages={})
    await sweeping.sweep()  # whoever began it may be at it
    assert place.there() == [kept.digest]
    clock.now += timedelta(minutes=6)
    await sweeping.sweep()
    assert place.there() == []
    assert await artifacts.read(await save(artifacts, b"half")) == b"half"


def test_the_settings_say_how_old(tmp_path: Path) -> None:
    def ages(**settings: float) -> dict[str, float]:
        made = Settings(home=tmp_path, **settings)  # type: ignore[arg-type]
        sweeping = retention(_none(), _none(), _none(), made)
        return {kind: age / DAY for kind, age in sweeping._ages.items()}

    assert ages() == {"file": 30, "recording": 30, "frame": 30}
    assert ages(artifact_days=0, artifact_frame_days=2) == {"frame": 2}
    assert ages(artifact_frame_days=0) == {"file": 30, "recording": 30}


def _none() -> object:
    class Empty:
        rows = leadership = None

    return Empty()
