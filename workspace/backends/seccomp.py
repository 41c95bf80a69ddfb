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
from collections.abc import Iterator
from typing import NamedTuple

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


EQUALS, GREATER = "MASKED_EQ", "GT"


class Condition(NamedTuple):
    """On an argument: ``argument & mask == value``, or ``argument > value``."""

    argument: int
    kind: str
    value: int
    mask: int = _INT


class Rule(NamedTuple):
    """A system call that is answered by an error if all conditions are met."""

    name: str
    error: int
    conditions: tuple[Condition, ...] = ()


def rules() -> Iterator[Rule]:
    """All that is refused."""

    def exactly(index: int, value: int, mask: int = _INT) -> Condition:
        return Condition(index, EQUALS, value, mask)

    yield from (Rule(name, errno.EPERM) for name in REFUSED)
    yield from (Rule(name, errno.ENOSYS) for name in MISSING)
    for request in TERMINAL_INJECTIONS:
        yield Rule("ioctl", errno.EPERM, (exactly(1, request),))
    for family in set(range(_AF_NETLINK)) - _FAMILIES:
        yield Rule("socket", errno.EAFNOSUPPORT, (exactly(0, family),))
    yield Rule("socket", errno.EAFNOSUPPORT, (Condition(0, GREATER, _AF_NETLINK),))
    for protocol in set(range(32)) - _NETLINK_PROTOCOLS:
        yield Rule("socket", errno.EPERM, (exactly(0, _AF_NETLINK), exactly(2, protocol)))
    for family in (_AF_INET, _AF_INET6):
        is_raw = (exactly(0, family), exactly(1, _SOCK_RAW, _SOCK_TYPE_MASK))
        yield Rule("socket", errno.EPERM, is_raw)
    for level, options in _NETFILTER_OPTIONS.items():
        for option in options:
            yield Rule("setsockopt", errno.EPERM, (exactly(1, level), exactly(2, option)))


def program() -> bytes:
    """The filter as the kernel takes it (``struct sock_filter[]``).

    Raises:
        OSError: libseccomp cannot make it.
        RuntimeError: libseccomp is not there.
    """
    import pyseccomp as s  # type: ignore[import-untyped]  # it ships no types

    allow = s.SyscallFilter(s.ALLOW)
    allow.set_attr(s.Attr.ACT_BADARCH, s.ERRNO(errno.ENOSYS))
    for rule in rules():
        if s.resolve_syscall(s.Arch.NATIVE, rule.name) == -1:
            continue  # this architecture has no such call
        conditions = [
            s.Arg(each.argument, s.MASKED_EQ, each.mask, each.value)
            if each.kind == EQUALS
            else s.Arg(each.argument, s.GT, each.value)
            for each in rule.conditions
        ]
        allow.add_rule(s.ERRNO(rule.error), rule.name, *conditions)
    with tempfile.TemporaryFile() as file:
        allow.export_bpf(file)
        file.seek(0)
        return file.read()


def profile() -> dict[str, object]:
    """The same for a container runtime (OCI's ``linux.seccomp``), as kubelets and Docker read it.

    For a runtime that is no virtual machine: its own default forbids user namespaces.
    """
    calls: list[dict[str, object]] = []
    for rule in rules():
        conditions: list[dict[str, object]] = []
        for each in rule.conditions:
            values = (each.mask, each.value) if each.kind == EQUALS else (each.value, 0)
            conditions.append(
                {
                    "index": each.argument,
                    "value": values[0],
                    "valueTwo": values[1],
                    "op": f"SCMP_CMP_{each.kind}",
                }
            )
        calls.append(
            {
                "names": [rule.name],
                "action": "SCMP_ACT_ERRNO",
                "errnoRet": rule.error,
                "args": conditions,
            }
        )
    return {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
        "syscalls": calls,
    }
