"""Ray on this machine: started by Carrel as processes of its own, found again, and ended.

One run folder has at most one Ray, with ports, token and folders of its own, so that several
``CARREL_HOME`` coexist. Its parent is the keeper (keeper.py), which also says when it ends. A
driver's death never takes it along, and a Ray that was not started here is never touched.

Whoever calls :meth:`LocalRay.start_or_find` should hold ``controller.lock`` in the run folder (by
``flock``) before, and as long as it needs Ray: that lock is how the keeper knows.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

from ray_cluster import capacity, joining
from ray_cluster.keeper import END_SECONDS, START_SECONDS, RunDir
from ray_cluster.node import machine
from workspace import locks
from workspace.errors import Unavailable
from workspace.folders import private_folder

STOP_SECONDS = END_SECONDS + 1.5
# Below the run folder Ray makes ray/session_<time>_<pid>/sockets/plasma_store: 68 bytes.
MAX_RUN_DIR_BYTES = 107 - 70
# How many times the memory of a machine is given to its desktops, whose limits are seldom met: one
# at rest uses less than a third of what it may. Where each is a pod, all of it is its own.
OVERCOMMIT = 3.0


class LocalRay:
    """The Ray of one run folder. Its methods block; call them in a thread."""

    def __init__(
        self,
        run_dir: Path,
        *,
        desktops: int | None = None,
        overcommit: float | None = None,
    ) -> None:
        self._dir = RunDir(run_dir)
        self._offers = capacity.of(
            machine(), desktops=desktops, overcommit=overcommit or OVERCOMMIT
        )

    def start_or_find(self) -> tuple[str, str]:
        """Address and token of the Ray of this folder, started if there is none.

        Raises:
            Unavailable: it did not start; the message has Ray's own last words.
        """
        deadline = time.monotonic() + START_SECONDS + STOP_SECONDS
        while time.monotonic() < deadline:
            self._make_dir()
            if (lock := self._try_lock()) is not None:
                try:
                    self._spawn_keeper(lock)
                finally:
                    os.close(lock)
            if (found := self._read()) is not None:
                return found
            time.sleep(0.02)  # another one starts it, or it is just ending
        raise Unavailable(
            f"The Ray of {self._dir.path} neither serves nor ends.",
            hint=f"Look at {self._dir.log}; end the process named in {self._dir.keeper_lock}.",
        )

    def stop(self) -> None:
        """End Ray and all that runs in it, and remove its files. None there is success.

        Raises:
            Unavailable: its keeper did not end in time.
        """
        deadline = time.monotonic() + STOP_SECONDS
        told = False
        while self.is_kept():
            if time.monotonic() > deadline:
                raise Unavailable(f"Ray's keeper did not end within {STOP_SECONDS:.0f} s.")
            told = told or self._tell_keeper()
            time.sleep(0.02)

    def is_kept(self) -> bool:
        """Whether a keeper lives here.

        Asked by taking its lock for a moment: the kernel's table of locks does not show, inside a
        container, one whose first holder (the controller) has died.
        """
        if (lock := self._try_lock()) is None:
            return self._dir.keeper_lock.exists()  # else its folder went with it
        self._dir.keeper_lock.unlink(missing_ok=True)
        os.close(lock)
        return False

    def serves(self, address: str) -> bool:
        """Whether the Ray that was found at ``address`` is still there."""
        found = self._read()
        return found is not None and found[0] == address and self.is_kept()

    def _tell_keeper(self) -> bool:
        try:
            handle = os.pidfd_open(int(self._dir.keeper_lock.read_text()))
        except (OSError, ValueError):
            return False  # it has not written its id yet, or was killed and its other half ends
        try:
            # Looked at once more after the handle was opened: so the id is the keeper's.
            if self.is_kept():
                signal.pidfd_send_signal(handle, signal.SIGTERM)
        except ProcessLookupError:
            return False
        finally:
            os.close(handle)
        return True

    def _make_dir(self) -> None:
        path = self._dir.path
        if len(os.fsencode(path)) > MAX_RUN_DIR_BYTES:
            raise Unavailable(
                f"The run folder's path {path} is too long for unix sockets in it.",
                hint=f"Name one of at most {MAX_RUN_DIR_BYTES} bytes.",
            )
        private_folder(path)

    def _try_lock(self) -> int | None:
        """``keeper.lock``, locked; None when a keeper has it."""
        try:
            return locks.take(self._dir.keeper_lock)
        except FileNotFoundError:
            return None  # a keeper that ended took the folder along

    def _read(self) -> tuple[str, str] | None:
        try:
            state = json.loads(self._dir.state.read_text())
            return str(state["address"]), self._dir.token.read_text()
        except FileNotFoundError:
            return None

    def _spawn_keeper(self, lock: int) -> None:
        self._dir.clear()  # of a keeper that was killed
        token = os.open(self._dir.token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(token, "w") as file:
            file.write(secrets.token_hex(32))
        read, write = os.pipe()
        try:
            # It forks and ends at once: the keeper proper is nobody's child.
            subprocess.run(
                [
                    sys.executable,
                    "-I",
                    str(Path(__file__).with_name("keeper.py")),
                    f"--run-dir={self._dir.path}",
                    f"--lock-fd={lock}",
                    f"--ready-fd={write}",
                    "--",
                    *self._ray_command(),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(lock, write),
                env=self._environment(),
                cwd="/",
                check=True,
                timeout=START_SECONDS,
            )
            os.close(write)
            write = -1
            with os.fdopen(read, closefd=False) as answer:
                said = json.loads(answer.readline() or '{"error": "Ray\'s keeper was ended."}')
        finally:
            os.close(read)
            if write >= 0:
                os.close(write)
        if "error" in said:
            raise Unavailable(str(said["error"]), hint="Mend what Ray names, then start again.")

    def _ray_command(self) -> list[str]:
        return [
            *joining.RAY_START,
            "--head",
            "--block",
            "--port=0",
            f"--temp-dir={self._dir.temp}",
            "--num-cpus=0",
            "--resources=" + json.dumps(self._offers),
            f"--object-store-memory={joining.OBJECT_STORE_BYTES}",
            "--include-dashboard=false",
            "--include-log-monitor=false",
            "--no-monitor",
            "--disable-usage-stats",
        ]

    def _environment(self) -> dict[str, str]:
        """Ray's whole environment: nothing of ours but how to find programs and modules."""
        kept = ("PATH", "HOME", "LANG", "PYTHONPATH")
        return {
            **{name: os.environ[name] for name in kept if name in os.environ},
            **joining.EVERYWHERE,
            **joining.PATIENT,
            "RAY_AUTH_TOKEN_PATH": str(self._dir.token),
            # The one switch that makes all of Ray listen on 127.0.0.1 only.
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        }
