"""Commands with real processes, without a screen."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic import ValidationError

from tests.waiting import eventually
from workspace.desktopd import shell as shell_module
from workspace.desktopd.children import Children
from workspace.desktopd.programs import Programs
from workspace.desktopd.shell import Shell
from workspace.errors import (
    CarrelError,
    CommandTimedOut,
    Conflict,
    FileMissing,
    InvalidRequest,
    NoCapacity,
    NotADirectory,
    ProcessNotFound,
    TooLarge,
)
from workspace.models import Job, ProcessRequest

pytestmark = pytest.mark.anyio


@pytest.fixture
async def programs(tmp_path: Path) -> AsyncIterator[Programs]:
    children = Children(adopts=False)
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
    yield Programs(children, environment, oom_score_adj=500)
    await children.end_all()


@pytest.fixture
async def shell(programs: Programs) -> AsyncIterator[Shell]:
    started = Shell(programs)
    yield started
    await started.aclose()


def request(command: str | list[str], **options: Any) -> ProcessRequest:
    return ProcessRequest(command=command, **options)


async def finished(shell: Shell, job: Job) -> Job:
    done = await shell.poll(job.id, wait_seconds=20, stdout_from=0, stderr_from=0)
    assert done.state == "exited"
    return done


async def test_text_runs_in_bash_and_a_list_as_it_stands(shell: Shell, tmp_path: Path) -> None:
    result = await shell.run(request("echo {a,b}; pwd; echo ü >&2; exit 3"))
    assert (result.exit_code, result.stderr, result.truncated) == (3, "ü\n", False)
    assert result.stdout == f"a b\n{tmp_path}\n"
    result = await shell.run(request(["printf", "%s|", "{a,b}", "$HOME", "-n"]))
    assert result.stdout == "{a,b}|$HOME|-n|"


async def test_stdin_environment_and_working_folder(shell: Shell, programs: Programs) -> None:
    result = await shell.run(
        request("cat; echo $A $B; pwd", stdin="in ü\n", environment={"A": "1"}, cwd="/usr")
    )
    assert result.stdout == "in ü\n1\n/usr\n"
    programs.extend_environment({"B": "2"})
    assert (await shell.run(request("echo $A $B"))).stdout == "2\n"


async def test_a_program_that_is_not_there_is_127(shell: Shell) -> None:
    result = await shell.run(request(["no-such-program"]))
    assert result.exit_code == 127
    assert "no-such-program: not found" in result.stderr


async def test_a_signal_is_a_negative_exit_code(shell: Shell) -> None:
    assert (await shell.run(request("kill -TERM $$"))).exit_code == -15


async def test_user_programs_are_the_first_to_be_killed(shell: Shell) -> None:
    assert (await shell.run(request("cat /proc/self/oom_score_adj"))).stdout == "500\n"


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (request("pwd", cwd="/no/such"), FileMissing),
        (request("pwd", cwd="/etc/passwd"), NotADirectory),
        (request("pwd", cwd="a\0b"), InvalidRequest),
        (request("echo \0"), InvalidRequest),
        (request(["echo", "\0"]), InvalidRequest),
        (request("#" + "ü" * 100_000), TooLarge),
    ],
)
async def test_what_cannot_be_started(
    shell: Shell, wrong: ProcessRequest, error: type[CarrelError]
) -> None:
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(error):
        await shell.run(wrong)
    with pytest.raises(error):
        await shell.start(wrong)
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_variable_with_a_nul_byte_is_refused_before_it_comes_here() -> None:
    with pytest.raises(ValidationError):
        request("true", environment={"A": "\0"})


async def test_a_timeout_kills_the_group_and_keeps_the_output(shell: Shell) -> None:
    with pytest.raises(CommandTimedOut) as caught:
        await shell.run(request("echo out; echo err >&2; sleep 61 & sleep 61", timeout_seconds=0.3))
    assert caught.value.details == {"stdout": "out\n", "stderr": "err\n"}
    await _gone("sleep 61")


async def test_the_command_dies_with_its_caller(shell: Shell) -> None:
    caller = asyncio.ensure_future(shell.run(request("sleep 62 | cat")))
    await _running("sleep 62")
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    await _gone("sleep 62")


async def test_a_child_left_in_the_background_lives_and_does_not_hang_the_answer(
    shell: Shell, tmp_path: Path
) -> None:
    started = time.monotonic()
    result = await shell.run(request("(sleep 1; echo late; echo alive >file) & echo now"))
    assert result.stdout == "now\n"
    assert time.monotonic() - started < 0.9
    await eventually(lambda: (tmp_path / "file").exists())


async def test_a_flood_is_cut_in_the_middle(shell: Shell) -> None:
    result = await shell.run(request("echo first; yes | head -c 5000000; echo last"))
    assert result.truncated
    assert result.stdout.startswith("first\n")
    assert result.stdout.endswith("last\n")
    assert len(result.stdout) < 1_100_000


async def test_a_job_is_polled_fed_and_ends(shell: Shell) -> None:
    job = await shell.start(request("while read x; do echo got $x; done; echo bye >&2; exit 4"))
    await shell.write_stdin(job.id, _chunks(b"on", b"e\n"), close=False)
    await _until_out(shell, job, "got one\n")
    now = await shell.poll(job.id, wait_seconds=0, stdout_from=0, stderr_from=0)
    assert (now.state, now.exit_code, now.stdout_next) == ("running", None, 8)
    await shell.write_stdin(job.id, _chunks(b"two\n"), close=True)
    done = await shell.poll(job.id, wait_seconds=20, stdout_from=8, stderr_from=0)
    assert (done.state, done.exit_code) == ("exited", 4)
    assert (done.stdout, done.stderr) == ("got two\n", "bye\n")
    with pytest.raises(Conflict):
        await shell.write_stdin(job.id, _chunks(b"x"), close=False)
    with pytest.raises(Conflict):
        shell.signal(job.id, "TERM")


async def test_a_job_is_signalled_and_forgotten(shell: Shell) -> None:
    job = await shell.start(request("trap 'echo usr; exit 0' USR1; echo up; sleep 63 & wait"))
    await _until_out(shell, job, "up\n")
    shell.signal(job.id, "USR1")
    assert (await finished(shell, job)).stdout == "up\nusr\n"
    other = await shell.start(request("sleep 64"))
    assert [each.id for each in shell.jobs()] == [job.id, other.id]
    await shell.forget(other.id)
    await _gone("sleep 64")
    with pytest.raises(ProcessNotFound):
        await shell.poll(other.id, wait_seconds=0, stdout_from=0, stderr_from=0)


async def test_a_long_output_comes_in_pages_and_loses_its_beginning(shell: Shell) -> None:
    job = await shell.start(request("seq 1000000"))
    whole = "".join(f"{n}\n" for n in range(1, 1_000_001))
    await eventually(lambda: shell.jobs()[0].state == "exited")
    text, offset, lost, pages = "", 0, 0, 0
    while True:
        page = await shell.poll(job.id, wait_seconds=0, stdout_from=offset, stderr_from=0)
        if not page.stdout:
            break
        text, offset, lost, pages = (
            text + page.stdout,
            page.stdout_next,
            lost + page.lost_bytes,
            pages + 1,
        )
    assert offset == len(whole)
    assert lost == len(whole) - shell_module.RING_BYTES
    assert text == whole[lost:]
    assert pages == 4


async def test_the_stream_tells_all_and_then_the_exit_code(shell: Shell) -> None:
    job = await shell.start(
        request("for i in 1 2 3; do echo $i; sleep 0.05; done; echo e >&2; exit 5")
    )
    frames = [frame async for frame in shell.stream(job.id, stdout_from=0, stderr_from=0)]
    out = "".join(str(f["data"]) for f in frames if f.get("stream") == "stdout")
    assert out == "1\n2\n3\n"
    assert {"stream": "stderr", "data": "e\n", "next": 2} in frames
    assert frames[-1] == {"exit_code": 5}


async def test_jobs_are_limited(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell_module, "MAX_JOBS", 2)
    first = await shell.start(request("true"))
    await finished(shell, first)
    await shell.start(request("sleep 65"))
    await shell.start(request("sleep 65"))
    assert first.id not in [job.id for job in shell.jobs()]
    with pytest.raises(NoCapacity):
        await shell.start(request("sleep 65"))


async def test_all_output_together_is_limited(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shell_module, "ALL_RINGS_BYTES", 1500)
    first = await shell.start(request("head -c 1000 /dev/zero"))
    await finished(shell, first)
    second = await shell.start(request("head -c 1000 /dev/zero"))
    assert (await finished(shell, second)).lost_bytes == 0
    assert (await finished(shell, first)).lost_bytes == 500


async def test_everything_ends_with_the_shell(shell: Shell) -> None:
    await shell.start(request("sleep 66"))
    await _running("sleep 66")
    await shell.aclose()
    await _gone("sleep 66")


async def _chunks(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def _until_out(shell: Shell, job: Job, expected: str) -> None:
    deadline = time.monotonic() + 20
    while True:
        now = await shell.poll(job.id, wait_seconds=0, stdout_from=0, stderr_from=0)
        if now.stdout == expected:
            return
        assert time.monotonic() < deadline, now
        await asyncio.sleep(0.01)


def _commands() -> list[str]:
    children = psutil.Process().children(recursive=True)
    found = []
    for child in children:
        try:
            if child.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(child.cmdline()))
        except psutil.NoSuchProcess:
            continue
    return found


async def _running(command: str) -> None:
    await eventually(lambda: command in _commands())


async def _gone(command: str) -> None:
    await eventually(lambda: command not in _commands())
