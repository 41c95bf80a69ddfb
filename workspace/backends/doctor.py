"""What this machine lacks to run desktops, and the command that mends each.

`carrel doctor` prints :func:`checks`; a backend whose start failed asks :func:`reason` whether the
machine is why. Nothing here changes the machine. User namespaces are not guessed at but tried, as
a desktop would use them.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from workspace.backends import cgroups, ides, runtime, sandbox, uids
from workspace.desktopd import locality
from workspace.errors import BackendUnavailable

MIN_BWRAP = (0, 5)
_LOW_DISK_MIB, _LOW_MEMORY_MIB, _LOW_SHM_MIB = 2048, 1024, 64
_PICTURE_LIBRARIES = ("libturbojpeg.so.0", "libzimg.so.2")  # of workspace.desktopd.x11
_APPARMOR_MEND = (
    "printf 'abi <abi/4.0>,\\ninclude <tunables/global>\\n"
    "profile bwrap /usr/bin/bwrap flags=(unconfined) {\\n  userns,\\n}\\n'"
    " | sudo tee /etc/apparmor.d/bwrap && sudo apparmor_parser -r /etc/apparmor.d/bwrap"
)


class Check(NamedTuple):
    """One thing that was looked at; ``mend`` is the command or the step that puts it right."""

    name: str
    is_ok: bool
    detail: str
    mend: str = ""


def checks(runtime_dir: Path | None = None) -> list[Check]:
    """Everything that desktops need, in the order to mend it in."""
    return [
        *_essentials(),
        check_control_groups(cgroups.find_parents(), os.geteuid() == 0),
        _runtime(runtime_dir or runtime.default_dir()),
        _program("desktop panel", ("xfce4-panel", "xfdesktop", "xfsettingsd"),
                 "xfce4-panel xfdesktop4 xfce4-settings"),
        _browser(),
        _ide(runtime_dir or runtime.default_dir()),
        _pictures(),
        _program("recordings", ("ffmpeg",), "ffmpeg"),
        _program("secrets over TLS", ("openssl",), "openssl"),
        _fonts(),
        _container(),
        check_memory(Path("/proc/meminfo").read_text(encoding="ascii")),
        _disk(),
        _shared_memory(),
    ]  # fmt: skip


def reason() -> Check | None:
    """The first thing without which no desktop starts at all; None if they are all there."""
    return next((check for check in _essentials() if not check.is_ok), None)


def _essentials() -> Iterable[Check]:
    try:
        host = sandbox.look()
    except BackendUnavailable as error:
        yield Check("bubblewrap", False, error.message, error.hint)
    else:
        bwrap = _bwrap(host)
        yield bwrap
        if bwrap.is_ok:
            yield _user_namespaces(host)
    yield _program("X server", ("Xtigervnc",), "tigervnc-standalone-server")
    yield _program("session bus", ("dbus-daemon",), "dbus dbus-x11")
    yield _program("window manager", ("xfwm4",), "xfwm4")
    yield _program("Python", (runtime.PYTHON,), "python3")


def explain_user_namespaces(words: str, read: Callable[[str], str | None]) -> Check:
    """Why bubblewrap could not make its namespaces, from its ``words`` and what ``read`` finds."""
    name = "user namespaces"

    def says(path: str, value: str) -> bool:
        return (read(path) or "").strip() == value

    if says("/proc/sys/kernel/unprivileged_userns_clone", "0"):
        sysctl = "kernel.unprivileged_userns_clone"
        return Check(name, False, f"They are switched off ({sysctl} = 0).", _sysctl(sysctl, "1"))
    if says("/proc/sys/user/max_user_namespaces", "0"):
        sysctl = "user.max_user_namespaces"
        return Check(name, False, f"None are allowed ({sysctl} = 0).", _sysctl(sysctl, "15000"))
    if says("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1"):
        detail = "AppArmor forbids them to programs without a profile (as Ubuntu 24.04 does)."
        return Check(name, False, detail, _APPARMOR_MEND)
    container = container_kind(read)
    if container:
        detail = f"The container that this runs in ({container}) forbids them: {words}"
        mend = (
            "Run Carrel outside, or give the container what it needs: docker run "
            "--security-opt seccomp=unconfined --security-opt apparmor=unconfined "
            "--security-opt systempaths=unconfined"
        )
        return Check(name, False, detail, mend)
    return Check(name, False, f"bubblewrap cannot make a sandbox: {words}", "See its message.")


def check_control_groups(parents: cgroups.Group, is_root: bool) -> Check:
    """How desktops are limited here."""
    name = "control groups"
    kind = parents["kind"]
    if kind == "scope":
        return Check(name, True, "Limits by scopes of your systemd.")
    if kind != "none":
        place = parents["folders"]["memory" if kind == "v1" else cgroups.UNIFIED]
        return Check(name, True, f"Limits by cgroup {kind} under {place}.")
    detail = "None that we may write: the memory and processor time of desktops have no limit."
    if is_root:
        return Check(name, False, detail, "In a container: mount /sys/fs/cgroup writable.")
    return Check(name, False, detail, "sudo loginctl enable-linger $USER, and log in again")


def check_memory(meminfo: str) -> Check:
    found = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo, re.MULTILINE)
    mib = int(found.group(1)) // 1024 if found else 0
    mend = "A desktop with a browser needs about 1 GiB: end other programs."
    return Check("memory", mib >= _LOW_MEMORY_MIB, f"{mib} MiB available.", mend)


def container_kind(read: Callable[[str], str | None]) -> str:
    """The kind of container that this process runs in, or an empty string."""
    for path, kind in (("/run/.containerenv", "podman"), ("/.dockerenv", "docker")):
        if read(path) is not None:
            return kind
    named = re.search(r"(?:^|\0)container=([a-z-]+)", read("/proc/1/environ") or "")
    if named:
        return named.group(1)
    known = re.search(r"docker|kubepods|containerd|lxc", read("/proc/1/cgroup") or "")
    return known.group(0) if known else ""


def _bwrap(host: sandbox.Host) -> Check:
    version = ".".join(map(str, host.bwrap_version))
    is_ok = host.bwrap_version >= MIN_BWRAP
    return Check("bubblewrap", is_ok, f"Version {version}.", "sudo apt-get install bubblewrap")


def _user_namespaces(host: sandbox.Host) -> Check:
    """Make a sandbox as a desktop's would be, under a uid of no one."""
    command = [sandbox.BWRAP, *sandbox.isolation(host), "--", "/usr/bin/true"]
    try:
        other = uids.base(_read("/proc/self/uid_map") or "") + uids.SLOTS - 1
    except uids.NoUid as error:
        return Check("user namespaces", False, f"{error}.", "Map at least 65536 uids.")
    try:
        if os.geteuid() == 0:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=20,
                user=other, group=other, extra_groups=[],
            )  # fmt: skip
        else:
            done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        return explain_user_namespaces(str(error), _read)
    if done.returncode == 0:
        return Check("user namespaces", True, "A sandbox could be made.")
    return explain_user_namespaces(done.stderr.strip()[:500], _read)


