"""What a program in a container tries on the host: in one container, which none of it ends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.workspace.backends import contained, probes
from workspace.backends.containers.api import Engine

pytestmark = pytest.mark.anyio

# How many of 400 processes there cannot be.
BOMB = """
import os, time
failed, children = 0, []
for _ in range(400):
    try:
        child = os.fork()
    except OSError:
        failed += 1
        continue
    if child == 0:
        time.sleep(60)
    children.append(child)
for child in children:
    os.kill(child, 9)
    os.waitpid(child, 0)
print(failed)
"""


@pytest.fixture(scope="module")
async def shut_in(engine: Engine) -> AsyncIterator[contained.Contained]:
    """One that tries to get out: by several tests, none of which ends it."""
    with contained.place(engine) as made:
        async with made.live(memory_mib=256, pids=200, disk_mib=64) as desktop:
            yield desktop


async def test_reads_nothing_of_the_host(
    shut_in: contained.Contained, engine: Engine, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("of the host")
    assert await shut_in.says("ls -A /mnt /srv /carrel") == "/carrel:\ndoor\n\n/mnt:\n\n/srv:"
    for path in (tmp_path, Path(engine.path).parent, Path.cwd(), "/var/run/docker.sock"):
        assert "No such file" in await shut_in.refuses(f"ls {path}")
    told = await shut_in.says("cat /etc/hosts /etc/hostname /etc/resolv.conf; hostname")
    assert set(told.split()) <= {"127.0.0.1", "::1", "localhost", "desktop", "ip6-localhost",
                                 "ip6-loopback"}  # fmt: skip
    devices = (await shut_in.says("find /dev -maxdepth 1 -type c -printf '%f '")).split()
    assert set(devices) <= {"null", "zero", "full", "random", "urandom", "tty", "console"}


async def test_writes_only_its_home_and_memory(shut_in: contained.Contained) -> None:
    await shut_in.says("touch ~/a /tmp/a /run/a /var/tmp/a /dev/shm/a")
    for path in ("/", "/etc", "/usr", "/opt", "/home", "/var", "/carrel/door"):
        await shut_in.refuses(f"touch {path}/a")
    for path in ("/etc/passwd", "/etc/hosts", "/proc/sys/kernel/hostname", "/proc/sysrq-trigger"):
        await shut_in.refuses(f"echo x > {path}")
    assert "Read-only" in await shut_in.refuses("ln -s /etc/shadow /carrel/door/other")


async def test_finds_neither_its_token_nor_the_door_open(shut_in: contained.Contained) -> None:
    pattern = f"[{shut_in.token[0]}]{shut_in.token[1:]}"  # which is not itself what it finds
    found = await shut_in.run(f"grep -rl -- '{pattern}' ~ /run /tmp /carrel /etc /proc/*/environ")
    assert found.stdout == ""
    assert shut_in.token not in await shut_in.says("cat /proc/*/cmdline | grep -a . || true")
    connect = "import socket; socket.socket(socket.AF_UNIX).connect('/carrel/door/door.sock')"
    assert "refused" in await shut_in.refuses(f'python3 -c "{connect}"')


async def test_has_no_right_and_no_network(shut_in: contained.Contained) -> None:
    assert await shut_in.says("id") == "uid=1000(user) gid=1000(user) groups=1000(user)"
    status = await shut_in.says("grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status")
    assert set(status.split()[1::2]) == {"0000000000000000", "1", "2"}
    probe = "python3 -c 'import socket; socket.create_connection((\"{}\", {}), 3)'"
    for address in ("1.1.1.1", "169.254.169.254", "10.0.0.1"):
        assert "unreachable" in await shut_in.refuses(probe.format(address, 80))
    assert await shut_in.says("ls /sys/class/net") == "lo"


async def test_refuses_the_calls_that_reach_for_the_kernel(shut_in: contained.Contained) -> None:
    answers = probes.answers(await shut_in.says(probes.CALLS))
    assert answers == probes.expected(answers)
    assert (await shut_in.run(probes.X32)).exit_code in (-31, 159)  # killed by SIGSYS


async def test_gains_nothing_by_a_user_namespace(shut_in: contained.Contained) -> None:
    assert await shut_in.says("unshare -Ur id -u") == "0"  # allowed: Chromium needs it
    for command in probes.FORBIDDEN:
        await shut_in.refuses(command)


async def test_is_limited(shut_in: contained.Contained) -> None:
    done = await shut_in.run("python3 -c 'x = bytearray(1 << 30)'")
    assert done.exit_code in (-9, 137)
    assert int(await shut_in.says(f'python3 -c "{BOMB}"')) > 200
    await shut_in.refuses("head -c 100M /dev/zero > ~/one")  # no single file may be larger
    await shut_in.says("rm -f ~/one; echo alive")
