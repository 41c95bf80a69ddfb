"""How the proxy comes to listen inside a sandbox: on a socket that was made there and handed out.

A socket stays in the network that it was made in. Before anything else runs in a sandbox, its
daemon listens on ``PROXY_PORT`` of loopback there and sends that socket out, once, over one that it
inherited; nothing in the sandbox keeps an end of either. So programs inside connect to loopback,
and each connection is accepted outside, with nothing in between that would relay its bytes.
"""

from __future__ import annotations

import base64
import socket
import ssl

from workspace.egress import PROXY_PORT

BUNDLE = "/etc/ssl/certs/ca-certificates.crt"  # of what the node trusts, and the desktop's own
CERTIFICATE = "/etc/ssl/carrel.pem"  # the desktop's own authority alone
SERVER = f"127.0.0.1:{PROXY_PORT}"
_NOT_PROXIED = "localhost,127.0.0.1,::1"
_SO_DOMAIN, _SO_ACCEPTCONN = 39, 30  # asm-generic/socket.h


def received(sock: socket.socket) -> socket.socket | None:
    """The listening socket that has come; None if none has, or something else."""
    try:
        _, fds, _, _ = socket.recv_fds(sock, 1, 1)
    except BlockingIOError:
        return None
    if not fds:
        return None
    listener = socket.socket(fileno=fds[0])
    if (
        listener.getsockopt(socket.SOL_SOCKET, _SO_DOMAIN) == socket.AF_INET
        and listener.type == socket.SOCK_STREAM
        and listener.getsockopt(socket.SOL_SOCKET, _SO_ACCEPTCONN)
    ):
        return listener
    listener.close()
    return None


def browser_policy(certificate: str, *, at: str = SERVER) -> dict[str, object]:
    """What Chromium and Chrome are managed by of it: the proxy, and the authority, in PEM."""
    server = {
        "ProxyMode": "fixed_servers",
        "ProxyServer": at,
        "ProxyBypassList": _NOT_PROXIED.replace(",", ";").replace("::1", "[::1]"),
    }
    policy: dict[str, object] = {"ProxySettings": server}
    if certificate:
        der = ssl.PEM_cert_to_DER_cert(certificate)
        policy["CACertificates"] = [base64.b64encode(der).decode()]
    return policy


def environment(
    *,
    has_authority: bool,
    at: str = SERVER,
    bundle: str = BUNDLE,
    certificate: str = CERTIFICATE,
) -> dict[str, str]:
    """What programs in a desktop are told, so that they go through the proxy and trust it.

    A pod's proxy is ``at`` another address, and its certificates are files of other names.
    """
    # Not socks5h, though it is served: some clients do not start with a proxy they do not know.
    url = f"http://{at}"
    told = {name: url for name in ("http_proxy", "https_proxy", "all_proxy")}
    told["no_proxy"] = _NOT_PROXIED
    told |= {name.upper(): value for name, value in told.items()}
    told["NODE_USE_ENV_PROXY"] = "1"
    if has_authority:
        told |= {
            "SSL_CERT_FILE": bundle,
            "REQUESTS_CA_BUNDLE": bundle,
            "NODE_EXTRA_CA_CERTS": certificate,
        }
    return told
