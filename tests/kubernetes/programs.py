"""The programs of a cluster, each with a log of its own; they end with the tests' process."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import psutil

from tests.kubernetes.namespaces import END_WITH_ME

_ROOT = Path(__file__).parents[2]


@cache
def built() -> Path:
    """The folder of the programs that ``scripts/build-kubernetes`` has built."""
    folder = subprocess.run(
        [_ROOT / "scripts" / "build-kubernetes", "--where"],
        capture_output=True, text=True, check=True, timeout=30,
    ).stdout.strip()  # fmt: skip
    assert (Path(folder) / "complete").exists(), "run scripts/setup-kubernetes first"
    return Path(folder)


class Program:
    """One that can be started, stopped, killed, frozen, and started again."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        folder: Path,
        within: Callable[..., list[str]] | None = None,
    ) -> None:
        """``within`` makes it a command that runs in namespaces."""
        self.name = name
        self.log = folder / f"{name}.log"
        self._command = [str(word) for word in command]
        self._within = within
        self._folder = folder
        self._started: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        main = threading.main_thread()
        assert threading.current_thread() is main, "it would end with the thread that starts it"
        command = [*END_WITH_ME, *self._command]
        if self._within is not None:
            command = [*END_WITH_ME, *self._within(*self._command)]
        with self.log.open("ab") as log:
            self._started = subprocess.Popen(
                command,
                cwd=self._folder,
                env={"PATH": f"{built()}:{os.environ['PATH']}", "HOME": str(self._folder)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def process(self) -> psutil.Process:
        """Itself, not what it was started by."""
        assert self._started is not None, f"{self.name} is not started"
        process = psutil.Process(self._started.pid)
        if self._within is None:
            return process
        [inside] = process.children()
        return inside

    def assert_alive(self) -> None:
        assert self._started is not None
        code = self._started.poll()
        assert code is None, f"{self.name} ended with {code}:\n{self.last_words()}"

    def last_words(self) -> str:
        return self.log.read_bytes()[-3000:].decode(errors="replace")

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        if self._started is None:
            return
        if self._started.poll() is None:
            self.process.kill()
        self._started.wait(10)
        self._started = None
