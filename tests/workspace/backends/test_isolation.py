"""What a program in a desktop tries on the host, with everything real but the desktop itself."""

from __future__ import annotations

import asyncio
import os
import platform
import socket
import time
from pathlib import Path

import pytest

from tests.workspace.backends import probes
from tests.workspace.backends.conftest import Place, processes_of

pytestmark = pytest.mark.anyio
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="desktops have uids of their own as root")


def read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def status_of(pid: str) -> dict[str, str]:
    lines = read(f"/proc/{pid}/status").splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


async def test_reads_nothing_of_the_host(place: Place, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("of the host")
    async with place.live() as desktop:
        assert await desktop.says("ls -A /root /mnt /srv") == "/mnt:\n\n/root:\n\n/srv:"
        assert await desktop.says("ls /home") == "user"
        for path in ("/etc/shadow", "/etc/ssh", "/etc/sudoers", "/sys", "/boot", "/var/lib/dpkg"):
            assert "No such file" in await desktop.refuses(f"ls {path}")
        for path in (tmp_path, place.run_dir, place.disk_dir, place.runtime_dir, Path.cwd()):
            assert "No such file" in await desktop.refuses(f"ls {path}")
        assert "root" not in await desktop.says("cut -d: -f7 /etc/passwd | sort -u; hostname")
        assert socket.gethostname() not in await desktop.says("cat /etc/host* /etc/machine-id")
        assert (
            await desktop.says("ls -A /proc/1/root/root /proc/1/cwd/../root | grep -v : || true")
            == ""
        )
        devices = set((await desktop.says("find /dev -maxdepth 1 -type c -printf '%f '")).split())
        assert devices <= {"null", "zero", "full", "random", "urandom", "tty", "console"}


async def test_writes_only_its_home_and_memory(place: Place) -> None:
    async with place.live() as desktop:
        await desktop.says("touch ~/a /tmp/a /run/a /var/tmp/a /dev/shm/a")
        for path in ("/", "/dev", "/etc", "/usr", "/opt", "/opt/carrel/src", "/home", "/var"):
            assert "Read-only" in await desktop.refuses(f"touch {path}/a")
        for path in (
            "/etc/passwd",
            "/etc/hosts",
            "/proc/sys/kernel/hostname",
            "/proc/sysrq-trigger",
        ):
            await desktop.refuses(f"echo x > {path}")


async def test_another_desktop_is_out_of_reach(place: Place) -> None:
    async with place.live() as one, place.live() as other:
        await one.says("echo mine > ~/secret; echo mine > /tmp/secret; echo mine > /dev/shm/secret")
        found = await other.run("cat /home/*/secret /tmp/secret /dev/shm/secret; ls ~ /tmp")
        assert "mine" not in found.stdout + found.stderr
        sockets = await other.run("cat /proc/net/unix; find /home /opt /run /tmp /var -type s")
        assert "sock" not in sockets.stdout
        assert await one.says("cat /etc/machine-id") != await other.says("cat /etc/machine-id")
        await one.says("ipcmk -M 4096")
        assert await other.says("ipcs -m | grep -c '^0x' || true") == "0"


@root_only
async def test_every_desktop_has_an_unprivileged_uid_of_its_own(place: Place) -> None:
    async with place.live() as one, place.live() as other:
        assert one.state["uid"] != other.state["uid"]
        assert await one.says("id") == "uid=1000(user) gid=1000(user) groups=1000(user)"
        for pid in processes_of(one.state):
            if int(pid) == one.state["supervisor"]["pid"]:
                continue
            fields = status_of(pid)
            assert fields["Uid"].split() == [str(one.state["uid"])] * 4
            assert fields["Gid"].split() == [str(one.state["uid"])] * 4
            assert fields["Groups"].strip() == ""
            assert fields["NoNewPrivs"] == "1"
        home = os.stat(f"{one.state['disk']}/home")
        assert (home.st_uid, home.st_mode & 0o777) == (one.state["uid"], 0o700)


@root_only
async def test_no_other_user_reaches_a_home_that_its_desktop_opens(place: Place) -> None:
    async with place.live() as desktop:
        await desktop.says("cp /usr/bin/id ~/id; chmod 6777 ~/id; chmod 777 ~")
        path = f"{desktop.state['disk']}/home/id"
        for user in (65534, desktop.state["uid"] + 1):
            with pytest.raises(PermissionError):
                await asyncio.create_subprocess_exec(path, user=user, group=user, extra_groups=[])


async def test_reaches_no_network_but_its_own(place: Place) -> None:
    probe = "python3 -c 'import socket; socket.create_connection((\"{}\", {}), 3)'"
    abstract = f"\0carrel-test-{os.getpid()}"
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as named:
        named.bind(abstract)
        named.listen()
        port = server.getsockname()[1]
        socket.create_connection(("127.0.0.1", port), 3).close()  # it does answer on the host
        async with place.live() as desktop:
            for address in ("127.0.0.1", "localhost"):
                assert "refused" in await desktop.refuses(probe.format(address, port))
            for address in ("1.1.1.1", "169.254.169.254", "10.0.0.1"):
                assert "unreachable" in await desktop.refuses(probe.format(address, 80))
            assert "resolution" in await desktop.refuses(probe.format("example.com", 80))
            connect = f'socket.socket(socket.AF_UNIX).connect("\\0{abstract[1:]}")'
            assert "refused" in await desktop.refuses(f"python3 -c 'import socket; {connect}'")
            assert await desktop.says("cut -d: -f1 /proc/net/dev | tail -n +3 | tr -d ' '") == "lo"
            served = "python3 -m http.server 8000 --bind 127.0.0.1 >/dev/null 2>&1 & "
            served += "for i in $(seq 50); do curl -sf localhost:8000 -o /dev/null && break; "
            assert await desktop.says(served + "sleep 0.1; done; echo $?; kill %1") == "0"


async def test_sees_only_its_own_processes(place: Place) -> None:
    async with place.live() as desktop:
        pids = (await desktop.says("ls /proc | grep '^[0-9]'")).split()
        assert len(pids) < 10
        assert str(os.getpid()) not in pids
        assert str(place.disk_dir) not in await desktop.says("cat /proc/*/cmdline | tr '\\0' ' '")
        await desktop.says("kill -9 1; kill -STOP 1; sleep 0.1; true")  # its init shrugs both off
        assert await desktop.says("echo alive") == "alive"


async def test_inherits_no_descriptor_that_leads_out(place: Place) -> None:
    async with place.live() as desktop:
        listed = await desktop.says("ls -l /proc/1/fd /proc/2/fd | grep -o ' -> .*'")
        for target in listed.split(" -> ")[1:]:
            kind = target.strip()
            assert kind.startswith(("pipe:", "socket:", "anon_inode:")) or kind == "/dev/null"


async def test_inherits_none_of_its_owners_environment(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CARREL_API_KEY", "very-secret")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "very-secret")
    async with place.live() as desktop:
        assert "very-secret" not in await desktop.says("cat /proc/*/environ | tr '\\0' '\\n'")
        for pid in processes_of(desktop.state):
            assert "very-secret" not in read(f"/proc/{pid}/environ")


async def test_refuses_the_calls_that_reach_for_the_kernel(place: Place) -> None:
    async with place.live() as desktop:
        answers = probes.answers(await desktop.says(probes.CALLS))
        if platform.machine() == "x86_64":
            assert await desktop.says(probes.X32) == "ENOSYS"
    assert answers == probes.expected(answers)


async def test_gains_nothing_by_a_user_namespace(place: Place) -> None:
    async with place.live() as desktop:
        assert await desktop.says("unshare -Ur id -u") == "0"  # allowed: Chromium needs it
        for command in probes.FORBIDDEN:
            await desktop.refuses(command)
        assert "0000000000000000" in await desktop.says("grep CapEff /proc/self/status")
        assert await desktop.says("su root -c id 2>&1 || echo no") != "0"


async def test_a_fork_bomb_ends_at_the_limit(place: Place) -> None:
    async with place.live(pids=200) as desktop:
        bomb = "python3 -c 'import os\nwhile True:\n try: os.fork()\n except OSError: pass'"
        await desktop.says(f"setsid {bomb} >/dev/null 2>&1 & true")
        deadline = time.monotonic() + 10
        while len(processes_of(desktop.state)) < 150:
            assert time.monotonic() < deadline, "the bomb did not go off"
            await asyncio.sleep(0.05)
        stats = await place.backend.stats(desktop.id)
        assert stats.pids is None or stats.pids <= 200
        assert len(processes_of(desktop.state)) <= 210
        with socket.socket(socket.AF_UNIX) as client:  # the daemon still answers
            client.settimeout(10)
            await asyncio.to_thread(
                client.connect, str(place.run_dir / desktop.id / "desktopd.sock")
            )
            client.sendall(b"POST / HTTP/1.1\r\nAuthorization: no\r\nContent-Length: 2\r\n\r\n{}")
            assert (await asyncio.to_thread(client.recv, 100)).startswith(b"HTTP/1.0 401")
    assert processes_of(desktop.state) == []


async def test_who_takes_too_much_memory_dies_alone(place: Place) -> None:
    async with place.live(memory_mib=256) as desktop:
        if desktop.state["group"]["kind"] == "none":
            pytest.skip("no control groups here")
        done = await desktop.run("python3 -c 'x = bytearray(1 << 30)'")
        assert done.exit_code in (-9, 137)
        assert (await desktop.run("cat /dev/zero > /dev/shm/full")).exit_code != 0
        await desktop.says("rm -f /dev/shm/full; echo alive")
        assert processes_of(desktop.state)[0]


async def test_nothing_it_starts_outlives_it(place: Place) -> None:
    async with place.live() as desktop:
        await desktop.says("(setsid nohup sleep 300 >/dev/null 2>&1 &) ; true")
        double = "import os\nif os.fork() == 0:\n os.setsid()\n if os.fork() == 0:\n"
        double += '  os.execvp("unshare", ["unshare", "-Urpf", "sleep", "301"])'
        await desktop.says(f"python3 -c '{double}' >/dev/null 2>&1; true")
        state = desktop.state
        assert len(processes_of(state)) >= 5
    assert processes_of(state) == []


async def test_the_host_follows_no_link_of_its_making(place: Place) -> None:
    precious = place.disk_dir.parent / f"{place.disk_dir.name}-precious"
    precious.mkdir()
    (precious / "file").write_bytes(b"x" * (1 << 20))
    try:
        async with place.live() as desktop:
            await desktop.says(
                f"ln -s /etc/shadow ~/a; ln -s {precious} ~/b; ln -s {precious}/file ~/c;"
                "ln -s / ~/d; mkfifo ~/pipe; mkdir -p ~/closed/x; chmod 000 ~/closed;"
                "mkdir -p $(printf 'd/%.0s' $(seq 1500)); : > $'~/odd\\n name'; true"
            )
            deep = "import os\nfor _ in range(3000):\n os.mkdir('n'); os.chdir('n')"
            await desktop.says(f'cd ~; python3 -c "{deep}"')
            deadline = time.monotonic() + 15
            while not (place.run_dir / desktop.id / "disk").exists():
                assert time.monotonic() < deadline, "the disk was never measured"
                await asyncio.sleep(0.1)
        assert (precious / "file").stat().st_size == 1 << 20
        assert not (place.disk_dir / desktop.id).exists()
        assert os.stat("/etc/shadow").st_uid == 0
    finally:
        (precious / "file").unlink()
        precious.rmdir()


async def test_the_home_has_a_checked_limit(place: Place) -> None:
    async with place.live(disk_mib=64) as desktop:
        one = await desktop.run("head -c 100M /dev/zero > ~/one")
        assert one.exit_code != 0  # no single file may be larger
        filler = "for i in $(seq 1000); do head -c 8M /dev/zero > ~/f$i; sleep 0.05; done"
        done = await desktop.run(filler, timeout_seconds=60)
        assert done.exit_code in (-9, 137)
        assert await desktop.says("rm -f ~/*; ls ~") == ""  # it can be mended
        log = (place.run_dir / desktop.id / "log").read_text()
        assert "more than its 64 MiB" in log


async def test_removed_files_that_are_held_open_are_in_the_limit(place: Place) -> None:
    hoard = "import os, time\nheld = []\nfor _ in range(200):\n"
    hoard += " held.append(open('f', 'wb')); os.unlink('f')\n"
    hoard += " held[-1].write(bytes(8 << 20)); held[-1].flush(); time.sleep(0.05)"
    async with place.live(disk_mib=64) as desktop:
        done = await desktop.run(f'python3 -c "{hoard}"', timeout_seconds=60)
        assert done.exit_code in (-9, 137)


_RENDERERS = r"""
chromium --headless --disable-gpu --no-first-run --user-data-dir=/tmp/c \
  --remote-debugging-port=9222 about:blank >/tmp/chromium.log 2>&1 &
for i in $(seq 200); do
  pids=$(pgrep -f '[-]-type=renderer') && curl -sf localhost:9222/json/version >/dev/null && break
  sleep 0.1
done
for pid in $pids; do
  tr '\0' ' ' < /proc/$pid/cmdline | grep -q -- --no-sandbox && echo no-sandbox
  grep -E '^(Seccomp|Seccomp_filters|NSpid):' /proc/$pid/status | tr '\n\t' '  '; echo
done
"""


async def test_chromiums_own_sandbox_stays_on(place: Place) -> None:
    async with place.live(memory_mib=2048, pids=1024) as desktop:
        printed = await desktop.says(_RENDERERS)
        assert printed, await desktop.says("cat /tmp/chromium.log")
        for line in printed.splitlines():
            fields = line.split()
            assert fields[fields.index("Seccomp:") + 1] == "2"
            assert int(fields[fields.index("Seccomp_filters:") + 1]) > 1  # one is ours
            inside = fields[fields.index("NSpid:") + 1 :]
            inside = inside[: next((i for i, f in enumerate(inside) if f.endswith(":")), None)]
            assert len(inside) > 1  # in a pid namespace of its own
