"""The desktop's image as tests use it: built from Debian once, kept outside of the checkout.

``$CARREL_CACHE/images`` (by default below ``/var/cache/carrel`` for root, else ``~/.cache/carrel``)
has the builder's layers and the archive that was made last, named by a digest of what it is made
of: found there, it costs nothing; a change of ``workspace/`` makes but the last layer anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
REFERENCE = "localhost/carrel-desktop:debian-browser"
_OPTIONS = (
    "--base",
    "debian",
    "--target",
    "browser",
    "--arg",
    "FIREFOX=no",
    "--builder",
    "buildah",
)
_MADE_OF = (
    "images/kata-ubuntu-desktop/Containerfile",
    "images/kata-ubuntu-desktop/*.py",
    "images/kata-ubuntu-desktop/start",
    "images/kata-ubuntu-desktop/install/*",
    "images/kata-ubuntu-desktop/jetbrains/prepare",
    "scripts/build-image",
    "scripts/lib",
    "pyproject.toml",
    "workspace/**/*.py",
)


def desktop_archive() -> Path:
    """The docker-archive of :data:`REFERENCE`, with a browser; built if it is not there.

    Its first build takes minutes and the network (root, Debian's packages and PyPI).
    """
    folder = _folder()
    archive = folder / f"desktop-{_digest()}.tar"
    with _locked(folder):
        if not archive.is_file():
            build(archive)
            for old in folder.glob("desktop-*.tar*"):
                if old != archive:
                    old.unlink()
    return archive


def build(archive: Path) -> None:
    """Build it, and write it there."""
    command: list[str | Path] = [ROOT / "scripts" / "build-image", *_OPTIONS]
    command += ["--storage", storage(), "--tag", REFERENCE, "--archive", archive]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1500, check=False)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def storage() -> Path:
    """Where buildah keeps it."""
    return _folder() / "storage"


@contextmanager
def mounted(image: str = REFERENCE) -> Iterator[Path]:
    """The root of a container of an image in :func:`storage`, gone again with what is written."""
    if image == REFERENCE:
        desktop_archive()
    buildah = ["buildah", "--root", str(storage()), "--runroot", f"{storage()}.run"]

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [*buildah, *arguments], capture_output=True, text=True, timeout=60, check=True
        )
        return done.stdout.strip()

    container = run("from", "--pull-never", image)
    try:
        yield Path(run("mount", container))
    finally:
        run("rm", container)


def _folder() -> Path:
    default = "/var/cache/carrel" if os.geteuid() == 0 else "~/.cache/carrel"
    folder = Path(os.environ.get("CARREL_CACHE") or default).expanduser() / "images"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _digest() -> str:
    digest = hashlib.sha256(" ".join(_OPTIONS).encode())
    for pattern in _MADE_OF:
        for path in sorted(ROOT.glob(pattern)):
            content = path.read_bytes()
            digest.update(f"{path.relative_to(ROOT)}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:16]


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
