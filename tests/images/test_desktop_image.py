"""The image of Debian, built and run: what it is as a container, and that its desktop works.

Of `make test-kubernetes`, whose cluster runs the same image: its first build takes minutes.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import AsyncIterator, Iterator
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from tests.images.containers import Container, running
from tests.images.desktop import ROOT, desktop_archive
from tests.leaks import Leftovers
from tests.waiting import until
from workspace.actions import Click, Screenshot, Type
from workspace.desktop import Desktop
from workspace.desktopd.config import Config

pytestmark = [
    pytest.mark.kubernetes,
    pytest.mark.timeout(1600),  # of which its first build may take most
]
TOKEN = "a-token-of-the-tests"
PAGE = "data:text/html,<title>A page</title><body style='background:%23137'><input autofocus>"


@pytest.fixture(scope="module", autouse=True)
def nothing_stays() -> Iterator[None]:
    desktop_archive()
    before = Leftovers.now()
    yield
    before.assert_none_since(seconds=10)


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    config = Config(token=TOKEN, session="openbox")
    with running(tmp_path_factory.mktemp("light"), config) as container:
        yield container


@pytest.fixture
async def desktop(container: Container) -> AsyncIterator[Desktop]:
    client = container.client()
    yield client
    await client.aclose()


def _status(pid: int) -> str:
    return Path(f"/proc/{pid}/status").read_text()


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


async def test_it_runs_as_its_user_without_rights_over_a_root_that_nobody_writes(
    container: Container, desktop: Desktop
) -> None:
    processes = container.processes()
    assert len(processes) > 4
    for pid in processes:
        status = _status(pid)
        assert re.search(r"^Uid:\t1000\t1000\t1000\t1000$", status, re.MULTILINE), processes[pid]
        assert "CapBnd:\t0000000000000000" in status
        assert "NoNewPrivs:\t1" in status
    assert processes[container.pid].startswith("/usr/bin/tini --")
    told = await desktop.run("touch /usr/x /etc/x /opt/carrel/x; sudo -n true")
    assert told.exit_code != 0
    assert told.stderr.count("Read-only file system") == 3
    assert "not found" in told.stderr  # sudo
    assert not (container.log.parent / "given" / "config.json").exists()


async def test_it_fills_an_empty_home_and_is_a_machine_of_its_own(desktop: Desktop) -> None:
    told = await desktop.run("ls -A ~; cat /etc/machine-id; stat -c '%a %U' $XDG_RUNTIME_DIR; pwd")
    assert {".bashrc", ".profile"} <= set(told.stdout.split())
    assert re.search(r"^[0-9a-f]{32}$", told.stdout, re.MULTILINE)
    assert told.stdout.endswith("700 user\n/home/user\n")


async def test_what_was_built_with_the_machines_settings_has_none_of_them(
    container: Container,
) -> None:
    for path in ("etc/pip.conf", "root/.npmrc", "run/secrets", "install"):
        found = container.root / path
        assert not found.exists() or not any(found.iterdir()) if found.is_dir() else True
        assert not found.is_file() or not found.read_bytes()
    bundle = (container.root / "etc/ssl/certs/ca-certificates.crt").read_text()
    package = container.root / "usr/share/ca-certificates"
    trusted = "".join(path.read_text() for path in package.rglob("*.crt"))
    for certificate in bundle.split("-----BEGIN CERTIFICATE-----")[1:]:
        assert certificate.strip() in trusted, "a certificate that is not the distribution's"


async def test_its_browser_has_its_own_sandbox_and_does_what_it_is_told(
    container: Container, desktop: Desktop
) -> None:
    page = await desktop.navigate(PAGE)
    assert page.title == "A page"
    observed = await desktop.act(
        Click(x=60, y=300), Click(x=60, y=100), Type(text="Grüße, 世界 🎉")
    )
    assert observed.effect == "changed"
    assert await desktop.evaluate("document.querySelector('input').value") == "Grüße, 世界 🎉"
    [renderer, *_] = [
        pid for pid, line in container.processes().items() if "--type=renderer" in line
    ]
    assert "--no-sandbox" not in _command(renderer)
    for kind in ("user", "pid", "net"):
        theirs, ours = (os.readlink(f"/proc/{pid}/ns/{kind}") for pid in (renderer, container.pid))
        assert theirs != ours, f"the renderer shares the {kind} namespace"


async def test_a_picture_shows_it(container: Container, desktop: Desktop) -> None:
    await desktop.navigate(PAGE)
    observed = await desktop.act(Screenshot(format="png"))
    assert observed.screenshot is not None
    kept = ROOT / "test-results"
    kept.mkdir(exist_ok=True)
    (kept / "image-browser.png").write_bytes(observed.screenshot.data)
    picture = Image.open(BytesIO(observed.screenshot.data)).convert("RGB")
    assert picture.size == (1280, 800)
    assert picture.getpixel((640, 600)) == (0x11, 0x33, 0x77)


async def test_the_whole_desktop_in_another_language(tmp_path: Path) -> None:
    config = Config(
        token=TOKEN, locale="de_DE.UTF-8", timezone="Asia/Tokyo", keyboard="de", theme="dark"
    )
    with running(tmp_path, config) as container:
        desktop = container.client()
        try:
            told = await desktop.run("locale | head -n 1; date +%Z; LC_ALL= ls /nowhere")
            assert told.stdout.splitlines() == ["LANG=de_DE.UTF-8", "JST"]
            assert "Datei" in told.stderr  # coreutils' own translation
            await desktop.launch("xfce4-terminal")
            await desktop.act(Type(text="echo äöü"))
            observed = await desktop.act(Screenshot(format="png"))
            assert observed.screenshot is not None
            (ROOT / "test-results" / "image-xfce.png").write_bytes(observed.screenshot.data)
            fonts = await desktop.run("fc-list :lang=ja family; fc-list :lang=und-zsye family")
            assert "Noto Sans CJK JP" in fonts.stdout
            assert "Noto Color Emoji" in fonts.stdout
            tree = await desktop.elements()
            assert any(node.role == "terminal" for node in tree.elements)
            before = set(container.processes())
            assert container.end() == 0
            until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in before), 5)
        finally:
            await desktop.aclose()


async def test_one_that_is_killed_leaves_nothing(tmp_path: Path) -> None:
    with running(tmp_path, Config(token=TOKEN, session="openbox")) as container:
        before = set(container.processes())
        os.kill(container.pid, signal.SIGKILL)
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in before), 5)