def _program(name: str, programs: tuple[str, ...], packages: str) -> Check:
    missing = [program for program in programs if not shutil.which(program)]
    detail = f"{', '.join(missing)} missing." if missing else f"{', '.join(programs)}."
    return Check(name, not missing, detail, f"sudo apt-get install {packages}")


def _languages() -> Check:
    """What templates choose from besides the defaults."""
    missing = [
        package
        for package, path in (
            ("locales", locality.SOURCES / "locales"),
            ("tzdata", locality.ZONES),
            ("xkb-data", locality.LAYOUTS),
        )
        if not path.exists()
    ]
    missing += [] if shutil.which("setxkbmap") else ["x11-xkb-utils"]
    detail = "Locales, time zones and keyboards can be chosen."
    if missing:
        detail = f"Not all locales, time zones or keyboards can be chosen: {', '.join(missing)}."
    return Check("languages", not missing, detail, f"sudo apt-get install {' '.join(missing)}")


def _browser() -> Check:
    names = ("chromium", "google-chrome", "google-chrome-stable", "chromium-browser")
    for path in (path for path in map(shutil.which, names) if path):
        if not os.path.realpath(path).startswith("/snap/") and "snap" not in _head(path):
            return Check("browser", True, f"{path}.")
    mend = "sudo apt-get install chromium (on Ubuntu, Google Chrome's .deb: a snap cannot run here)"
    return Check("browser", False, "Neither Chromium nor Chrome is there.", mend)


