"""Joining a running Ray as its driver, and leaving it.

``ray.init`` has habits that a server must undo: it takes SIGTERM for itself, reads its token from
the environment (which every later child would inherit), and, for a head on loopback, listens on
every address unless told otherwise before the first import of Ray.

When the head has been away for a minute Ray exits the process by itself. We tell it never to, so
that the controller lives on and says 503. The price: then ``ray.shutdown`` would wait for the head
for ever, and an interpreter that ends without it crashes; so such a process ends by ``os._exit``
with status 1, at the very end of its own cleaning up.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import warnings

from workspace.errors import Unavailable

HEAD_SECONDS = 2.0
_FOREVER_SECONDS = 10 * 365 * 24 * 3600
_joined: dict[str, str] = {}  # Ray has one connection per process: the address, while it lasts


def connect(address: str, token: str, namespace: str) -> None:
    """Join the Ray at ``address``; one per process at a time.

    Raises:
        Unavailable: it refuses us.
    """
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_gcs_rpc_server_reconnect_timeout_s"] = str(_FOREVER_SECONDS)
    if address.startswith(("127.0.0.1:", "localhost:")):
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    os.environ["RAY_AUTH_TOKEN"] = token
    in_main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    import ray
    import ray._raylet
    from ray._private import worker

    # Else a second connection of this process would send the first one's token.
    tokens = ray._raylet.AuthenticationTokenLoader  # type: ignore[attr-defined]  # not in the stub
    tokens.instance().reset_cache()
    sys.excepthook = worker.normal_excepthook  # Ray's asks the head first, which may abort us
    worker.listen_error_messages = _print_nothing  # type: ignore[assignment]  # takes anything
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ray.init(
                address=address,
                namespace=namespace,
                log_to_driver=False,
                configure_logging=False,
            )
        atexit.unregister(worker.shutdown)
        _joined["address"] = address
        atexit.register(_leave_at_exit)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise Unavailable(
            f"Ray at {address} cannot be joined: {error}", hint="Check its address and token."
        ) from error
    finally:
        del os.environ["RAY_AUTH_TOKEN"]
        if in_main:
            signal.signal(signal.SIGTERM, handler)


def _print_nothing(*_: object) -> None:
    """Instead of Ray's thread that prints to stdout whatever worker ended: stdout is not Ray's."""


def disconnect() -> None:
    """Leave Ray; detached actors live on. Without a head there is nothing to leave."""
    import ray

    address = _joined.pop("address", None)
    if address is None:
        return
    atexit.unregister(_leave_at_exit)
    if not is_served(address):
        atexit.register(_exit_hard)
        return
    in_main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    ray.shutdown()
    if in_main:
        signal.signal(signal.SIGTERM, handler)


def is_served(address: str) -> bool:
    """Whether anything listens at Ray's head."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), HEAD_SECONDS).close()
    except (OSError, ValueError):
        return False
    return True


def _leave_at_exit() -> None:
    """Instead of Ray's own hook, for a process that ends without :func:`disconnect`."""
    if is_served(_joined["address"]):
        disconnect()
    else:
        _exit_hard()


def _exit_hard() -> None:
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # whatever is wrong with it, we are leaving
            stream.flush()
    os._exit(1)
