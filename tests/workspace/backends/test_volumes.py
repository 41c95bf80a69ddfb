"""Homes that stay: what one sandbox leaves in a volume the next one finds, and nobody else gets."""

from __future__ import annotations

import asyncio
import io
import os
import shutil
import signal
import stat
import tarfile
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.workspace.backends.conftest import (
    STAND_IN,
    Live,
    Place,
    a_template,
    left_of,
    new_id,
    processes_of,
)
from workspace.backends import archive, idmap, sandbox, supervisor, trees, uids, volumes
from workspace.backends.base import Mount
from workspace.backends.bubblewrap import BubblewrapBackend
from workspace.desktop import connect
from workspace.errors import StartFailed, Unsupported, VolumeInUse

pytestmark = pytest.mark.anyio
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives desktops uids")
STAND_IN_COMMAND = ("/usr/bin/python3", "-I", "-S", "-c", STAND_IN)


class Kept:
    """A backend with a folder for volumes."""

    def __init__(self, place: Place, folder: Path) -> None:
        self.place, self.folder = place, folder
        self.backend = self.another()

    def another(self, command: tuple[str, ...] = STAND_IN_COMMAND) -> BubblewrapBackend:
        place = self.place
        return BubblewrapBackend(
            place.run_dir,
            place.disk_dir,
            place.runtime_dir,
            self.folder,
            ready_seconds=40,
            command=command,
        )

    def volume(self, volume_id: str) -> str:
        return str(self.folder / volume_id)

    @asynccontextmanager
    async def live(
        self, volume_id: str, *, is_new: bool = False, **template: object
    ) -> AsyncIterator[Live]:
        workspace_id = new_id()
        mount = Mount(id=volume_id, is_new=is_new)
        endpoint = await self.backend.start(workspace_id, a_template(**template), volume=mount)
        desktop = connect(endpoint)
        try:
            yield Live(workspace_id, desktop, self.place.state(workspace_id))
        finally:
            await desktop.aclose()
            await self.backend.stop(workspace_id)


@pytest.fixture
def kept(place: Place) -> Iterator[Kept]:
    folder = Path(tempfile.mkdtemp(prefix="carrel-volumes-", dir="/var/tmp"))
    folder.chmod(0o711)
    try:
        yield Kept(place, folder)
    finally:
        shutil.rmtree(folder)


@pytest.fixture(params=["idmapped", "given"])
def both(request: pytest.FixtureRequest, kept: Kept, monkeypatch: pytest.MonkeyPatch) -> Kept:
    """As the kernel can do it, and as it is done where it cannot: with a call that it refuses."""
    if request.param == "given":
        change(kept, monkeypatch, "idmap.py", "428, 429, 442", "428, 429, 9999")
    return kept


def change(kept: Kept, patch: pytest.MonkeyPatch, module: str, old: str, new: str) -> None:
    """Have supervisors run from a copy of their rooms in which one thing is different."""
    package = kept.folder / "source" / "workspace" / "backends"
    package.mkdir(parents=True)
    here = Path(supervisor.__file__).parent
    shutil.copy(here.parent / "locks.py", package.parent)
    for path in here.glob("*.py"):
        shutil.copy(path, package)
    (package / "__init__.py").write_text("")
    (package.parent / "__init__.py").write_text("")
    text = (package / module).read_text()
    assert text.count(old) == 1
    (package / module).write_text(text.replace(old, new))
    patch.setattr(supervisor, "__file__", str(package / "supervisor.py"))


def put(volume: str, data: bytes) -> None:
    target = Path(volume, "home", "all.tar")
    target.write_bytes(data)
    target.chmod(0o644)
    if os.geteuid() == 0:
        os.chown(target, uids.resting(), uids.resting())


async def test_what_one_leaves_the_next_one_finds_as_its_own(both: Kept) -> None:
    volume = new_id()
    async with both.live(volume, is_new=True) as first:
        await first.says("mkdir -p a/b && echo kept > a/b/file && ln -s a/b link && chmod 700 a")
        assert await first.says("stat -c '%U %a' ~ a a/b/file") == "user 700\nuser 700\nuser 644"
        if os.geteuid() == 0:
            is_given = both.folder.joinpath("source").exists()
            on_disk = os.lstat(f"{both.volume(volume)}/home/link").st_uid
            assert on_disk == (first.state["uid"] if is_given else uids.resting())
    taken = None
    if os.geteuid() == 0:  # so that the next one gets another uid
        taken = os.open(f"{uids.LOCKS}/{first.state['uid']}", os.O_CREAT | os.O_RDWR)
        import fcntl

        fcntl.flock(taken, fcntl.LOCK_EX)
    try:
        async with both.live(volume) as second:
            assert (second.state["uid"] != first.state["uid"]) == (taken is not None)
            assert await second.says("cat link/file; stat -c %U a a/b/file link") == (
                "kept\nuser\nuser\nuser"
            )
            await second.says("echo more >> a/b/file && rm link && chmod 750 a")
    finally:
        if taken is not None:
            os.unlink(f"{uids.LOCKS}/{first.state['uid']}")
            os.close(taken)
    async with both.live(volume) as third:
        assert await third.says("cat a/b/file") == "kept\nmore"
    for live in (first, second, third):
        assert left_of(both.place, live.id, live.state) == []
    assert stat.S_IMODE(os.stat(both.volume(volume)).st_mode) == 0o700


