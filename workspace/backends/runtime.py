"""The runtime folder: what a desktop runs desktopd from, readable by any uid, mounted read-only.

It holds, each in a folder named by a hash of what it was made from, so that nothing is ever stale
and a running desktop keeps what it started with:

- ``deps-*``: desktopd's third-party packages, installed by set-up (:func:`build`) for the system's
  own Python; the virtual environment is never mounted;
- ``src-*``: the modules of ``workspace`` that desktopd needs, the launcher and the seccomp filter,
  copied whenever a desktop starts from a source that has changed (:func:`ensure_source`).

Folders appear complete or not at all: they are made under another name and renamed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.metadata
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from workspace.backends import installing
from workspace.errors import BackendUnavailable

PYTHON = "/usr/bin/python3"
FILTER = "seccomp.bpf"
BUILD_HINT = "Run scripts/setup (or scripts/build-runtime) on the node."
_KEPT = 3
_PACKAGE = Path(__file__).resolve().parents[1]
_MODULES = (
    "__init__.py",
    "actions.py",
    "browsing.py",
    "control.py",
    "egress.py",
    "elements.py",
    "errors.py",
    "frames.py",
    "ide.py",
    "logs.py",
    "models.py",
    "ports.py",
    "protocols.py",
    "summary.py",
    "waits.py",
)
_RECIPE = "3"  # another number, other folders
_LAUNCHER = """\
import gc
import sys

gc.disable()  # nothing of what is loaded is garbage: looking for it takes a seventh of the start
sys.path[:0] = ["/opt/carrel/src", "/opt/carrel/deps"]

from workspace.desktopd.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
"""


def default_dir() -> Path:
    """Where the runtime lies unless told otherwise. Root's is outside /root: other uids read it."""
    if os.geteuid() == 0:
        return Path("/var/lib/carrel/runtime")
    return Path.home() / ".local" / "share" / "carrel" / "runtime"


def make_folder(folder: Path, mode: int) -> None:
    """Make a folder and those above it that are missing, with ``mode`` whatever the umask.

    The desktops' uids must be able to pass: 0755, or 0711 where nobody is to look in.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
        path.chmod(mode)


def requirements() -> list[str]:
    """What desktopd needs, by the ``desktopd`` extra of the installed distribution."""
    found = []
    for line in importlib.metadata.requires("carrel") or []:
        requirement, _, marker = line.partition(";")
        if re.fullmatch(r"""\s*extra\s*==\s*['"]desktopd['"]\s*""", marker):
            found.append(requirement.strip())
    return sorted(found)


def dependencies(folder: Path) -> Path:
    """The folder of desktopd's packages.

    Raises:
        BackendUnavailable: set-up has not built it, or not for these requirements.
    """
    path = folder / _dependencies_name()
    if not path.is_dir():
        raise BackendUnavailable(
            f"The runtime that desktops run from is not built: {path} is not there.",
            hint=BUILD_HINT,
        )
    return path


def build(folder: Path) -> bool:
    """Install what is missing and drop what is old; whether anything was to be done.

    Raises:
        subprocess.CalledProcessError: pip failed; its output went to standard error.
    """
    make_folder(folder, 0o755)
    with _locked(folder):
        path = folder / _dependencies_name()
        is_missing = not path.is_dir()
        if is_missing:
            with _becoming(path) as new:
                _install(new)
        ensure_source(folder)
        for kind in ("deps", "src"):
            kept = sorted(folder.glob(f"{kind}-*"), key=lambda path: path.stat().st_mtime)
            for old in kept[:-_KEPT]:
                if old != path and not _is_mounted(old):
                    shutil.rmtree(old)
    return is_missing


def ensure_source(folder: Path) -> Path:
    """The folder with the source as it is now; made if it is not there.

    Raises:
        BackendUnavailable: libseccomp or the system's Python is missing.
    """
    files = {f"workspace/{path}": (_PACKAGE / path).read_bytes() for path in _sources()}
    files["desktopd.py"] = _LAUNCHER.encode()
    digest = hashlib.sha256((Path(__file__).with_name("seccomp.py")).read_bytes())
    for name, content in sorted(files.items()):
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    path = folder / f"src-{digest.hexdigest()[:16]}"
    if not path.is_dir():
        make_folder(folder, 0o755)
        with _becoming(path) as new:
            for name, content in files.items():
                (new / name).parent.mkdir(parents=True, exist_ok=True)
                (new / name).write_bytes(content)
            (new / FILTER).write_bytes(_filter())
            _compile(new)
    return path


def _sources() -> list[Path]:
    desktopd = [path.relative_to(_PACKAGE) for path in (_PACKAGE / "desktopd").rglob("*.py")]
    return [Path(name) for name in _MODULES] + sorted(desktopd)


def _filter() -> bytes:
    from workspace.backends import seccomp

    try:
        return seccomp.program()
    except (RuntimeError, ImportError) as error:
        raise BackendUnavailable(
            f"The seccomp filter cannot be made: {error}.", hint="apt-get install libseccomp2"
        ) from error


def _dependencies_name() -> str:
    # The system Python's minor version is in the name that its link leads to: no need to run it.
    python = os.path.basename(os.path.realpath(PYTHON))
    made_from = "\n".join([_RECIPE, python, platform.machine(), *requirements()])
    return f"deps-{hashlib.sha256(made_from.encode()).hexdigest()[:16]}"


def _install(target: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--python", PYTHON]
    try:
        installing.install(target, requirements(), pip=pip, python=PYTHON)
    except FileNotFoundError as error:
        raise _no_python() from error


def _compile(folder: Path) -> None:
    try:
        installing.compile_all(folder, python=PYTHON)
    except FileNotFoundError as error:
        raise _no_python() from error


def _no_python() -> BackendUnavailable:
    return BackendUnavailable(
        f"{PYTHON} is missing: desktops run by the system's Python.",
        hint="apt-get install python3",
    )


@contextlib.contextmanager
def _becoming(path: Path) -> Iterator[Path]:
    """A folder to fill that is then renamed to ``path``, unless another was first."""
    new = Path(tempfile.mkdtemp(prefix=".new-", dir=path.parent))
    try:
        yield new
        for entry in (new, *new.rglob("*")):
            if not entry.is_symlink():
                entry.chmod(0o755 if entry.is_dir() or os.access(entry, os.X_OK) else 0o644)
        with contextlib.suppress(OSError):
            new.rename(path)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    if not path.is_dir():
        raise BackendUnavailable(f"{path} could not be made.", hint=BUILD_HINT)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _is_mounted(path: Path) -> bool:
    """Whether a live desktop runs from it."""
    for process in Path("/proc").glob("[0-9]*/mountinfo"):
        with contextlib.suppress(OSError):
            if str(path) in process.read_text():
                return True
    return False


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else default_dir()
    if build(folder):
        print(f"built the runtime of desktops in {folder}", file=sys.stderr)


if __name__ == "__main__":
    main()
