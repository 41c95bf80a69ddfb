"""The way out of a real desktop: the usual programs use it unasked, and nothing goes past it.

The servers are this machine's, on an address that stands for the internet; the names of them are
told to the proxy alone.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import shlex
import shutil
import ssl
import subprocess
import tempfile
import threading
import zipfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from tests.workspace.backends.conftest import Live, Place, left_of
from workspace.backends.bubblewrap import BubblewrapBackend
from workspace.egress import Secret
from workspace.proxy.certificates import Authority

pytestmark = pytest.mark.anyio
OUTSIDE = "127.0.0.2"
NAMES = ("git.test", "pypi.test", "api.test", "other.test")
VALUE = "Bearer s3cret-of-the-api"


class _Handler(SimpleHTTPRequestHandler):
    seen: ClassVar[list[tuple[str, str, str]]] = []  # host, path, authorization

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        told = self.headers.get("Authorization", "")
        self.seen.append((self.headers.get("Host", ""), self.path, told))
        super().do_GET()


class Servers:
    """A site with a git repository and a package index, on port 80 and by TLS on 443."""

    def __init__(self, folder: Path, theirs: Authority) -> None:
        self.folder, self.theirs = folder, theirs
        self.seen = _Handler.seen


@contextmanager
def serving(folder: Path, port: int, context: ssl.SSLContext | None = None) -> Iterator[None]:
    def handler(*args: object) -> _Handler:
        return _Handler(*args, directory=str(folder))  # type: ignore[arg-type]

    server = ThreadingHTTPServer((OUTSIDE, port), handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _site(folder: Path) -> None:
    (folder / "hello.txt").write_text("hello from outside\n")
    work = folder / "work"
    git = [
        "git",
        "-c",
        "user.name=t",
        "-c",
        "user.email=t@example.org",
        "-c",
        "init.defaultBranch=m",
    ]
    for command in (
        [*git, "init", "-q", str(work)],
        [*git, "-C", str(work), "commit", "-q", "--allow-empty", "-m", "the first"],
        [*git, "clone", "-q", "--bare", str(work), str(folder / "repository.git")],
        [*git, "-C", str(folder / "repository.git"), "update-server-info"],
    ):
        subprocess.run(command, check=True, env={"PATH": "/usr/bin:/bin", "HOME": str(folder)})
    wheel = io.BytesIO()
    with zipfile.ZipFile(wheel, "w") as archive:
        files = {
            "carrot/__init__.py": "",
            "carrot-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: carrot\nVersion: 1.0\n",
            "carrot-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: t\n"
            "Root-Is-Purelib: true\nTag: py3-none-any\n",
            "carrot-1.0.dist-info/RECORD": "",
        }
        for name, text in files.items():
            archive.writestr(name, text)
    name = "carrot-1.0-py3-none-any.whl"
    index = folder / "simple" / "carrot"
    index.mkdir(parents=True)
    (index / name).write_bytes(wheel.getvalue())
    digest = hashlib.sha256(wheel.getvalue()).hexdigest()
    (index / "index.html").write_text(f'<a href="{name}#sha256={digest}">{name}</a>')


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    theirs = Authority.make()
    folder = Path(tempfile.mkdtemp(prefix="c-site-"))
    _site(folder)
    context = asyncio.run(theirs.context("api.test"))
    try:
        with serving(folder, 80), serving(folder, 443, context):
            yield Servers(folder, theirs)
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
async def desktop(runtime_dir: Path, servers: Servers) -> AsyncIterator[tuple[Live, Place]]:
    """A desktop that may reach two of the names."""

    async def resolve(host: str) -> Sequence[str]:
        if host in NAMES:
            return [OUTSIDE]
        raise OSError(None, "Name or service not known")

    def upstream() -> ssl.SSLContext:
        return ssl.create_default_context(cadata=servers.theirs.certificate.decode())

    run_dir = Path(tempfile.mkdtemp(prefix="cb-"))
    disk_dir = Path(tempfile.mkdtemp(prefix="carrel-disk-", dir="/var/tmp"))
    os.chmod(disk_dir, 0o711)
    place = Place(run_dir, disk_dir, runtime_dir)
    place.backend = BubblewrapBackend(
        run_dir, disk_dir, runtime_dir,
        egress_private=[f"{OUTSIDE}/32"], resolve=resolve, upstream=upstream,
    )  # fmt: skip
    try:
        async with place.live(
            memory_mib=2048, pids=512, egress=["git.test:80", "pypi.test:80", "api.test"]
        ) as live:
            yield live, place
            state = live.state
        assert left_of(place, live.id, state) == []
        assert "egress" not in {thread.name for thread in threading.enumerate()}
    finally:
        shutil.rmtree(run_dir)
        shutil.rmtree(disk_dir)


async def test_git_pip_and_curl_work_unasked(desktop: tuple[Live, Place]) -> None:
    live, place = desktop
    assert await live.says("curl -sS http://git.test/hello.txt") == "hello from outside"
    await live.says("git clone -q http://git.test/repository.git /tmp/cloned")
    assert await live.says("git -C /tmp/cloned log --format=%s") == "the first"
    done = await live.run(
        "python3 $(ls /usr/share/python-wheels/pip-*.whl)/pip download -q --no-deps "
        "--disable-pip-version-check -d /tmp/got "
        "--index-url http://pypi.test/simple --trusted-host pypi.test carrot",
        timeout_seconds=60,
    )
    assert done.exit_code == 0, done
    assert "carrot-1.0" in await live.says("ls /tmp/got")
    python = "import urllib.request as u; print(u.urlopen('http://git.test/hello.txt').read())"
    assert "hello" in await live.says(f"python3 -c {shlex.quote(python)}")
    tally = place.backend.tally(live.id)
    assert tally is not None
    lines = tally.take()
    assert {(line.host, line.port, line.verdict) for line in lines} >= {
        ("git.test", 80, "allowed"),
        ("pypi.test", 80, "allowed"),
    }


async def test_what_is_refused_says_why(desktop: tuple[Live, Place]) -> None:
    live, _ = desktop
    said = await live.says("curl -s http://other.test/hello.txt")
    assert said == "Carrel's egress: other.test:80 is not among this desktop's egress rules."
    said = await live.says("curl -s http://169.254.169.254/latest/")
    assert "169.254.169.254:80 is not among this desktop's egress rules" in said
    assert "403" in await live.refuses("git clone -q http://other.test/repository.git /tmp/no")
    assert "403" in await live.refuses("curl -sS https://other.test/")
    python = "import urllib.request as u; u.urlopen('https://other.test/')"
    why = await live.refuses(f"python3 -c {shlex.quote(python)}")
    assert "403 other.test:443 is not among this desktop's egress rules" in why


@pytest.mark.parametrize(
    "command",
    [
        "curl -sS --noproxy '*' http://127.0.0.2/hello.txt",
        "curl -sS --noproxy '*' --connect-timeout 2 http://1.1.1.1/",
        "curl -sS --noproxy '*' http://git.test/hello.txt",
        "curl -sS --noproxy '*' --connect-timeout 2 http://169.254.169.254/",
        "getent hosts git.test",
        'python3 -c \'import socket; s = socket.socket(2, 2); s.sendto(b"x", ("8.8.8.8", 53))\'',
        "ip route add default via 127.0.0.1",
        "curl -sS --socks5 127.0.0.1:3128 http://127.0.0.1:22/",
        "curl -sS --socks5 127.0.0.1:3128 http://127.0.0.2/",
        "curl -sS --socks4 127.0.0.1:3128 http://127.0.0.2/",
        "curl -sS -x http://127.0.0.1:3128 -p http://127.0.0.1:3128/",
        "nsenter --net=/proc/1/ns/net true",
        "python3 -c 'import socket; socket.socket().bind((\"127.0.0.1\", 3128))'",
    ],
)
async def test_there_is_no_other_way(desktop: tuple[Live, Place], command: str) -> None:
    live, _ = desktop
    done = await live.run(command)
    assert done.exit_code != 0 or "Carrel's egress" in done.stdout, done
    assert "hello from outside" not in done.stdout


async def test_socks5_with_names(desktop: tuple[Live, Place]) -> None:
    live, _ = desktop
    said = await live.says("curl -sS -x socks5h://127.0.0.1:3128 http://git.test/hello.txt")
    assert said == "hello from outside"
    await live.refuses("curl -sS -x socks5h://127.0.0.1:3128 http://other.test/hello.txt")


async def test_rules_change_while_it_runs(desktop: tuple[Live, Place]) -> None:
    live, place = desktop
    before = ["git.test:80", "pypi.test:80", "api.test"]
    await place.backend.set_egress(live.id, egress=["other.test"])
    assert "hello" in await live.says("curl -s http://other.test/hello.txt")
    assert "not among" in await live.says("curl -s http://git.test/hello.txt")
    await place.backend.set_egress(live.id, egress="none")
    assert "no way out" in await live.says("curl -s http://other.test/hello.txt")
    await place.backend.set_egress(live.id, egress=before)
    assert "hello" in await live.says("curl -s http://git.test/hello.txt")


async def test_a_secret_is_put_in_and_never_inside(
    desktop: tuple[Live, Place], servers: Servers
) -> None:
    live, place = desktop
    secrets = [
        Secret.model_validate({"name": "api", "host": host, "value": VALUE})
        for host in ("api.test:443", "api.test:80")
    ]
    await place.backend.set_egress(live.id, secrets=secrets)
    servers.seen.clear()
    for command in (
        "curl -sS https://api.test/hello.txt",
        "curl -sS http://api.test/hello.txt",
        "python3 -c 'import urllib.request as u;"
        'print(u.urlopen("https://api.test/hello.txt").read())\'',
        "git ls-remote https://api.test/repository.git",
    ):
        await live.says(command)
    assert {told for _, _, told in servers.seen} == {VALUE}
    assert len(servers.seen) >= 4
    await live.says("curl -sS http://git.test/hello.txt")
    assert servers.seen[-1] == ("git.test", "/hello.txt", "")
    searched = await live.run(
        "(env; cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline;"
        " grep -rsa 's3cre[t]-of' /etc /run /tmp /home /opt/carrel) 2>/dev/null | tr '\\0' '\\n'"
        " | grep -c 's3cre[t]-of'"
    )
    assert searched.stdout.strip() == "0", searched
    tally = place.backend.tally(live.id)
    assert tally is not None
    lines = tally.take()
    assert any(line.secret == "api" and line.port == 443 for line in lines)
    assert "s3cret" not in repr(lines)
    await place.backend.set_egress(live.id, secrets=[])


async def test_chromium_goes_through_it_and_trusts_it(
    desktop: tuple[Live, Place], servers: Servers
) -> None:
    live, place = desktop
    secret = Secret.model_validate({"name": "api", "host": "api.test", "value": VALUE})
    await place.backend.set_egress(live.id, secrets=[secret])
    browser = "$(command -v chromium || command -v google-chrome)"
    options = "--headless --disable-gpu --user-data-dir=/tmp/profile --timeout=20000 --dump-dom"
    for url, word in (
        ("http://git.test/hello.txt", "hello from outside"),
        ("https://api.test/hello.txt", "hello from outside"),
        ("http://other.test/", "is not among this desktop"),
    ):
        done = await live.run(f"{browser} {options} {url} 2>/tmp/errors", timeout_seconds=60)
        assert word in done.stdout, done
    assert (await live.run("true")).exit_code == 0
    assert ("api.test", "/hello.txt", VALUE) in servers.seen
    await place.backend.set_egress(live.id, secrets=[])
