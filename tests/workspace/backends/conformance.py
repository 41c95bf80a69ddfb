"""What :mod:`workspace.backends.base` promises of any backend, each promise one test.

A class of tests inherits :class:`Promises` and gives it a :class:`Subject` by a fixture of that
name. A backend that cannot do a thing says so by ``Unsupported``, and then that is what is tested.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping
from typing import Protocol

import pytest

from workspace.backends.base import Backend, Endpoint, Mount
from workspace.desktop import connect
from workspace.errors import (
    CarrelError,
    StartFailed,
    Unauthorized,
    Unsupported,
    VolumeInUse,
    WorkspaceNotFound,
)
from workspace.models import Template

SECONDS = 20.0


class Subject(Protocol):
    """A backend, and what only who set it up can do."""

    backend: Backend
    template: Mapping[str, object]  # of its desktops

    def another(self) -> Backend:
        """The backend as another process of this machine has it."""
        ...

    @property
    def failing(self) -> Mapping[str, object]:
        """... of one whose start fails."""
        ...

    @property
    def slow(self) -> Mapping[str, object]:
        """... of one that is not ready for long."""
        ...

    async def kill(self, workspace_id: str) -> None:
        """End what runs in a sandbox, from outside."""
        ...


def new_id() -> str:
    return uuid.uuid4().hex[:12]


def made(settings: Mapping[str, object]) -> Template:
    return Template.model_validate({"name": "test", **settings})


async def answers(endpoint: Endpoint) -> bool:
    """Whether its desktop does what it is told, within a second."""
    desktop = connect(endpoint)
    try:
        return (await asyncio.wait_for(desktop.run("true"), 5)).exit_code == 0
    except (asyncio.TimeoutError, CarrelError):
        return False
    finally:
        await desktop.aclose()


@pytest.mark.anyio
class Promises:
    """Mixed into a class of tests that has the fixture ``subject``."""

    async def test_a_started_one_answers_who_has_the_token(self, subject: Subject) -> None:
        workspace_id = new_id()
        endpoint = await subject.backend.start(workspace_id, made(subject.template))
        try:
            assert await answers(endpoint)
            assert endpoint.token not in repr(endpoint)
            stranger = connect(endpoint.model_copy(update={"token": "x" * 32}))
            with pytest.raises(Unauthorized):
                await stranger.run("true")
            await stranger.aclose()
            with pytest.raises(StartFailed):  # the id is taken
                await subject.backend.start(workspace_id, made(subject.template))
            assert await answers(endpoint)
        finally:
            await subject.backend.stop(workspace_id)
        assert not await answers(endpoint)

    async def test_each_is_listed_until_it_is_stopped(self, subject: Subject) -> None:
        one, other = new_id(), new_id()
        for each in (one, other):
            await subject.backend.start(each, made(subject.template))
        assert {one, other} <= set(await subject.backend.list())
        await subject.backend.stop(one)
        assert one not in await subject.backend.list()
        assert other in await subject.backend.list()
        await subject.backend.stop(one)  # again
        await subject.backend.stop(new_id())  # never was
        await subject.backend.stop(other)
        assert not {one, other} & set(await subject.backend.list())

    async def test_another_process_lists_and_stops_it(self, subject: Subject) -> None:
        workspace_id = new_id()
        endpoint = await subject.backend.start(workspace_id, made(subject.template))
        stranger = subject.another()
        assert workspace_id in await stranger.list()
        await stranger.stop(workspace_id)
        assert not await answers(endpoint)
        assert workspace_id not in await subject.backend.list()
        await subject.backend.stop(workspace_id)

    async def test_a_start_that_fails_leaves_nothing(self, subject: Subject) -> None:
        workspace_id = new_id()
        with pytest.raises(CarrelError) as caught:
            await subject.backend.start(workspace_id, made(subject.failing))
        assert caught.value.message
        assert workspace_id not in await subject.backend.list()

    async def test_a_start_that_is_cancelled_leaves_nothing(self, subject: Subject) -> None:
        for seconds in (0.0, 0.1, 1.0):
            workspace_id = new_id()
            starting = asyncio.ensure_future(
                subject.backend.start(workspace_id, made(subject.slow))
            )
            await asyncio.sleep(seconds)
            starting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await starting
            assert workspace_id not in await subject.backend.list()

    async def test_its_end_is_told_with_a_reason(self, subject: Subject) -> None:
        workspace_id = new_id()
        await subject.backend.start(workspace_id, made(subject.template))
        waiting = asyncio.ensure_future(subject.backend.wait(workspace_id))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await subject.kill(workspace_id)
        why = await asyncio.wait_for(waiting, SECONDS)
        assert why.endswith(".")
        await subject.backend.stop(workspace_id)
        assert workspace_id not in await subject.backend.list()

    async def test_waiting_ends_for_what_is_stopped_or_never_was(self, subject: Subject) -> None:
        workspace_id = new_id()
        await subject.backend.start(workspace_id, made(subject.template))
        waiting = asyncio.ensure_future(subject.backend.wait(workspace_id))
        await asyncio.sleep(0)
        await subject.backend.stop(workspace_id)
        assert await asyncio.wait_for(waiting, SECONDS)
        assert await asyncio.wait_for(subject.backend.wait(new_id()), SECONDS)

    async def test_a_paused_one_stands_still_until_it_is_resumed(self, subject: Subject) -> None:
        backend, workspace_id = subject.backend, new_id()
        endpoint = await backend.start(workspace_id, made(subject.template), background=True)
        try:
            try:
                await backend.pause(workspace_id)
            except Unsupported:
                assert await answers(endpoint)  # it goes on
                return
            await backend.pause(workspace_id)  # again
            assert workspace_id in await backend.list()
            desktop = connect(endpoint)
            asking = asyncio.ensure_future(desktop.run("true"))
            done, _ = await asyncio.wait([asking], timeout=0.5)
            assert not done
            await backend.resume(workspace_id)
            assert (await asyncio.wait_for(asking, SECONDS)).exit_code == 0
            await backend.resume(workspace_id)  # again
            await desktop.aclose()
            await backend.pause(workspace_id)  # and it is stopped as it is
        finally:
            await backend.stop(workspace_id)
        assert workspace_id not in await backend.list()

    async def test_one_in_the_background_comes_to_the_fore(self, subject: Subject) -> None:
        workspace_id = new_id()
        endpoint = await subject.backend.start(
            workspace_id, made(subject.template), background=True
        )
        await subject.backend.foreground(workspace_id, whose={"tenant": "acme"})
        assert await answers(endpoint)
        await subject.backend.stop(workspace_id)
        await subject.backend.foreground(workspace_id)  # nothing is left of it

    async def test_what_it_uses_is_told(self, subject: Subject) -> None:
        workspace_id = new_id()
        await subject.backend.start(workspace_id, made(subject.template))
        stats = await subject.backend.stats(workspace_id)
        assert all(each is None or each >= 0 for each in stats.model_dump().values())
        await subject.backend.stop(workspace_id)

    async def test_its_way_out_is_changed_while_it_runs(self, subject: Subject) -> None:
        workspace_id = new_id()
        await subject.backend.start(workspace_id, made(subject.template))
        tally = subject.backend.tally(workspace_id)
        try:
            await subject.backend.set_egress(workspace_id, egress="internet")
        except Unsupported:
            assert tally is None
        await subject.backend.stop(workspace_id)
        if tally is not None:
            assert tally.bytes >= 0  # it stays valid
        assert subject.backend.tally(workspace_id) is None

    async def test_one_that_is_not_there_is_not_found(self, subject: Subject) -> None:
        backend, nobody = subject.backend, new_id()
        for asked in (backend.pause, backend.resume, backend.stats, backend.set_egress):
            with pytest.raises((WorkspaceNotFound, Unsupported)):
                await asked(nobody)
        assert backend.tally(nobody) is None

    async def test_a_volume_outlives_its_desktop_and_has_one_at_a_time(
        self, subject: Subject
    ) -> None:
        backend, volume = subject.backend, new_id()
        one, other = new_id(), new_id()
        try:
            endpoint = await backend.start(
                one, made(subject.template), volume=Mount(id=volume, is_new=True)
            )
        except Unsupported:
            assert one not in await backend.list()
            return
        desktop = connect(endpoint)
        assert (await desktop.run("echo kept > ~/file")).exit_code == 0
        await desktop.aclose()
        waiting = asyncio.ensure_future(
            backend.start(other, made(subject.template), volume=Mount(id=volume))
        )
        done, _ = await asyncio.wait([waiting], timeout=2)
        assert not done or isinstance(waiting.exception(), VolumeInUse)
        await backend.stop(one)
        if done:  # it does not wait for one that may be just ending
            waiting = asyncio.ensure_future(
                backend.start(other, made(subject.template), volume=Mount(id=volume))
            )
        endpoint = await asyncio.wait_for(waiting, SECONDS)
        desktop = connect(endpoint)
        assert (await desktop.run("cat ~/file")).stdout == "kept\n"
        await desktop.aclose()
        await backend.stop(other)
        assert not {one, other} & set(await backend.list())
