"""Installing desktopd's packages into a folder, compiled, for the Python that is to run them.

By the standard library alone: the build of the desktop's image runs this file as it stands, with
the Python that the image has: ``installing.py FOLDER REQUIREMENTS``, a file of them, one a line.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

# xcffib has its declarations of C parsed at each import, by a parser of C written in Python: 30 ms
# of every start, and megabytes. They are parsed once, here; should that fail, it goes on as it was.
_PARSED_ONCE = """\
import sys

sys.path.insert(0, sys.argv[1])

import cffi, xcffib

original = sys.modules["xcffib.ffi"]
parsed = cffi.FFI()
parsed.set_source("xcffib.ffi", None)
parsed.cdef(original.CDEF)
parsed.emit_python_code(original.__file__)
"""


def install(target: Path, requirements: Sequence[str], *, pip: Sequence[str], python: str) -> None:
    """Install them into ``target`` by the command ``pip``, for ``python``.

    Raises:
        subprocess.CalledProcessError: pip failed; its output went to standard error.
    """
    subprocess.run(
        [*pip, "install", "--quiet", "--disable-pip-version-check", "--no-compile",
         "--root-user-action=ignore", "--target", str(target), *requirements],
        check=True, stdin=subprocess.DEVNULL, stdout=sys.stderr, timeout=900,
    )  # fmt: skip
    subprocess.run(
        [python, "-I", "-c", _PARSED_ONCE, str(target)],
        check=False, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=120,
    )  # fmt: skip
    compile_all(target, python=python)


def compile_all(folder: Path, *, python: str) -> None:
    """Bytecode beside the source: nobody who runs it may write it there.

    Raises:
        FileNotFoundError: there is no ``python``.
    """
    subprocess.run(
        [python, "-I", "-m", "compileall", "-q", "--invalidation-mode",
         "unchecked-hash", str(folder)],
        stdin=subprocess.DEVNULL, stdout=sys.stderr, timeout=300, check=False,
    )  # fmt: skip


def main() -> None:
    folder, requirements = sys.argv[1:]
    lines = Path(requirements).read_text().splitlines()
    install(Path(folder), lines, pip=[sys.executable, "-m", "pip"], python=sys.executable)


if __name__ == "__main__":
    main()
