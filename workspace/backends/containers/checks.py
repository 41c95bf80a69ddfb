"""What a machine lacks to run desktops as containers, and the command that mends each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from workspace.backends.containers import leftovers, specs
from workspace.backends.containers.api import Away, Engine
from workspace.backends.containers.options import Options
from workspace.backends.doctor import Check

_SECONDS = 30.0


def checks(options: Options) -> Iterator[Check]:
    """Everything that desktops as containers need, in the order to mend it in. Blocks."""
    engine = Engine(options.socket)
    try:
        found = specs.engine(*engine.who())
        info = engine.ask("GET", "/info", seconds=_SECONDS).body or {}
        image = engine.ask("GET", f"/images/{options.image}/json")
    except Away as error:
        mend = leftovers.away_hint(engine.path)
        yield Check("engine", False, f"Docker or Podman does not answer: {error}.", mend)
        return
    yield _engine(engine, found, info)
    is_there = image.status == 200
    detail = f"{options.image}." if is_there else f"{options.image} is not there."
    yield Check("image", is_there, detail, leftovers.image_hint(options.image))
    yield _runtime(options, found, info)
    yield _limits(info)
    yield _homes(found)
    if options.seccomp not in ("carrel", "default", "unconfined"):
        is_file = os.access(options.seccomp, os.R_OK)
        yield Check("seccomp", is_file, f"{options.seccomp}.", "See CARREL_DOCKER_SECCOMP.")


def _engine(engine: Engine, found: specs.Engine, info: dict[str, Any]) -> Check:  # Any: JSON values
    kind = "Podman" if found.is_podman else "Docker"
    rights = "as root" if found.owner == 0 else "without root"
    told = f"{kind} {info.get('ServerVersion', '')} at {engine.path}, {rights}."
    if "Docker Desktop" in str(info.get("OperatingSystem")):
        detail = f"{told} It runs in a virtual machine, where desktops' sockets do not reach."
        return Check("engine", False, detail, "Install Docker Engine (docker-ce), or Podman.")
    if any("name=userns" in str(each) for each in info.get("SecurityOptions") or ()):
        detail = f"{told} It maps users (userns-remap), so homes would be another user's."
        return Check("engine", False, detail, "Switch userns-remap off, or use rootless mode.")
    return Check("engine", True, told)


def _runtime(
    options: Options,
    found: specs.Engine,
    info: dict[str, Any],  # Any: as above
) -> Check:
    default = str(info.get("DefaultRuntime") or "")
    there = [default] if found.is_podman else sorted(info.get("Runtimes") or ())
    name = options.runtime or default or "the engine's own"
    is_there = not options.runtime or options.runtime in there
    told = f"{name}." if is_there else f"It runs containers by {', '.join(there)}, not by {name}."
    return Check("runtime", is_there, told, leftovers.RUNTIME_HINT)


def _limits(info: dict[str, Any]) -> Check:  # Any: as above
    lacking = [
        what
        for name, what in (
            ("MemoryLimit", "memory"),
            ("SwapLimit", "swap"),
            ("CpuCfsQuota", "processors"),
            ("PidsLimit", "processes"),
        )
        if info.get(name) is False
    ]
    told = f"Not limited: {', '.join(lacking)}." if lacking else "Memory, processors, processes."
    mend = "Delegate control groups: see the engine's guide to rootless mode."
    return Check("limits", not lacking, told, mend)


def _homes(found: specs.Engine) -> Check:
    if found.owns(os.geteuid()):
        return Check("homes", True, "Folders of this machine; volumes work.")
    told = "Kept by the engine: their size has no limit, and there are no volumes."
    return Check("homes", True, told)
