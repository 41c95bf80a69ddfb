"""VS Code through its bridge, by a double of the bridge: reconnecting, and every fault of it."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import eventually
from tests.workspace.desktopd.ide.double import TOKEN, Bridge, Peer, silence
from workspace import ide as i
from workspace.desktopd.ide import rpc, vscode
from workspace.desktopd.ide.vscode import VsCode
from workspace.errors import (
    EditConflict,
    FileMissing,
    IdeFailed,
    IdeNotReady,
    NotADirectory,
    TimedOut,
    TooLarge,
    TooMany,
    Unsupported,
)

pytestmark = pytest.mark.anyio
STATE = i.GetState(seconds=5)


@pytest.fixture
async def bridge() -> AsyncIterator[Bridge]:
    folder = tempfile.mkdtemp(prefix="ide-")
    double = Bridge(folder)
    yield double
    await double.close()
    shutil.rmtree(folder)


@pytest.fixture
async def code(bridge: Bridge, tmp_path: Path) -> AsyncIterator[VsCode]:
    adapter = VsCode(os.path.dirname(bridge.path), TOKEN, str(tmp_path))
    yield adapter
    await adapter.aclose()


async def ready(code: VsCode, bridge: Bridge) -> None:
    await bridge.listen()
    await asyncio.wait_for(code.until_ready(), 10)


async def test_it_is_starting_until_the_bridge_has_said_hello(code: VsCode, bridge: Bridge) -> None:
    assert (await code.health()).phase == "starting"
    with pytest.raises(IdeNotReady):
        await code.do(STATE)
    await ready(code, bridge)
    told = await code.health()
    assert told.phase == "ready"
    assert (told.name, told.folder) == ("Double", "/home/user/project")
    assert "open" in told.can
    assert "dance" not in told.can
    answer = await code.do(STATE)
    assert isinstance(answer, i.IdeState)


async def test_calls_at_once_are_answered_in_whatever_order(code: VsCode, bridge: Bridge) -> None:
    held: list[tuple[Peer, dict[str, Any]]] = []

    async def hold(peer: Peer, request: dict[str, Any]) -> None:
        held.append((peer, request))
        if len(held) == 10:
            for peer, request in reversed(held):
                path = request["params"]["path"]
                peer.answer(request, {"type": "open", "path": path, "line": 1, "column": 1})

    bridge.replies["open"] = hold
    await ready(code, bridge)
    answers = await asyncio.gather(*(code.do(i.Open(path=f"f{n}")) for n in range(10)))
    assert [answer.path for answer in answers if isinstance(answer, i.Opened)] == [
        f"f{n}" for n in range(10)
    ]


async def test_only_so_many_calls_wait(code: VsCode, bridge: Bridge) -> None:
    bridge.replies["open"] = silence
    await ready(code, bridge)
    calls = [asyncio.ensure_future(code.do(i.Open(path="f"))) for _ in range(rpc.MAX_CALLS)]
    await eventually(lambda: len(bridge.asked) > rpc.MAX_CALLS)
    with pytest.raises(TooMany):
        await code.do(i.Open(path="f"))
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(await code.do(STATE), i.IdeState)


async def test_a_caller_that_goes_away_has_it_cancelled(code: VsCode, bridge: Bridge) -> None:
    bridge.replies["run_task"] = silence
    await ready(code, bridge)
    call = asyncio.ensure_future(code.do(i.RunTask(command="sleep 100")))
    await eventually(lambda: bridge.asked[-1]["method"] == "do")
    id_ = bridge.asked[-1]["id"]
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await eventually(lambda: bridge.cancelled == [id_])
    assert isinstance(await code.do(STATE), i.IdeState)


async def test_an_extension_host_that_hangs(
    code: VsCode, bridge: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vscode, "_SLACK_SECONDS", 0.05)
    monkeypatch.setattr(vscode, "_PING_SECONDS", 0.1)
    await ready(code, bridge)
    hello, bridge.hello = bridge.hello, silence
    bridge.replies["state"] = silence
    with pytest.raises(IdeFailed, match="hangs"):
        await code.do(i.GetState(seconds=0.1))
    assert (await code.health()).phase == "not_answering"
    bridge.hello = hello
    assert (await code.health()).phase == "ready"
    # One that answers all else is slow with that alone.
    with pytest.raises(TimedOut, match="state"):
        await code.do(i.GetState(seconds=0.1))


async def test_a_connection_that_ends_in_a_call(code: VsCode, bridge: Bridge) -> None:
    async def drop(peer: Peer, request: dict[str, Any]) -> None:
        peer.drop()

    bridge.replies["rename"] = drop
    await ready(code, bridge)
    with pytest.raises(IdeFailed, match="went away"):
        await code.do(i.Rename(path="a", line=1, new_name="b"))
    await asyncio.wait_for(code.until_ready(), 10)  # it is made again, and the call is not
    assert isinstance(await code.do(STATE), i.IdeState)
    assert sum(asked["params"].get("type") == "rename" for asked in bridge.asked) == 1


@pytest.mark.parametrize(
    ("garbage", "says"),
    [
        (b"no json\n", "no answer"),
        (b"\xff\xfe\n", "no answer"),
        (b'{"id": "x"}\n', "no answer"),
        (b"[1]\n", "no answer"),
        (b"[" * 100_000 + b"\n", "no answer"),
        (b"x" * ((16 << 20) + 10), "longer than 16 MiB"),
    ],
    ids=["text", "bytes", "id", "list", "deep", "long"],
)
async def test_garbage_ends_the_connection_and_not_the_daemon(
    code: VsCode, bridge: Bridge, garbage: bytes, says: str
) -> None:
    async def babble(peer: Peer, request: dict[str, Any]) -> None:
        peer.send(garbage)

    bridge.replies["open"] = babble
    await ready(code, bridge)
    with pytest.raises(IdeFailed, match=says):
        await code.do(i.Open(path="a", seconds=20))
    await asyncio.wait_for(code.until_ready(), 10)
    assert isinstance(await code.do(STATE), i.IdeState)


@pytest.mark.parametrize(
    ("result", "says"),
    [
        (None, "is no answer"),
        ("text", "is no answer"),
        ({"type": "dance"}, "is no answer"),
        ({"type": "open"}, "path"),
        ({"type": "open", "path": 5, "line": 1, "column": 1}, "path"),
        ({"type": "state"}, "what was not asked"),
    ],
)
async def test_an_answer_that_is_none(
    code: VsCode, bridge: Bridge, result: object, says: str
) -> None:
    async def answer(peer: Peer, request: dict[str, Any]) -> None:
        peer.answer(request, result)

    bridge.replies["open"] = answer
    await ready(code, bridge)
    with pytest.raises(IdeFailed, match=says):
        await code.do(i.Open(path="a"))
    assert isinstance(await code.do(STATE), i.IdeState)  # on the same connection
    assert len(bridge.peers) == 1


async def test_answers_that_nobody_asked_for_are_left_alone(code: VsCode, bridge: Bridge) -> None:
    await ready(code, bridge)
    for line in (b'{"id": 999, "result": 1}\n', b'{"id": null, "error": {"message": "what?"}}\n'):
        bridge.peers[0].send(line)
    assert isinstance(await code.do(STATE), i.IdeState)
    assert len(bridge.peers) == 1


async def test_errors_are_those_that_an_ide_may_have(code: VsCode, bridge: Bridge) -> None:
    data: dict[str, str] = {}

    async def refuse(peer: Peer, request: dict[str, Any]) -> None:
        peer.refuse(request, **data)

    bridge.replies["rename"] = refuse
    await ready(code, bridge)
    rename = i.Rename(path="a", line=1, new_name="b")
    for code_, kind in (("edit_conflict", EditConflict), ("file_not_found", FileMissing)):
        data |= {"code": code_, "message": "Because.", "hint": "So."}
        with pytest.raises(kind) as caught:
            await code.do(rename)
        assert (caught.value.message, caught.value.hint) == ("Because.", "So.")
    for code_ in ("unauthorized", "internal", "ide_not_ready", "workspace_ended", "__class__", ""):
        data["code"] = code_
        with pytest.raises(IdeFailed, match="Because"):
            await code.do(rename)
    data["message"] = "m" * 100_000
    with pytest.raises(IdeFailed) as long:
        await code.do(rename)
    assert len(long.value.message) <= 4000


async def test_what_it_cannot_do_and_what_is_too_long(code: VsCode, bridge: Bridge) -> None:
    await ready(code, bridge)
    with pytest.raises(Unsupported, match="hover") as caught:
        await code.do(i.GetHover(path="a", line=1, column=1))
    assert "rename" in caught.value.hint
    edits = [i.FileEdit(path="a", new="x" * 1_000_000, create=True)] * 17
    with pytest.raises(TooLarge):
        await code.do(i.ApplyEdit(edits=edits))
    assert isinstance(await code.do(STATE), i.IdeState)


async def test_a_token_that_is_not_taken(bridge: Bridge, tmp_path: Path) -> None:
    await bridge.listen()
    stranger = VsCode(os.path.dirname(bridge.path), "another", str(tmp_path))
    try:
        await eventually(lambda: len(bridge.peers) > 1)  # it goes on trying
        told = await stranger.health()
        assert told.phase == "not_answering"
        assert "closed" in told.message
        assert all(asked["method"] == "hello" for asked in bridge.asked)
    finally:
        await stranger.aclose()


async def test_a_bridge_that_comes_late_is_held_up_by_something(
    code: VsCode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vscode, "_START_SECONDS", 0.0)
    told = await code.health()
    assert told.phase == "waiting_for_dialog"
    assert "screenshot" in told.message


# Folders.


def answering_then(bridge: Bridge, *, listens: bool = True, drops: bool = False) -> None:
    """Have it open folders: by an answer or by going, and another host after it."""

    async def open_folder(peer: Peer, request: dict[str, Any]) -> None:
        path = request["params"]["path"]
        if drops:
            peer.drop()
        else:
            peer.answer(request, {"type": "open_folder", "path": path})
        await asyncio.sleep(0.2)  # the old one lives on for a while, and would be connected to
        bridge.folder = path
        if listens:
            await bridge.listen()

    bridge.replies["open_folder"] = open_folder


@pytest.mark.parametrize("drops", [False, True])
async def test_a_folder_is_open_once_its_host_says_so(
    code: VsCode, bridge: Bridge, tmp_path: Path, drops: bool
) -> None:
    (tmp_path / "other").mkdir()
    await ready(code, bridge)
    answering_then(bridge, drops=drops)
    answer = await code.do(i.OpenFolder(path="~/other"))
    assert answer == i.FolderOpened(path=str(tmp_path / "other"))
    assert (await code.health()).folder == str(tmp_path / "other")
    count = len(bridge.asked)
    # It is open: that is known without a word.
    assert await code.do(i.OpenFolder(path=str(tmp_path / "other"))) == answer
    assert not any(asked["params"].get("type") == "open_folder" for asked in bridge.asked[count:])


async def test_a_folder_that_does_not_open(code: VsCode, bridge: Bridge, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    await ready(code, bridge)
    with pytest.raises(FileMissing):
        await code.do(i.OpenFolder(path="~/nothing"))
    with pytest.raises(NotADirectory):
        await code.do(i.OpenFolder(path="~/file"))

    async def answer(peer: Peer, request: dict[str, Any]) -> None:  # and nothing comes of it
        peer.answer(request, {"type": "open_folder", "path": request["params"]["path"]})

    bridge.replies["open_folder"] = answer
    (tmp_path / "other").mkdir()
    with pytest.raises(IdeNotReady, match="not open after"):
        await code.do(i.OpenFolder(path="~/other", seconds=0.5))
    await asyncio.wait_for(code.until_ready(), 10)  # with the folder that it had
    assert (await code.health()).folder == "/home/user/project"

    async def refuse(peer: Peer, request: dict[str, Any]) -> None:
        peer.refuse(request, code="edit_conflict", message="Files are not saved.")

    bridge.replies["open_folder"] = refuse
    with pytest.raises(EditConflict):
        await code.do(i.OpenFolder(path="~/other"))
    assert isinstance(await code.do(STATE), i.IdeState)


async def test_nothing_is_left_open(bridge: Bridge, tmp_path: Path) -> None:
    await bridge.listen()
    before = len(os.listdir("/proc/self/fd"))
    adapter = VsCode(os.path.dirname(bridge.path), TOKEN, str(tmp_path))
    await asyncio.wait_for(adapter.until_ready(), 10)
    bridge.replies["open"] = silence
    call = asyncio.ensure_future(adapter.do(i.Open(path="a")))
    await eventually(lambda: bridge.asked[-1]["method"] == "do")
    await adapter.aclose()
    with suppress(IdeFailed):
        await call
    await eventually(lambda: len(os.listdir("/proc/self/fd")) <= before)
