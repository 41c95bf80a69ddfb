"""Which addresses a desktop may reach, whatever name stands for them.

Only what is public: of IPv6 that is what the internet has (2000::/3), without the forms that carry
an IPv4 address in them and lead there (6to4, Teredo, NAT64, mapped), which are refused rather than
taken apart. A node's own address is none, however public: what listens there trusts its neighbours.
An operator may name private networks that count as public; link-local addresses, where clouds keep
their machines' credentials, never do, and the node's own do only if named one by one.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_PUBLIC6 = ipaddress.IPv6Network("2000::/3")
_METADATA = frozenset(
    ipaddress.ip_address(address)
    for address in ("100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254")
)
_REFUSED = tuple(
    (ipaddress.ip_network(network), what)
    for network, what in (
        ("0.0.0.0/8", "this network"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "a carrier's own"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved"),
        ("192.0.2.0/24", "for documents"),
        ("192.88.99.0/24", "6to4"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "for benchmarks"),
        ("198.51.100.0/24", "for documents"),
        ("203.0.113.0/24", "for documents"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
        ("2001::/23", "reserved, or Teredo"),
        ("2001:db8::/32", "for documents"),
        ("2002::/16", "6to4"),
        ("3fff::/20", "for documents"),
    )
)


def networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """
    Raises:
        ValueError: one is no network.
    """
    return tuple(ipaddress.ip_network(text.strip()) for text in texts if text.strip())


def is_own(address: Address) -> bool:
    """Whether it is this machine's: then what is sent there leaves from there. Nothing is sent."""
    if address.is_loopback or address.is_unspecified:  # all of them, whatever they leave from
        return True
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect((str(address), 9))
        except OSError:
            return False
        return bool(sock.getsockname()[0] == str(address))


def why_refused(address: Address, private: Sequence[Network] = ()) -> str | None:
    """Why it may not be reached; None if it may. ``private``: networks that an operator permits."""
    meant = getattr(address, "ipv4_mapped", None) or address
    if meant.is_link_local or meant in _METADATA:
        return "link-local, or of the machine's own metadata"
    permitted = [network for network in private if address in network]
    if any(network.num_addresses == 1 for network in permitted):
        return None
    if permitted:
        return "this node's own" if is_own(meant) else None
    for network, what in _REFUSED:
        if address in network:
            return what
    if isinstance(address, ipaddress.IPv6Address) and address not in _PUBLIC6:
        return "not a public IPv6 address"
    if not address.is_global or address.is_multicast:
        return "not a public address"
    if is_own(address):
        return "this node's own"
    return None
