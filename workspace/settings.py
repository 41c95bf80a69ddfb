"""Where the SDK finds the controller and its key, and how a cluster runs desktops: the only place
that reads the environment.

Read when a client is made, never at import time.
"""

from __future__ import annotations

import os
from pathlib import Path

DEFAULT_URL = "http://127.0.0.1:8700"


def controller_url() -> str:
    """``CARREL_URL``, or where this machine's `carrel up` serves, or would."""
    given = os.environ.get("CARREL_URL")
    if given:
        return given
    try:
        return url_file().read_text(encoding="ascii").strip() or DEFAULT_URL
    except (OSError, UnicodeDecodeError):
        return DEFAULT_URL


def url_file() -> Path:
    """Where `carrel up` notes its address for as long as it runs."""
    return home() / "url"


def home() -> Path:
    """``CARREL_HOME``: the state of this machine's controller."""
    given = os.environ.get("CARREL_HOME")
    return Path(given) if given else Path.home() / ".local" / "state" / "carrel"


def api_key() -> str | None:
    """``CARREL_API_KEY``, or the key that `carrel up` made for this machine; None without one."""
    given = os.environ.get("CARREL_API_KEY", "").strip()
    if given:
        return given
    try:
        return (home() / "api-key").read_text(encoding="ascii").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def variable(name: str) -> str | None:
    """A variable that a caller names: a value that is to be on no command line."""
    return os.environ.get(name)


_DOCKER = "CARREL_DOCKER_"
_DOCKER_SOCKETS = ("docker.sock", "podman/podman.sock")  # below a runtime folder


def docker() -> dict[str, str]:
    """``CARREL_DOCKER_*``: how desktops are run as containers, by the names of
    :class:`workspace.backends.containers.options.Options`.
    """
    return {
        name.removeprefix(_DOCKER).lower(): value.strip()
        for name, value in os.environ.items()
        if name.startswith(_DOCKER) and value.strip()
    }


def docker_host() -> str:
    """``DOCKER_HOST``, or the socket of the engine that is here: Docker's, then Podman's, those of
    this user before the machine's.
    """
    given = os.environ.get("DOCKER_HOST", "").strip()
    if given:
        return given
    own = os.environ.get("XDG_RUNTIME_DIR", "")
    folders = [Path(own)] if own else []
    folders += [Path("/run")]
    for name in _DOCKER_SOCKETS:
        for folder in folders:
            if _is_socket(folder / name):
                return f"unix://{folder / name}"
    return "unix:///var/run/docker.sock"


def _is_socket(path: Path) -> bool:
    try:
        return path.is_socket()
    except OSError:  # root's Podman keeps its folder to itself
        return False


_KATA = "CARREL_KATA_"
_PLACE = {  # of the downward API
    "node": "NODE", "pod": "POD", "pod_uid": "POD_UID", "pod_ip": "POD_IP",
    "namespace": "POD_NAMESPACE",
}  # fmt: skip


def kata() -> dict[str, str]:
    """``CARREL_KATA_*``: how desktops are run in Kubernetes, by the names of
    :class:`workspace.backends.kube.options.Options`. Empty without an image: they are not.
    """
    places = {_KATA + name for name in _PLACE.values()}
    told = {
        name.removeprefix(_KATA).lower(): value.strip()
        for name, value in os.environ.items()
        if name.startswith(_KATA) and name not in places and value.strip()
    }
    return told if "image" in told else {}


def kata_place() -> dict[str, str]:
    """Where this process runs in Kubernetes, as its pod is told: ``CARREL_KATA_NODE``, ``_POD``,
    ``_POD_UID``, ``_POD_IP`` and ``_POD_NAMESPACE``.
    """
    return {name: os.environ.get(_KATA + variable, "").strip() for name, variable in _PLACE.items()}
