"""What a program in a sandbox tries on the kernel, whichever backend made the sandbox."""

from __future__ import annotations

_PROGRAM = """
import ctypes, errno, os, socket, platform
libc = ctypes.CDLL(None, use_errno=True)
X = platform.machine() == "x86_64"
def call(number, *arguments):
    ctypes.set_errno(0)
    libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) for a in arguments])
    return errno.errorcode.get(ctypes.get_errno(), "ok")
def sock(*arguments):
    try:
        socket.socket(*arguments).close()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "ok"
if X:
    print("mount", call(165, 0, 0, 0, 0, 0))
    print("keyctl", call(250, 0, 0))
    print("bpf", call(321, 0, 0, 0))
    print("userfaultfd", call(323, 0))
    print("setns", call(308, 0, 0))
    print("perf", call(298, 0, 0, 0, 0, 0))
    print("io_uring", call(425, 0, 0))
    print("tiocsti", call(16, 0, 0x5412, 0))
    print("tiocsti-high", call(16, 0, (1 << 32) | 0x5412, 0))
print("packet", sock(17, 3))
print("vsock", sock(40, 1))
print("alg", sock(38, 5))
print("raw", sock(socket.AF_INET, socket.SOCK_RAW, 1))
print("netfilter", sock(socket.AF_NETLINK, socket.SOCK_RAW, 12))
print("route", sock(socket.AF_NETLINK, socket.SOCK_RAW, 0))
print("tcp", sock(socket.AF_INET6, socket.SOCK_STREAM))
"""
# Of another architecture: no filter of this one's calls holds for it.
X32 = """python3 -c '
import ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall(ctypes.c_long(0x40000000 | 39))
print(errno.errorcode.get(ctypes.get_errno(), "ok"))
'"""
CALLS = f"python3 - <<'EOF'\n{_PROGRAM}\nEOF"

# In a user namespace of its own, which is allowed: Chromium needs it.
FORBIDDEN = tuple(
    f"unshare -Urm --propagation unchanged {command}"
    for command in (
        "mount -t tmpfs none /tmp",
        "mount -o remount,rw /usr",
        "mount --bind / /tmp",
        "umount /usr",
        "nsenter -t 1 -m true",
        "mknod /tmp/disk b 254 0",
        "chroot /proc/1/root touch /usr/a",
    )
)


def answers(printed: str) -> dict[str, str]:
    """By call, what it was answered."""
    return dict(line.split() for line in printed.splitlines())


def expected(answers: dict[str, str]) -> dict[str, str]:
    """What they should be, of those that this architecture has."""
    wanted = dict.fromkeys(("packet", "vsock", "alg"), "EAFNOSUPPORT")
    wanted |= dict.fromkeys(("raw", "netfilter"), "EPERM") | {"route": "ok", "tcp": "ok"}
    if "mount" in answers:
        wanted |= {"io_uring": "ENOSYS"}
        refused = ("mount", "keyctl", "bpf", "userfaultfd", "setns", "perf")
        wanted |= dict.fromkeys((*refused, "tiocsti", "tiocsti-high"), "EPERM")
    return wanted
