"""What a desktop is as a container: the bodies of requests as plain dicts; pure.

A container has no network. Its one way to the world is a folder, mounted read-only, with a socket
that the supervisor listens on: desktopd connects to it, takes what it needs as open files, and
nothing else ever answers there. So the host opens no path that a sandbox can write, and no program
of the desktop finds its configuration anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from workspace.backends import manifests, remains, sandbox, seccomp
from workspace.backends.containers.options import CARREL, DEFAULT, UNCONFINED, Options
from workspace.models import Template
from workspace.proxy import joining

Spec = dict[str, Any]  # Any: JSON values

UID = manifests.UID
DOOR_SOCKET = "door.sock"
_DOOR_INSIDE = "/carrel/door"
_POLICIES = ("/etc/chromium/policies/managed", "/etc/opt/chrome/policies/managed")
_ETC = ("hosts", "hostname", "resolv.conf")
_POLICY, _TRUST, _SECCOMP = "policy", "trust", "seccomp.json"
_RUN_MIB = 64
_LOG_BYTES = "1m"
_FILES = (8192, 65_536)


class Engine(NamedTuple):
    """What is known of an engine without asking it much."""

    is_podman: bool
    owner: int  # whose it is: 0 is root

    @property
    def keeps_id(self) -> bool:
        """Whether the user of a desktop can be the one who runs the engine."""
        return self.is_podman and self.owner != 0

    def owns(self, uid: int) -> bool:
        """Whether what ``uid`` puts into a folder can be the desktop's."""
        return self.keeps_id or (self.owner == 0 and uid in (0, UID))


def engine(server: str, owner: int) -> Engine:
    """An engine by what it says of itself, and whose its socket is."""
    return Engine(is_podman="libpod" in server.lower(), owner=owner)


class Wanted(NamedTuple):
    """One desktop that is to be made."""

    id: str
    template: Template
    cluster: str
    folder: str  # of the sandbox, on the host
    home: str  # a folder of the host's; empty: a volume of the engine's own
    authority: str = ""  # PEM; empty: none
    bundle: str = ""
    tools: str = ""  # a folder of the host's


def name_of(cluster: str, workspace_id: str) -> str:
    return f"carrel-{manifests.label(cluster)}-{workspace_id}"


def labels(cluster: str, workspace_id: str, template: str) -> dict[str, str]:
    return {
        manifests.SANDBOX: workspace_id,
        manifests.CLUSTER: manifests.label(cluster),
        manifests.TEMPLATE: manifests.label(template),
    }


def filters(cluster: str) -> str:
    """The query for all desktops of a cluster."""
    return json.dumps({"label": [f"{manifests.CLUSTER}={manifests.label(cluster)}"]})


def files(wanted: Wanted, options: Options) -> dict[str, str]:
    """What lies in the sandbox's folder, by path below it, to be seen read-only inside."""
    text = {name: sandbox.FILES[name] for name in _ETC}
    policy = sandbox.POLICY | joining.browser_policy(wanted.authority)
    text[f"{_POLICY}/{manifests.POLICY_FILE}"] = json.dumps(policy)
    if wanted.authority:
        text[f"{_TRUST}/{manifests.AUTHORITY}"] = wanted.authority
        text[f"{_TRUST}/{manifests.BUNDLE}"] = wanted.bundle
    if options.seccomp == CARREL:
        text[_SECCOMP] = json.dumps(seccomp.profile())
    return {f"{remains.GIVEN}/{path}": content for path, content in text.items()}


def environment(*, has_authority: bool) -> dict[str, str]:
    """What programs are told of the way out."""
    return joining.environment(
        has_authority=has_authority,
        bundle=f"{manifests.TRUST}/{manifests.BUNDLE}",
        certificate=f"{manifests.TRUST}/{manifests.AUTHORITY}",
    )