def _pictures() -> Check:
    """Whether screenshots are made the quick way; desktopd does without."""
    missing = []
    for library in _PICTURE_LIBRARIES:
        try:
            ctypes.CDLL(library)
        except OSError:
            missing.append(library)
    if missing:
        detail = f"{', '.join(missing)} missing: screenshots take longer."
        mend = "sudo apt-get install libturbojpeg0 libzimg2 (on Ubuntu: libturbojpeg libzimg2)"
        return Check("picture libraries", False, detail, mend)
    return Check("picture libraries", True, f"{', '.join(_PICTURE_LIBRARIES)}.")


def _runtime(folder: Path) -> Check:
    try:
        path = runtime.dependencies(folder)
    except BackendUnavailable as error:
        return Check("runtime", False, error.message, "scripts/build-runtime")
    closed = [p for p in (path, *path.parents) if not p.stat().st_mode & 0o001]
    if os.geteuid() == 0 and closed:
        return Check(
            "runtime", False, f"Others cannot pass {closed[-1]}.", f"chmod o+x {closed[-1]}"
        )
    return Check("runtime", True, f"{path}.")


def _ide(folder: Path) -> Check:
    """Only templates with VS Code need it: none at all is no fault."""
    if not ides.is_there(folder):
        return Check("IDE", True, "None; templates with VS Code need it: `make setup-ide`.")
    try:
        path = ides.built(folder)
    except BackendUnavailable as error:
        return Check("IDE", False, error.message, "make setup-ide")
    return Check("IDE", True, f"{path}.")


def _fonts() -> Check:
    found = any(Path("/usr/share/fonts").rglob("*.[ot]t[fc]"))
    mend = "sudo apt-get install fonts-dejavu-core fonts-noto-cjk fonts-noto-color-emoji"
    return Check("fonts", found, "There." if found else "No fonts are installed.", mend)


def _container() -> Check:
    kind = container_kind(_read)
    return Check("container", True, f"Runs inside one ({kind})." if kind else "Not inside one.")


def _disk() -> Check:
    place = next(p for p in (Path("/var/lib/carrel"), Path("/var/lib")) if p.is_dir())
    place = place if os.geteuid() == 0 else Path.home()
    mib = shutil.disk_usage(place).free >> 20
    mend = f"Free some space under {place}: a desktop may fill its home."
    return Check("disk", mib >= _LOW_DISK_MIB, f"{mib} MiB free under {place}.", mend)


def _shared_memory() -> Check:
    try:
        mib = shutil.disk_usage("/dev/shm").total >> 20
    except OSError:
        mib = 0
    mend = "sudo mount -t tmpfs -o mode=1777 tmpfs /dev/shm (docker: --shm-size=1g)"
    return Check("/dev/shm", mib >= _LOW_SHM_MIB, f"{mib} MiB.", mend)


def _sysctl(name: str, value: str) -> str:
    return (
        f"echo {name}={value} | sudo tee /etc/sysctl.d/60-carrel.conf && "
        "sudo sysctl -p /etc/sysctl.d/60-carrel.conf"
    )


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(1 << 16)
    except OSError:
        return None


def _head(path: str) -> str:
    with open(path, "rb") as file:
        start = file.read(2048)
    return start.decode(errors="replace") if start.startswith(b"#!") else ""
