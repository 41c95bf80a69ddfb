"""The desktop's image without building it: pins, arguments, refusals, what is composed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from workspace.backends import manifests, runtime, sandbox

ROOT = Path(__file__).parents[2]
IMAGE = ROOT / "images" / "kata-ubuntu-desktop"
INSTALL = IMAGE / "install"
TEXT = (IMAGE / "Containerfile").read_text()
TARGETS = ("base", "browser", "code", "jetbrains", "full")
SCRIPTS = sorted(path for path in INSTALL.iterdir())


def stages() -> dict[str, list[str]]:
    """The instructions of each stage, lines that go on joined."""
    found: dict[str, list[str]] = {}
    lines = [line for line in TEXT.splitlines() if line and not line.startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if line.startswith("FROM "):
            found[line.split(" AS ")[1]] = []
        if found:
            list(found.values())[-1].append(re.sub(r"\s+", " ", line))
    return found


def test_the_base_is_pinned_by_its_digest() -> None:
    assert re.search(r"^ARG BASE=docker\.io/library/ubuntu:22\.04@sha256:[0-9a-f]{64}$", TEXT, re.M)
    fetched = {first.split()[1] for first, *_ in stages().values()}
    assert fetched - set(stages()) == {"${BASE}", "scratch"}  # nothing else is from elsewhere


@pytest.mark.parametrize("target", TARGETS)
def test_what_changes_with_the_source_comes_last_in_every_target(target: str) -> None:
    first, *rest = stages()[target]
    assert first.split()[1].endswith("-programs")
    ides = ["COPY --from=jetbrains-ides /opt/jetbrains /opt/jetbrains"]
    assert rest == [
        *(ides if target in ("jetbrains", "full") else []),
        "COPY --from=packages /opt/carrel/deps /opt/carrel/deps",
        "COPY --from=source /made /",
        "USER 1000:1000",
    ]
    for name, lines in stages().items():
        has_source = any(line.startswith("COPY workspace ") for line in lines)
        assert has_source == (name == "source")


def test_programs_are_started_with_the_environment_that_sandboxes_have() -> None:
    [line] = [line for line in stages()["base-programs"] if line.startswith("ENV ")]
    assert dict(word.split("=", 1) for word in line.split()[1:]) == sandbox.ENVIRONMENT


def test_every_argument_is_told_of() -> None:
    arguments = set(re.findall(r"^ARG (\w+)=", TEXT, re.M))
    documented = (ROOT / "docs" / "image.md").read_text()
    usage = subprocess.run(
        [ROOT / "scripts" / "build-image", "--help"], capture_output=True, text=True, check=False
    ).stderr
    for argument in arguments:
        assert f"`{argument}`" in documented, argument
        assert argument in usage or argument in ("BASE", "WINDSURF_KEY", "JETBRAINS_AGREEMENT")


def test_what_comes_from_vendors_is_known_by_key_or_checksum() -> None:
    for path in SCRIPTS:
        text = path.read_text().replace("\\\n", " ")
        for call in re.findall(r"^ +repository (.*)$", text, re.M):
            name, key, fingerprint, *_ = call.split()
            assert name.startswith("carrel-"), "or finish() leaves it"
            assert key.startswith("https://")
            assert re.fullmatch(r'[0-9A-F]{40}|"\$WINDSURF_KEY"', fingerprint), call
        assert "trusted=yes" not in text
        assert not re.search(
            r"--(allow|force)-\w*(unauth|insecure)|curl|wget", text.replace(" curl ", " ", 1)
        )
    pins = [line.split() for line in (IMAGE / "jetbrains" / "pins").read_text().splitlines()]
    for name, machine, version, url, checksum in (pin for pin in pins if pin[0] != "#"):
        assert machine in ("x86_64", "aarch64"), name
        assert url.startswith("https://download.jetbrains.com/")
        assert version in url
        assert re.fullmatch(r"[0-9a-f]{64}", checksum)


def test_it_has_what_set_up_gives_a_machine_for_desktops() -> None:
    packages = re.search(r"packages=\((.*?)\)", (ROOT / "scripts/setup").read_text(), re.S)
    assert packages is not None
    of_the_machine = {"python3-venv", "bubblewrap", "libseccomp2"}
    scripts = (INSTALL / "base").read_text() + (INSTALL / "browser").read_text()
    in_image = set(re.findall(r"[a-z0-9.+-]+", scripts))
    assert set(packages[1].split()) - of_the_machine <= in_image


@pytest.mark.parametrize("path", [*SCRIPTS, IMAGE / "start"], ids=lambda path: path.name)
def test_scripts_parse(path: Path) -> None:
    subprocess.run(["/bin/sh", "-n", path], check=True)


@pytest.fixture
def without_packages(tmp_path: Path) -> dict[str, str]:
    """An environment in which nothing can be installed."""
    for name in ("apt-get", "useradd", "localedef"):
        stub = tmp_path / "stubs" / name
        stub.parent.mkdir(exist_ok=True)
        stub.write_text("#!/bin/sh\necho nothing is installed here >&2\nexit 99\n")
        stub.chmod(0o755)
    path = f"{tmp_path / 'stubs'}:{os.environ['PATH']}"
    told = {"BROWSER": "", "FIREFOX": "no", "CODE": "", "WINDSURF": "no", "WINDSURF_KEY": ""}
    return {"PATH": path, "JETBRAINS": "", "JETBRAINS_AGREEMENT": "", "SUDO": "no", **told}


@pytest.mark.parametrize(
    ("script", "arguments", "says"),
    [
        ("base", {"SUDO": "perhaps"}, "SUDO is yes or no, not 'perhaps'"),
        ("browser", {"BROWSER": "lynx"}, "BROWSER is chrome, chromium or none, not 'lynx'"),
        ("browser", {"FIREFOX": ""}, "FIREFOX is yes or no"),
        ("code", {"CODE": "vim"}, "CODE is vscode, code-server or none, not 'vim'"),
        ("code", {"WINDSURF": "yes"}, "needs WINDSURF_KEY"),
        ("jetbrains", {"JETBRAINS": "eclipse"}, "no pin of 'eclipse'"),
        ("jetbrains", {"JETBRAINS": "https://example.com/i.tar.gz"}, "has no checksum"),
    ],
)
def test_an_argument_that_is_wrong_is_refused_before_anything_is_fetched(
    script: str,
    arguments: dict[str, str],
    says: str,
    without_packages: dict[str, str],
    tmp_path: Path,
) -> None:
    code, output = run(script, without_packages | arguments, tmp_path)
    assert code == 1, output
    assert says in output
    assert "nothing is installed here" not in output


def run(script: str, environment: dict[str, str], folder: Path) -> tuple[int, str]:
    place = folder / "install"
    shutil.copytree(INSTALL, place, dirs_exist_ok=True)
    shutil.copy(IMAGE / "jetbrains" / "pins", place)
    done = subprocess.run(
        ["/bin/sh", place / script, folder / "jetbrains"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def ide(folder: Path, info: str) -> str:
    """An archive that looks like an IDE; its address with the checksum."""
    archive = folder / "ide.tar.gz"
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "bin" / info).write_text("{}")
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder / "bin" / info, f"pycharm-1/{info}")
    return f"{archive.as_uri()}#sha256={hashlib.sha256(archive.read_bytes()).hexdigest()}"


def test_an_ide_is_unpacked_if_it_is_the_one_that_was_meant(
    without_packages: dict[str, str], tmp_path: Path
) -> None:
    url = ide(tmp_path, "product-info.json")
    asked = without_packages | {"JETBRAINS": url, "JETBRAINS_AGREEMENT": "2.0"}
    code, output = run("jetbrains", asked, tmp_path)
    assert code == 0, output
    assert (tmp_path / "jetbrains" / "pycharm-1" / "product-info.json").is_file()
    assert (tmp_path / "jetbrains" / "agreement-accepted").read_text() == "2.0\n"
    code, output = run("jetbrains", asked | {"JETBRAINS": url[:-1] + "x"}, tmp_path)
    assert (code, "is not what its checksum says" in output) == (1, True), output
    other = ide(tmp_path, "readme.txt")
    shutil.rmtree(tmp_path / "jetbrains")
    code, output = run("jetbrains", asked | {"JETBRAINS": other}, tmp_path)
    assert (code, "no product-info.json" in output) == (1, True), output


def test_what_desktopd_requires_is_read_from_the_project() -> None:
    told = subprocess.run(
        [sys.executable, IMAGE / "requirements.py", "desktopd"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    asked = {str(Requirement(line)) for line in told.splitlines()}
    assert asked == {str(Requirement(line)) for line in runtime.requirements()}


def test_what_is_composed_is_what_sandboxes_have(tmp_path: Path) -> None:
    (tmp_path / "workspace").symlink_to(ROOT / "workspace")
    for path in (IMAGE / "start", IMAGE / "jetbrains" / "prepare"):
        shutil.copy(path, tmp_path)
    made = tmp_path / "made"
    subprocess.run([sys.executable, IMAGE / "compose.py", made], cwd=tmp_path, check=True)
    source = runtime.ensure_source(tmp_path / "runtime")
    for path in source.rglob("*"):
        if path.is_file() and path.suffix != ".pyc":
            there = made / "opt/carrel/src" / path.relative_to(source)
            assert there.read_bytes() == path.read_bytes()
    policy = json.loads((made / "etc/opt/chrome/policies/managed/carrel.json").read_text())
    assert policy == sandbox.POLICY
    assert "CHROMIUM_FLAGS" in (made / "etc/chromium.d/carrel").read_text()
    assert os.access(made / "opt/carrel/start", os.X_OK)
    for folder in manifests.POLICY_FOLDERS:  # each is mounted over, in a root that is read-only
        assert (made / folder[1:]).is_dir()
    assert all(path.stat().st_mode & 0o777 in (0o755, 0o644) for path in made.rglob("*"))


def test_it_says_what_it_is_to_be_told() -> None:
    done = subprocess.run([IMAGE / "start"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--config" in done.stderr
