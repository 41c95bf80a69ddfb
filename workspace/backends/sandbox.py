"""What a sandbox looks like from inside: the arguments of bubblewrap. Pure, but for `look`.

Inside there are the host's programs, read-only; an /etc composed of our own files and of a few of
the host's, each bound by name; a home; bounded tmpfs; nothing else of the host. User namespaces
stay possible, because Chromium's own sandbox needs them.

The listening socket, the daemon's configuration and the composed files come as descriptors with
fixed numbers, so nothing of them has a path in the sandbox that could lead back.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from workspace.backends.launch import (
    ARGUMENTS_FD,
    CONFIG_FD,
    EGRESS_FD,
    FIRST_DATA_FD,
    INFO_FD,
    LISTEN_FD,
    READY_FD,
    SECCOMP_FD,
)
from workspace.desktopd.browser.chromium import FLAGS
from workspace.errors import BackendUnavailable
from workspace.proxy import joining
from workspace.proxy.certificates import Authority, NoCertificate

log = logging.getLogger(__name__)

UID = 1000
HOME = "/home/user"
SOURCE, DEPENDENCIES, TOOLS = "/opt/carrel/src", "/opt/carrel/deps", "/opt/carrel/tools"
IDE = "/opt/carrel/ide"
BWRAP = "/usr/bin/bwrap"

# Each is here because a program of a desktop reads it; none holds secrets or names this machine.
# Not here, on purpose: profile.d and environment (proxies with passwords), pip.conf, npmrc,
# gitconfig (registries with tokens), ssl/private, default, security.
ETC = (
    "X11", "alternatives", "bash.bashrc", "bash_completion", "ca-certificates",
    "ca-certificates.conf", "dbus-1", "debian_version", "emacs",
    "firefox", "firefox-esr", "fonts", "glvnd", "gtk-2.0", "gtk-3.0", "gtk-4.0", "host.conf",
    "inputrc", "java-11-openjdk", "java-17-openjdk", "java-21-openjdk", "ld.so.cache",
    "ld.so.conf", "ld.so.conf.d", "libreoffice", "locale.alias", "localtime", "lsb-release",
    "magic", "magic.mime", "mailcap", "mime.types", "os-release", "papersize", "perl", "profile",
    "protocols", "pulse", "python3", "rpc", "services", "shells", "skel", "ssl/certs",
    "ssl/openssl.cnf", "terminfo", "timezone", "vim", "xdg",
)  # fmt: skip

# Browsers and IDEs whose packages install there. What else lies in /opt may be anybody's.
OPT = ("/opt/google", "/opt/jetbrains")

# Their policies are composed: what the machine's own say, and what tells them of the way out.
BROWSERS = ("/etc/chromium", "/etc/opt/chrome")
_MANAGED = "policies/managed"

_FOLDERS = (
    "/etc", "/etc/opt", "/etc/ssl", "/home", "/mnt", "/opt", "/opt/carrel", "/root", "/run/lock",
    "/srv", "/var/cache", "/var/lib", "/var/lib/dbus", "/var/lib/xkb", "/var/log",
)  # fmt: skip

FILES = {
    "passwd": "root:x:0:0:root:/root:/usr/sbin/nologin\n"
    "user:x:1000:1000:user:/home/user:/bin/bash\n"
    "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    "group": "root:x:0:\nuser:x:1000:\nnogroup:x:65534:\n",
    "hosts": "127.0.0.1 localhost desktop\n::1 localhost ip6-localhost ip6-loopback\n",
    "hostname": "desktop\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\nservices: files\n"
    "protocols: files\n",
    "resolv.conf": "",
}

ENVIRONMENT = {
    "HOME": HOME,
    "LANG": "C.UTF-8",
    "LOGNAME": "user",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "SHELL": "/bin/bash",
    "TMPDIR": "/tmp",
    "USER": "user",
    "XDG_RUNTIME_DIR": f"/run/user/{UID}",
}

DESKTOPD = (
    "/usr/bin/python3", "-I", "-S", f"{SOURCE}/desktopd.py",
    "--config-fd", str(CONFIG_FD), "--listen-fd", str(LISTEN_FD), "--ready-fd", str(READY_FD),
    "--egress-fd", str(EGRESS_FD),
)  # fmt: skip


# Chromium's managed policies: what of it is for a person at home, and would ask an agent things.
# Its place is composed, so no policy of the machine's own holds in a desktop.
POLICY = {
    "AutofillAddressEnabled": False,
    "AutofillCreditCardEnabled": False,
    "BackgroundModeEnabled": False,
    "BrowserSignin": 0,
    "DefaultBrowserSettingEnabled": False,
    "DefaultGeolocationSetting": 2,
    "DefaultNotificationsSetting": 2,
    "DefaultPopupsSetting": 2,
    "HideWebStoreIcon": True,
    "MetricsReportingEnabled": False,
    "NTPCardsVisible": False,
    "PasswordManagerEnabled": False,
    "PromotionsEnabled": False,
    "PromptForDownloadLocation": False,
    "ScreenCaptureAllowed": False,
    "SearchSuggestEnabled": False,
    "ShoppingListEnabled": False,
    "SyncDisabled": True,
    "TranslateEnabled": False,
    "UserFeedbackAllowed": False,
}
# Debian's launcher sources what lies there, for every Chromium that is started. One that no person
# sees, or that has a profile of its own, is somebody else's: a second would fail on the port.
_FLAGS = f"""\
case " $* " in
*" --headless"*|*" --user-data-dir"*|*" --remote-debugging-"*|*" --temp-profile"*) ;;
*) export CHROMIUM_FLAGS="$CHROMIUM_FLAGS {" ".join(FLAGS)}" ;;
esac
"""


class Host(NamedTuple):
    """What of the host the arguments depend on."""

    links: dict[str, str]  # of /bin, /lib ...: those that are links, and where they lead
    folders: tuple[str, ...]  # of the same: those that are folders
    opt: tuple[str, ...]  # the folders of OPT that are there
    chromium: tuple[str, ...]  # the files of /etc/chromium.d
    bwrap_version: tuple[int, ...]
    browsers: tuple[str, ...] = ()  # files of BROWSERS
    bundle: str = ""  # the certificates that the machine trusts


def look() -> Host:
    """What is there on this machine.

    Raises:
        BackendUnavailable: bubblewrap cannot be run.
    """
    try:
        done = subprocess.run([BWRAP, "--version"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BackendUnavailable(
            f"{BWRAP} cannot be run: {error}.", hint="sudo apt-get install bubblewrap"
        ) from error
    roots = [Path("/") / name for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32")]
    return Host(
        links={str(path): str(path.readlink()) for path in roots if path.is_symlink()},
        folders=tuple(str(path) for path in roots if path.is_dir() and not path.is_symlink()),
        chromium=tuple(
            sorted(path.name for path in Path("/etc/chromium.d").glob("*") if path.is_file())
        ),
        opt=tuple(path for path in OPT if Path(path).is_dir() and not Path(path).is_symlink()),
        browsers=tuple(path for folder in BROWSERS for path in _settings(Path(folder))),
        bundle=bundle(),
        bwrap_version=tuple(int(part) for part in re.findall(r"\d+", done.stdout)[:3]),
    )


def _settings(folder: Path) -> Iterator[str]:
    """What is to be bound of a browser's settings: all, but for the folders that are composed."""
    composed = {folder, folder / "policies", folder / _MANAGED}
    for parent in sorted(composed):
        with contextlib.suppress(OSError):
            yield from (str(path) for path in sorted(parent.iterdir()) if path not in composed)


