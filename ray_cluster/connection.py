"""Joining a running Ray as its driver, and leaving it.

``ray.init`` has habits that a server must undo: it takes SIGTERM for itself, reads its token from
the environment (which every later child would inherit), lets the process exit once the head has
been away for a minute, and, for a head on loopback, listens on every address unless told otherwise
before the first import of Ray.
"""

from __future__ import annotations

import os
import signal
import threading
import warnings

from workspace.errors import Unavailable

# Ray's default is 60 s, and then it exits the process; the controller says 503 and lives on.
_FOREVER_SECONDS = 10 * 365 * 24 * 3600


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
    try:
        import ray
        from ray._raylet import AuthenticationTokenLoader

        AuthenticationTokenLoader.instance().reset_cache()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ray.init(
                address=address,
                namespace=namespace,
                log_to_driver=False,
                configure_logging=False,
            )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise Unavailable(
            f"Ray at {address} cannot be joined: {error}", hint="Check its address and token."
        ) from error
    finally:
        del os.environ["RAY_AUTH_TOKEN"]
        if in_main:
            signal.signal(signal.SIGTERM, handler)


def disconnect() -> None:
    """Leave Ray; detached actors live on."""
    import ray

    in_main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    ray.shutdown()
    if in_main:
        signal.signal(signal.SIGTERM, handler)
