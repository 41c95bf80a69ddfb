"""What the peers need inside the desktop, installed by pip on this side and kept in a cache.

A desktop has no network, so a package comes into it as an archive. One that cannot be had is told
by :class:`Missing`, and the peer is left out.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import NamedTuple

CACHE = Path.home() / ".cache" / "carrel" / "benchmarks"
SYSTEM_PYTHON = "/usr/bin/python3"
INSTALL_SECONDS = 600
PYAUTOGUI = ("pyautogui>=0.9.54", "python-xlib>=0.33", "pillow>=12")
# The newest FastAPI breaks it.
CUA = ("cua-computer-server", "fastapi<0.116")
# Browsers' drivers, tests and headers: nothing that is measured needs them.
_LEFT_OUT = ("site/playwright/driver", "python/test", "python/site-packages", "python/idlelib")


class Missing(Exception):
    """A peer cannot be measured here; why."""


class Bundle(NamedTuple):
    """An archive with ``site`` (the packages) and, if it is not the system's, ``python``."""

    archive: Path
    python: str  # what runs them inside, by its path there or by one below the archive's folder
    version: str  # of the first package


def pyautogui() -> Bundle:
    """pyautogui for the system's Python.

    Raises:
        Missing: it cannot be installed.
    """
    return _bundle("pyautogui", PYAUTOGUI, SYSTEM_PYTHON)


def cua() -> Bundle:
    """Cua's computer-server, by the newest Python that it can use: its releases of now need 3.12.

    Raises:
        Missing: it cannot be installed.
    """
    newer = (found for name in ("python3.13", "python3.12") for found in _found(name))
    python = next((found for found in newer if _base(found) is not None), SYSTEM_PYTHON)
    return _bundle("cua-computer-server", CUA, python)


def _found(name: str) -> Iterator[str]:
    """Pythons of that name: on the path, and those of pyenv, which has them behind a script."""
    if (found := shutil.which(name)) is not None:
        yield found
    yield from map(str, (Path.home() / ".pyenv" / "versions").glob(f"*/bin/{name}"))


def _base(python: str) -> Path | None:
    """Where a Python is installed; None if it does not run."""
    code = "import sys; print(sys.base_prefix)"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=30)
    return Path(done.stdout.strip()) if done.returncode == 0 else None


def _bundle(package: str, requirements: Sequence[str], python: str) -> Bundle:
    base = _base(python)
    if base is None:
        raise Missing(f"{python} does not run")
    real = Path(python).resolve() if base == Path("/usr") else base / "bin" / Path(python).name
    made_from = "\n".join([str(real), *requirements]).encode()
    archive = CACHE / f"{package}-{hashlib.sha256(made_from).hexdigest()[:12]}.tar"
    inside = str(real) if base == Path("/usr") else f"python/bin/{real.name}"
    if not archive.is_file():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            site = Path(folder) / "site"
            _install(requirements, python, site)
            (version,) = [
                each.version
                for each in distributions(path=[str(site)])
                if each.name.lower() == package
            ]
            (site / "VERSION").write_text(version)
            partial = Path(folder) / "archive"
            with tarfile.open(partial, "w") as into:
                for path, name in [(site, "site"), *_interpreter(base, real)]:
                    into.add(path, name, filter=_wanted)
            partial.rename(archive)
    with tarfile.open(archive) as made:
        told = made.extractfile("site/VERSION")
        assert told is not None, "VERSION is a file"
        return Bundle(archive, inside, told.read().decode())


def _interpreter(base: Path, python: Path) -> Iterator[tuple[Path, str]]:
    """The parts of a Python that a desktop cannot see, and where they go."""
    if base == Path("/usr"):
        return
    yield python.resolve(), f"python/bin/{python.name}"
    yield base / "lib" / python.name, f"python/lib/{python.name}"
    for library in (base / "lib").glob("libpython*.so*"):
        yield library, f"python/lib/{library.name}"


def _wanted(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    parts = entry.name.split("/")
    short = "/".join(["python", *parts[3:]]) if parts[0] == "python" else entry.name
    if short.startswith(_LEFT_OUT) or "/config-" in entry.name:
        return None
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


def _install(requirements: Sequence[str], python: str, target: Path) -> None:
    # Ours may be too old to run on a newer Python; the system's may have none of its own.
    pip = [sys.executable, "-m", "pip", "--python", python]
    if python != SYSTEM_PYTHON:
        pip = [python, "-m", "pip"]
    pip += ["--retries", "1", "install", "--quiet"]
    try:
        done = subprocess.run(
            [*pip, "--disable-pip-version-check", "--root-user-action=ignore",
             "--target", str(target), *requirements],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=INSTALL_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise Missing(f"pip took more than {INSTALL_SECONDS} s") from error
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or ["pip failed"]
        errors = [line for line in said if line.startswith("ERROR: ") and "Exception:" not in line]
        raise Missing((errors or said)[-1].removeprefix("ERROR: "))