async def test_a_volume_that_should_be_there_and_is_not_is_never_an_empty_home(kept: Kept) -> None:
    with pytest.raises(StartFailed, match="no volume"):
        async with kept.live(new_id()):
            pass
    assert list(kept.folder.iterdir()) == []
    with pytest.raises(Unsupported):
        await kept.place.backend.start(new_id(), a_template(), volume=Mount(id=new_id()))


async def test_one_writer_at_a_time(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = new_id()
    async with kept.live(volume, is_new=True) as holder:
        began = time.monotonic()
        with pytest.raises(VolumeInUse, match=f"in use by workspace {holder.id}"):
            async with kept.live(volume):
                pass
        assert time.monotonic() - began < volumes.WAIT_SECONDS + 10
        await holder.says("echo still > here")
        with pytest.raises(volumes.Busy, match=holder.id):
            with volumes.held(kept.volume(volume), "a test"):
                pass
    async with kept.live(volume) as next_one:
        assert await next_one.says("cat here") == "still"


async def test_of_many_at_once_one_has_it(kept: Kept) -> None:
    volume = new_id()
    volumes.make(kept.volume(volume))
    held = asyncio.Event()
    lost = 0

    async def one() -> None:
        nonlocal lost
        try:
            async with kept.live(volume) as live:
                await live.says("test ! -e mark && touch mark")
                await asyncio.wait_for(held.wait(), 60)
        except VolumeInUse:
            lost += 1
            held.set()

    await asyncio.gather(one(), one())
    assert lost == 1


async def test_the_files_stay_when_the_supervisor_is_killed(kept: Kept) -> None:
    volume = new_id()
    async with kept.live(volume, is_new=True) as live:
        await live.says("echo precious > file; nohup sleep 600 > /dev/null 2>&1 &")
        os.kill(live.state["supervisor"]["pid"], signal.SIGKILL)
        async with kept.live(volume) as next_one:  # what still ran in it has been ended first
            assert processes_of(live.state) == []
            assert await next_one.says("cat file") == "precious"
    async with kept.live(volume) as last:
        assert await last.says("cat file") == "precious"


async def test_links_and_nodes_and_setuid_files_in_it_do_nothing(both: Kept) -> None:
    volume = new_id()
    outside = both.folder / "outside"
    outside.mkdir()
    secret = outside / "secret"
    secret.write_text("secret")
    owner = (os.stat("/etc/passwd").st_uid, os.stat(secret).st_uid, os.stat(outside).st_uid)
    async with both.live(volume, is_new=True) as live:
        await live.says(
            "ln -s /etc/passwd passwd; ln -s / root; ln -s ../lock lock; ln -s ../../../.. up;"
            f"ln -s {outside} folder; ln -s {secret} file; ln -s loop loop; mkfifo pipe;"
            "cp /usr/bin/id setuid; chmod 6755 setuid; mknod null c 0 0 || true;"
            "echo x > named; ln named twice;"
            "python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"socket\")';"
            'python3 -c \'import os; open(os.fsencode("caf\\udce9"), "w").write("latin")\''
        )
        assert "cross-device" in (await live.refuses("ln /etc/passwd hard")).lower()
        assert await live.says("./setuid -u") == "1000"
        assert "nosuid" in await live.says("grep ' /home/user ' /proc/self/mountinfo")
    async with both.live(volume) as live:
        assert await live.says("stat -c %U passwd setuid pipe twice | uniq") == "user"
    assert owner == (
        os.stat("/etc/passwd").st_uid, os.stat(secret).st_uid, os.stat(outside).st_uid,
    )  # fmt: skip
    with volumes.held(both.volume(volume), "an export") as home:
        data = b"".join(archive.tar(home))
    assert b"secret" not in data.replace(os.fsencode(secret), b"")
    assert b"root:x" not in data
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = {member.name: member for member in tar}
    assert members["passwd"].issym()
    assert members["root"].linkname == "/"
    assert members["setuid"].mode == 0o755
    assert {members["named"].islnk(), members["twice"].islnk()} == {True, False}
    assert members[os.fsdecode(b"caf\xe9")].size == 5
    assert not {"pipe", "null", "socket"} & set(members)
    assert not any(name.startswith(("/", "..")) for name in members)
    volumes.remove(both.volume(volume))
    assert secret.read_text() == "secret"


async def test_what_is_exported_is_what_was_there(kept: Kept) -> None:
    volume, copy = new_id(), new_id()
    names = "find . -mindepth 1 ! -type s ! -type p -printf '%P %y %m %s %l\\n' | sort; "
    sums = names + "find . -type f -readable -print0 | sort -z | xargs -0 sha256sum"
    async with kept.live(volume, is_new=True) as live:
        await live.says(
            "mkdir -p deep/$(printf 'x%.0s' $(seq 200)); cd deep/*; seq 100000 > numbers; "
            "head -c 700001 /dev/urandom > random; : > empty; chmod 000 empty; chmod 751 ..; "
            "cd; ln -s deep/nowhere link; mkdir closed; echo in > closed/file; chmod 000 closed"
        )
        await live.says("chmod 500 closed")
        before = await live.says(sums)
    with volumes.held(kept.volume(volume), "an export") as home:
        data = b"".join(archive.tar(home))
    async with kept.live(copy, is_new=True) as live:
        # As a caller would: it is uploaded into the home and unpacked there.
        put(kept.volume(copy), data)
        await live.says("tar xpf all.tar && rm all.tar")
        assert await live.says(sums) == before
    for gone in (volume, copy):
        volumes.remove(kept.volume(gone))
        volumes.remove(kept.volume(gone))  # again is success
    assert list(kept.folder.iterdir()) == []


async def test_it_is_neither_copied_nor_removed_while_it_is_used(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(volumes, "WAIT_SECONDS", 0.2)
    volume = new_id()
    async with kept.live(volume, is_new=True) as live:
        with pytest.raises(volumes.Busy, match=live.id):
            volumes.remove(kept.volume(volume))
        await live.says("echo here > file")
    with pytest.raises(volumes.Missing):
        with volumes.held(kept.volume(new_id()), "a test"):
            pass


def test_a_tree_that_is_too_deep_is_not_copied_in_part(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_DIRECTORY)
    for _ in range(trees.MAX_DEPTH + 5):
        os.mkdir("n", dir_fd=fd)
        below = os.open("n", os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    with pytest.raises(trees.TooDeep):
        list(archive.tar(str(tmp_path)))
    trees.remove(str(tmp_path))
    tmp_path.mkdir()


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_closed_to_its_owner_is_copied_and_stays_closed(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.write_text("text")
    closed.chmod(0)
    assert b"text" in b"".join(archive.tar(str(tmp_path)))
    assert stat.S_IMODE(closed.stat().st_mode) == 0


async def test_the_disk_limit_counts_for_it(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    # What others free meanwhile could make the disk look as if nothing had been written.
    change(kept, monkeypatch, "disk.py", "IDLE_SECONDS = 60.0", "IDLE_SECONDS = 1.0")
    volume = new_id()
    async with kept.live(volume, is_new=True, disk_mib=64) as live:
        done = await live.run("head -c 100M /dev/zero > large; stat -c %s large")
        assert int(done.stdout) <= 64 << 20
        grow = "for i in 1 2 3; do head -c 60M /dev/zero > part$i; done; sleep 80"
        done = await live.run(grow, timeout_seconds=90)
        assert done.exit_code != 0, "it was killed"
    async with kept.live(volume, disk_mib=64) as live:  # that it is too large is not its deed
        await live.says("sleep 5; rm part1")  # it lives, and frees some
        done = await live.run(grow.replace("part", "more"), timeout_seconds=90)
        assert done.exit_code != 0, "it grew"
        await live.says("chmod 000 ~")
    async with kept.live(volume, disk_mib=4096) as live:
        stats = await kept.backend.stats(live.id)
        assert stats.disk_mib is not None
        assert stats.disk_mib > 64


@root_only
def test_a_home_is_given_whole_or_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in between, the next mount gives all of it."""
    folder = str(tmp_path / "volume")
    volumes.make(folder)
    home = Path(folder, "home")
    (home / "file").touch()
    (home / "link").symlink_to("/etc/passwd")

    def no_idmap(*_: object, **__: object) -> int:
        raise OSError("none here")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(idmap, "copy", no_idmap)
    give = trees.give
    monkeypatch.setattr(trees, "give", killed)
    with pytest.raises(KeyboardInterrupt):
        volumes.attach(folder, 54321)
    monkeypatch.setattr(trees, "give", give)
    assert volumes.attach(folder, 54321) is None
    assert {path.lstat().st_uid for path in (home, home / "file", home / "link")} == {54321}
    assert os.stat("/etc/passwd").st_uid == 0
    volumes.detach(folder)


async def test_real_desktops_start_again_in_it(kept: Kept) -> None:
    volume = new_id()
    kept.backend = kept.another(sandbox.DESKTOPD)
    for number, session in enumerate(("xfce", "xfce", "openbox", "xfce")):
        async with kept.live(
            volume, is_new=not number, session=session, memory_mib=1024, pids=512
        ) as live:
            assert (await live.desktop.screenshot()).startswith(b"\xff\xd8\xff")
            said = await live.says(f"touch {number}; ls [0-9]* | wc -l")
            assert int(said) == number + 1
