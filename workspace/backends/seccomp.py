"""The system calls that programs in a desktop are refused.

Everything is allowed but what reaches for the machine (modules, kexec, swap, clocks, ports), what
has been a way into the kernel again and again and that no desktop program needs (bpf, perf,
userfaultfd, keyrings, io_uring, packet sockets, netfilter), and mounting. User namespaces stay
allowed: Chromium's own sandbox is made of them. What a program may probe for and do without
(io_uring, other architectures) answers "no such call"; the rest "not permitted".

Compiled by libseccomp when the runtime folder is built, so that starting a desktop only reads it.
"""

from __future__ import annotations

import errno
import tempfile

REFUSED = (
    # the machine
    "acct", "adjtimex", "clock_adjtime", "clock_settime", "delete_module", "finit_module",
    "init_module", "ioperm", "iopl", "kexec_file_load", "kexec_load", "lookup_dcookie",
    "nfsservctl", "quotactl", "quotactl_fd", "reboot", "setdomainname", "sethostname",
    "settimeofday", "stime", "swapoff", "swapon", "syslog", "vhangup",
    # the kernel's soft spots
    "add_key", "bpf", "fanotify_init", "keyctl", "name_to_handle_at", "open_by_handle_at",
    "perf_event_open", "request_key", "setns", "userfaultfd",
    # mounting
    "fsconfig", "fsmount", "fsopen", "fspick", "mount", "mount_setattr", "move_mount",
    "open_tree", "pivot_root", "umount", "umount2",
)  # fmt: skip
MISSING = ("io_uring_enter", "io_uring_register", "io_uring_setup")
TERMINAL_INJECTIONS = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX

_AF_INET, _AF_INET6, _AF_NETLINK = 2, 10, 16
_FAMILIES = {1, _AF_INET, _AF_INET6, _AF_NETLINK}  # 1: AF_UNIX
_NETLINK_PROTOCOLS = {0, 15}  # routes and device events
_SOCK_RAW, _SOCK_TYPE_MASK = 3, 0xF
# setsockopt's tables of iptables, arptables, ip6tables and ebtables, which a new user and network
# namespace would otherwise open to anyone.
_NETFILTER_OPTIONS = {0: (64, 65, 96, 97, 128, 129), 41: (64, 65)}
_INT = 0xFFFFFFFF  # the kernel reads an int and ignores what stands above it


def program() -> bytes:
    """The filter as the kernel takes it (``struct sock_filter[]``).

    Raises:
        OSError: libseccomp cannot make it.
        RuntimeError: libseccomp is not there.
    """
    import pyseccomp as s  # type: ignore[import-untyped]  # it ships no types

    allow = s.SyscallFilter(s.ALLOW)
    allow.set_attr(s.Attr.ACT_BADARCH, s.ERRNO(errno.ENOSYS))
    denied = s.ERRNO(errno.EPERM)

    def refuse(name: str, *arguments: s.Arg, action: int = denied) -> None:
        if s.resolve_syscall(s.Arch.NATIVE, name) != -1:  # this architecture has it
            allow.add_rule(action, name, *arguments)

    def exactly(index: int, value: int, mask: int = _INT) -> s.Arg:
        return s.Arg(index, s.MASKED_EQ, mask, value)

    for name in REFUSED:
        refuse(name)
    for name in MISSING:
        refuse(name, action=s.ERRNO(errno.ENOSYS))
    for request in TERMINAL_INJECTIONS:
        refuse("ioctl", exactly(1, request))
    unsupported = s.ERRNO(errno.EAFNOSUPPORT)
    for family in set(range(_AF_NETLINK)) - _FAMILIES:
        refuse("socket", exactly(0, family), action=unsupported)
    refuse("socket", s.Arg(0, s.GT, _AF_NETLINK), action=unsupported)
    for protocol in set(range(32)) - _NETLINK_PROTOCOLS:
        refuse("socket", exactly(0, _AF_NETLINK), exactly(2, protocol))
    for family in (_AF_INET, _AF_INET6):
        refuse("socket", exactly(0, family), exactly(1, _SOCK_RAW, _SOCK_TYPE_MASK))
    for level, options in _NETFILTER_OPTIONS.items():
        for option in options:
            refuse("setsockopt", exactly(1, level), exactly(2, option))
    with tempfile.TemporaryFile() as file:
        allow.export_bpf(file)
        file.seek(0)
        return file.read()