def bundle() -> str:
    """The certificates that this machine trusts, in PEM; empty if there is no such file."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return Path(joining.BUNDLE).read_text("ascii")
    return ""


def authority() -> tuple[Authority | None, str]:
    """Of a new desktop whose programs are not this machine's, with what this machine trusts.

    Without, secrets go into plain HTTP alone.
    """
    trusted = bundle()
    try:
        return (Authority.make(), trusted) if trusted else (None, "")
    except NoCertificate as error:
        log.warning("no certificates for desktops: %s", error)
        return None, ""


def browser_files(policy: Mapping[str, object]) -> dict[str, str]:
    """What tells every Chromium and Chrome of a desktop how to be: the files, by their paths."""
    text = json.dumps(dict(policy))
    files = {f"{path}/{_MANAGED}/carrel.json": text for path in BROWSERS}
    return {"/etc/chromium.d/carrel": _FLAGS, **files}


def isolation(host: Host) -> list[str]:
    """The namespaces, and the host's programs: what a trial needs, and what a desktop starts with.

    ``--unshare-all`` alone would go on without a user namespace where there is none. The command
    is the first process itself: a bubblewrap in that place could be traced by any program, which
    could then undo that the sandbox dies with its parent.
    """
    arguments = [
        "--unshare-all", "--unshare-user", "--uid", str(UID), "--gid", str(UID), "--as-pid-1",
        "--die-with-parent", "--new-session", "--hostname", "desktop", "--clearenv",
        "--cap-drop", "ALL", "--ro-bind", "/usr", "/usr",
    ]  # fmt: skip
    for path, target in host.links.items():
        arguments += ["--symlink", target, path]
    for path in host.folders:
        arguments += ["--ro-bind", path, path]
    return [*arguments, "--proc", "/proc", "--dev", "/dev"]


def command_line(
    host: Host,
    *,
    home: Path,
    source: Path,
    dependencies: Path,
    memory_mib: int,
    machine_id: str,
    tools: Path | None = None,
    ide: Path | None = None,
    certificate: str = "",
    command: Sequence[str] = DESKTOPD,
) -> tuple[list[str], list[str]]:
    """What to run, and the contents that ARGUMENTS_FD and the following must hold.

    ``certificate``, in PEM, is trusted inside; there is to be none where the machine has no bundle.

    bubblewrap reads its arguments from a descriptor: its command line can be seen from inside.
    """
    arguments = isolation(host)
    # What may lie in memory besides programs; the memory limit bounds the sum.
    half = max(64, memory_mib // 2)
    arguments += _tmpfs(host, "/dev/shm", "1777", half)
    arguments += _tmpfs(host, "/tmp", "1777", half)
    arguments += ["--perms", "1777", "--dir", "/tmp/.X11-unix"]
    arguments += ["--perms", "1777", "--dir", "/tmp/.ICE-unix"]
    arguments += _tmpfs(host, "/run", "0755", 64)
    arguments += ["--perms", "0755", "--dir", "/run/user"]
    arguments += ["--perms", "0700", "--dir", f"/run/user/{UID}"]
    arguments += _tmpfs(host, "/var/tmp", "1777", half)
    arguments += ["--symlink", "/run", "/var/run", "--symlink", "/run/lock", "/var/lock"]
    for path in _FOLDERS:
        arguments += ["--perms", "0755", "--dir", path]
    arguments += ["--ro-bind-try", "/var/cache/fontconfig", "/var/cache/fontconfig"]
    for name in ETC:
        arguments += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    for path in BROWSERS:
        for part in (path, f"{path}/policies", f"{path}/{_MANAGED}"):
            arguments += ["--perms", "0755", "--dir", part]
    for path in host.browsers:
        arguments += ["--ro-bind-try", path, path]
    for name in host.chromium:
        arguments += ["--ro-bind-try", f"/etc/chromium.d/{name}", f"/etc/chromium.d/{name}"]
    files = {f"/etc/{name}": text for name, text in FILES.items()}
    files["/etc/machine-id"] = machine_id + "\n"
    files |= browser_files(POLICY | joining.browser_policy(certificate))
    if certificate:
        files[joining.CERTIFICATE] = certificate
        files[joining.BUNDLE] = host.bundle + certificate  # bound over the machine's
    for fd, name in enumerate(files, FIRST_DATA_FD):
        how = "--ro-bind-data" if name == joining.BUNDLE else "--file"
        arguments += ["--perms", "0644", how, str(fd), name]
    for path in host.opt:
        arguments += ["--ro-bind-try", path, path]
    arguments += ["--ro-bind", str(source), SOURCE, "--ro-bind", str(dependencies), DEPENDENCIES]
    if tools is not None:
        arguments += ["--ro-bind", str(tools), TOOLS]
    if ide is not None:
        arguments += ["--ro-bind", str(ide), IDE]
    arguments += ["--bind", str(home), HOME, "--chdir", HOME]
    arguments += ["--remount-ro", "/dev", "--remount-ro", "/"]  # both are tmpfs without a size
    for key, value in ENVIRONMENT.items():
        arguments += ["--setenv", key, value]
    arguments += ["--seccomp", str(SECCOMP_FD), "--info-fd", str(INFO_FD)]
    return (
        [BWRAP, "--args", str(ARGUMENTS_FD), "--", *command],
        ["\0".join(arguments), *files.values()],
    )


def _tmpfs(host: Host, path: str, mode: str, size_mib: int) -> list[str]:
    # Before 0.7 the size cannot be told (Ubuntu 22.04): the memory limit alone bounds it there.
    size = ["--size", str(size_mib << 20)] if host.bwrap_version >= (0, 7) else []
    return ["--perms", mode, *size, "--tmpfs", path]
