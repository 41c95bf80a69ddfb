"""What a container leaves, and its removal: by its supervisor, or by whoever comes later.

It is told of by the sandbox's folder, as :mod:`workspace.backends.remains` says, and by the
container's labels. Only the standard library: supervisors use it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from workspace.backends import cgroups, remains
from workspace.backends.containers.api import Engine

_TRIES, _PAUSE_SECONDS, _SECONDS = 6, 0.1, 20.0


class State(remains.State):
    engine: str  # the path of its socket
    container: str  # its name


def state(spec: Mapping[str, Any]) -> State:  # Any: a supervisor's spec
    """What is written down before anything is made, in a supervisor."""
    me = remains.process(os.getpid())
    assert me is not None, "a process sees itself in /proc"
    return {
        "supervisor": me,
        "bwrap": None,
        "init": None,
        "uid": spec["uid"],
        "group": cgroups.NONE,  # the engine's to make and to remove
        "disk": spec["disk"],
        "engine": spec["engine"],
        "container": spec["name"],
    }


def remove(engine: Engine, name: str) -> None:
    """Kill a container and remove it, with what the engine keeps for it. Gone is success.

    Raises:
        OSError: it is still there; or :class:`~.api.Away`: who knows.
    """
    path = f"/containers/{name}"
    pause = _PAUSE_SECONDS
    for _ in range(_TRIES):
        answer = engine.ask("DELETE", path, query={"force": "1", "v": "1"}, seconds=_SECONDS)
        if answer.is_done or answer.status == 404:
            return
        if "paused" in answer.message:
            engine.ask("POST", f"{path}/unpause")
            continue
        time.sleep(pause)  # somebody else removes it at this moment, for one
        pause *= 2
    raise OSError(f"the container {name} cannot be removed: {answer.message}")


RUNTIME_HINT = (
    "Docker: install it, and name it in /etc/docker/daemon.json. Podman's Docker API takes the one "
    "of containers.conf ([engine] runtime = ...): name it there. Or unset CARREL_DOCKER_RUNTIME."
)


def image_hint(image: str) -> str:
    """What to do about an image that is not there."""
    return f"Build it (make image), or have the engine fetch it (docker pull {image})."


def away_hint(path: str) -> str:
    """What to do about an engine that does not answer."""
    if not os.path.exists(path):
        return (
            f"Nothing is at {path}: start Docker (sudo systemctl start docker) or Podman's service "
            "(systemctl --user start podman.socket), or name its socket by CARREL_DOCKER_HOST."
        )
    if not os.access(path, os.W_OK):
        return (
            f"This user may not use {path}: sudo usermod -aG docker $USER, and log in again; "
            "or use Docker's rootless mode, or Podman."
        )
    return "Look at its own log: journalctl -u docker, or podman system service in a terminal."