def create(
    wanted: Wanted, options: Options, engine: Engine, *, most_files: int, most_tasks: int
) -> Spec:
    """The body of ``POST /containers/create``.

    ``most_files`` and ``most_tasks`` are what may be given at all; -1: there is no end. How many
    tasks a desktop has is its control group's limit: the other counts all of a user.
    """
    template = wanted.template
    memory, size = template.memory_mib << 20, template.disk_mib << 20
    soft, hard = (min(each, most_files) if most_files >= 0 else each for each in _FILES)
    ulimits = {"nofile": (soft, hard), "core": (0, 0), "fsize": (size, size)}
    if most_tasks >= 0:  # or Podman asks for more than it may have
        ulimits["nproc"] = (most_tasks, most_tasks)
    host: Spec = {
        "NetworkMode": "none",
        "IpcMode": "private",
        "CapDrop": ["ALL"],
        "SecurityOpt": _security(wanted, options, engine),
        "ReadonlyRootfs": True,
        "Privileged": False,
        "Memory": memory,
        "MemorySwap": memory,  # of both together: no swap
        "CpuPeriod": 100_000,  # not NanoCpus: Docker refuses more of those than the machine has
        "CpuQuota": max(1000, round(template.cpus * 100_000)),
        "PidsLimit": template.pids,
        "ShmSize": options.shm_mib << 20,
        "Tmpfs": {
            "/tmp": _tmpfs(options.tmp_mib, engine),
            "/var/tmp": _tmpfs(options.tmp_mib, engine),
            "/run": _tmpfs(_RUN_MIB, engine),
        },
        "Mounts": _mounts(wanted),
        "Ulimits": [
            {"Name": name, "Soft": soft, "Hard": hard} for name, (soft, hard) in ulimits.items()
        ],
        "RestartPolicy": {"Name": "no"},
        "LogConfig": {"Type": "json-file", "Config": {"max-size": _LOG_BYTES}},
    }
    if options.runtime:
        host["Runtime"] = options.runtime
    if engine.keeps_id:
        host["UsernsMode"] = f"keep-id:uid={UID},gid={UID}"
    return {
        "Image": options.image,
        "Cmd": ["--from", f"{_DOOR_INSIDE}/{DOOR_SOCKET}"],
        "User": f"{UID}:{UID}",
        "Hostname": "desktop",
        "WorkingDir": sandbox.HOME,
        "Env": [f"HOME={sandbox.HOME}", f"XDG_RUNTIME_DIR=/run/user/{UID}"],
        "Labels": labels(wanted.cluster, wanted.id, template.name),
        "HostConfig": host,
    }


def _tmpfs(mib: int, engine: Engine) -> str:
    """Podman would give it the mode that the image's folder has."""
    told = f"rw,nosuid,nodev,exec,mode=1777,size={mib}m"
    return f"{told},notmpcopyup" if engine.is_podman else told


def _security(wanted: Wanted, options: Options, engine: Engine) -> list[str]:
    told = ["no-new-privileges"]
    if options.seccomp == UNCONFINED:
        return [*told, "seccomp=unconfined"]
    if options.seccomp == DEFAULT:
        return told
    path = f"{wanted.folder}/{remains.GIVEN}/{_SECCOMP}"
    if options.seccomp != CARREL:
        path = options.seccomp
    if engine.is_podman:  # it reads a file; Docker's daemon is given what is in it
        return [*told, f"seccomp={path}"]
    if options.seccomp == CARREL:
        return [*told, f"seccomp={json.dumps(seccomp.profile())}"]
    with open(path, encoding="utf-8") as file:
        return [*told, f"seccomp={file.read()}"]


def _mounts(wanted: Wanted) -> list[Spec]:
    given = f"{wanted.folder}/{remains.GIVEN}"
    seen = {_DOOR_INSIDE: f"{wanted.folder}/{remains.DOOR}"}
    seen |= {f"/etc/{name}": f"{given}/{name}" for name in _ETC}
    seen |= {path: f"{given}/{_POLICY}" for path in _POLICIES}
    if wanted.authority:
        seen[manifests.TRUST] = f"{given}/{_TRUST}"
    if wanted.tools:
        seen[sandbox.TOOLS] = wanted.tools
    mounts = [_bind(source, target, is_read_only=True) for target, source in seen.items()]
    if wanted.home:
        return [*mounts, _bind(wanted.home, sandbox.HOME, is_read_only=False)]
    return [*mounts, {"Type": "volume", "Target": sandbox.HOME}]  # it goes with the container


def _bind(source: str, target: str, *, is_read_only: bool) -> Spec:
    return {
        "Type": "bind",
        "Source": source,
        "Target": target,
        "ReadOnly": is_read_only,
        "BindOptions": {"Propagation": "rprivate"},
    }


def stats(told: Mapping[str, Any]) -> dict[str, float | int]:  # Any: JSON values
    """What a container uses, of what ``GET /containers/X/stats`` says."""
    found: dict[str, float | int] = {}
    cpu = (told.get("cpu_stats") or {}).get("cpu_usage") or {}
    if isinstance(cpu.get("total_usage"), int):
        found["cpu_seconds"] = cpu["total_usage"] / 1e9
    memory = told.get("memory_stats") or {}
    if isinstance(memory.get("usage"), int):
        known = memory.get("stats") or {}
        cache = known.get("total_inactive_file", known.get("inactive_file", 0))
        found["memory_mib"] = round(max(0, memory["usage"] - cache) / (1 << 20), 1)
    pids = (told.get("pids_stats") or {}).get("current")
    if isinstance(pids, int):
        found["pids"] = pids
    return found
