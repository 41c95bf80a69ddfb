"""``make test``: every test, in two lanes at once where that changes nothing for them.

Most of the tests' time is waiting: for a desktop to start, for a deadline, for what must not come;
one after the other they leave two processors idle for two thirds of it. But many look at the whole
machine, for what was left behind (`tests.leaks`). So each lane has a machine of its own as far as
its tests can see: processes, mounts, control groups, /tmp and Carrel's folders. The second has a
network of its own too, which leads nowhere: what needs the outside is in the first.

That takes root, and control groups of version 1 to hand out. Without them the same tests run one
after the other.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests import again
from tests.again import PYTEST, ROOT
from workspace.backends import cgroups, runtime

# The first lane's; the second has all others.
FIRST = ("tests/e2e", "tests/images", "tests/ray_cluster", "tests/workspace/backends")
KEPT = ("runtime", "ide")  # what set-up made in Carrel's folder

# With the lane's groups as arguments: it and all that it starts are in them.
ENTER = """
set -eu
while [ "$1" != -- ]; do echo $$ >"$1/cgroup.procs"; shift; done
shift; exec unshare --mount --pid --cgroup --fork --kill-child "$@"
"""
# The first process of the lane's namespaces, which ends what is left by ending. As any shell it
# waits for the children of those that ended before them.
INSIDE = """
set -eu
tmp=$1 library=$2 place=$3 kept=$4; shift 4
mount --make-rprivate /
mount -t proc proc /proc
while [ "$1" != -- ]; do
  umount -l "$2"
  case $1 in
    unified) mount -t cgroup2 cgroup2 "$2" ;;
    name=*) mount -t cgroup -o "none,$1" cgroup "$2" ;;
    *) mount -t cgroup -o "$1" cgroup "$2" ;;
  esac
  shift 2
done
shift
for each in $kept; do mount --bind "$place/$each" "$library/$each"; done
mount --rbind "$library" "$place"
mount -t tmpfs -o mode=711 tmpfs /run/carrel
mount --bind "$tmp" /tmp
code=0; "$@" || code=$?
exit $code
"""
# A network of its own begins with its loopback down; what follows is the command to become.
LOOPBACK = """
import fcntl, os, socket, struct, sys
with socket.socket() as one:
    fcntl.ioctl(one, 0x8914, struct.pack("16sh14x", b"lo", 0x41))  # SIOCSIFFLAGS: up, running
os.execv(sys.argv[1], sys.argv[1:])
"""


def hierarchies() -> dict[str, tuple[str, str]]:
    """Options -> (its mount point, our own folder), of each hierarchy; "unified" for the second's.

    Raises:
        OSError: there is none of version 1.
    """
    found = cgroups.own_folders(
        Path("/proc/self/cgroup").read_text(), Path("/proc/self/mountinfo").read_text()
    )
    if not {"memory", "pids"} <= found.keys():
        raise OSError("there are no control groups of version 1")
    options: dict[tuple[str, str], list[str]] = {}
    for option, place in found.items():
        options.setdefault(place, []).append(option)
    return {",".join(names): place for place, names in options.items()}


@contextmanager
def groups(name: str) -> Iterator[list[str]]:
    """A control group in each hierarchy; they are gone afterwards, with those below them.

    Raises:
        OSError: they cannot be made here.
    """
    made: list[Path] = []
    try:
        for options, (_, own) in hierarchies().items():
            group = Path(own, name)
            group.mkdir()
            made.append(group)
            if "cpuset" in options.split(","):  # a new one has no processor, so nobody can enter
                for file in ("cpuset.cpus", "cpuset.mems"):
                    (group / file).write_text(Path(own, file).read_text())
        yield [str(group) for group in made]
    finally:
        for group in made:
            for folder, _, _ in os.walk(group, topdown=False):
                with contextlib.suppress(OSError):  # something runs in it: never hidden by us
                    Path(folder).rmdir()


@contextmanager
def lane(name: str, *namespaces: str) -> Iterator[list[str]]:
    """What a command is to be prefixed by to run in a lane.

    Raises:
        OSError, subprocess.CalledProcessError: there can be none on this machine.
    """
    if os.geteuid() != 0:
        raise OSError("lanes take root")
    place = runtime.default_dir().parent
    Path("/run/carrel").mkdir(mode=0o711, exist_ok=True)
    with ExitStack() as stack:
        entered = stack.enter_context(groups(f"{name}-{os.getpid()}"))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lane-")))
        beside = tempfile.TemporaryDirectory(prefix="lane-", dir=place.parent)
        library = Path(stack.enter_context(beside))  # where volumes lie on the same disk as ever
        library.chmod(0o755)
        kept = [each for each in KEPT if (place / each).is_dir()]
        for each in kept:
            (library / each).mkdir()
        folder.chmod(0o755)
        (folder / "tmp").mkdir()
        (folder / "tmp").chmod(0o1777)
        mounted = [word for key, (point, _) in hierarchies().items() for word in (key, point)]
        command = ["bash", "-c", ENTER, "enter", *entered, "--", *namespaces, "bash", "-c"]
        command += [INSIDE, "inside", str(folder / "tmp"), str(library), str(place)]
        command += [" ".join(kept), *mounted, "--"]
        subprocess.run([*command, "true"], check=True, capture_output=True, timeout=60)
        yield command


def run(lanes: Sequence[Sequence[str]], given: Sequence[str]) -> int:
    """Both at once; what the first says is seen as it comes, what the second said at the end.

    Tests that failed have to pass without the others: see `tests.again`.
    """
    first, second = lanes
    pytest = [*PYTEST, *given]
    others = [f"--ignore={each}" for each in FIRST]
    commands = [
        [*first, *pytest, *again.told("lane-1"), *FIRST],
        [*second, sys.executable, "-c", LOOPBACK, *pytest, *again.told("lane-2"), *others, "tests"],
    ]
    with tempfile.TemporaryFile() as said:
        running = [
            subprocess.Popen(commands[0], cwd=ROOT),
            subprocess.Popen(commands[1], cwd=ROOT, stdout=said, stderr=subprocess.STDOUT),
        ]
        try:
            codes = [each.wait() for each in running]
        finally:
            for each in running:
                each.kill()  # all that runs in its lane ends with it
                each.wait()
            said.seek(0)
            print("\nThe second lane:", flush=True)
            shutil.copyfileobj(said, sys.stdout.buffer)
            sys.stdout.flush()
    return max(
        again.counts(code, command, f"lane-{number}")
        for number, (code, command) in enumerate(zip(codes, commands, strict=True), start=1)
    )


def main() -> int:
    given = sys.argv[1:]
    with ExitStack() as stack:
        try:
            lanes = [
                stack.enter_context(lane("lane-1")),
                stack.enter_context(lane("lane-2", "--net")),
            ]
        except (OSError, subprocess.SubprocessError) as error:
            print(f"The tests run one after the other: {error}", file=sys.stderr)
        else:
            return run(lanes, given)
    return subprocess.run(
        [sys.executable, "-m", "pytest", *given], cwd=ROOT, check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
