"""Workers of Ray that are forked from one that has everything loaded, instead of started anew.

Every desktop's actor is a worker of its own, and most of a worker's start is Python importing Ray
and us: half a second of a processor and 40 MB, a hundred times over for a hundred desktops. So a
node's Ray is started by this program (``forkserver.py start ...`` is ``ray start ...``), which has
the raylet start its workers by it too. Such a worker asks a fork server to fork in its place, gives
it its arguments, environment and files, and is gone. The first one starts that server on the way.

There is one for each job (a controller, to Ray), as Ray's library reads the job of its process
while it is loaded. It ends with its raylet, or when it has had no child for a while.

Nothing depends on it: where it does not answer, a worker starts as Ray's own do. It forks while it
has a single thread, and is not there otherwise.
"""

from __future__ import annotations

import sys

if __name__ == "__main__" and not getattr(sys.flags, "safe_path", False):
    del sys.path[0]  # this folder, whose modules are no others' by a short name

import fcntl
import gc
import importlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import time
from contextlib import ExitStack, closing, suppress
from functools import partialmethod
from importlib.util import find_spec
from types import CodeType, ModuleType
from typing import Any, NoReturn

TITLE = "ray::forkserver"
IDLE_SECONDS = 60.0
_RAYLET = "--raylet-name="  # its socket's path
# What a desktop's actor has loaded when it is ready.
_LOADED = (
    *("ray", "ray.actor", "ray.remote_function", "ray._private.node", "ray._private.parameter"),
    *("ray_cluster.actors", "workspace.backends.bubblewrap", "workspace.backends.docker"),
    *("workspace.backends.kata", "workspace.backends.fake"),
)
_ANSWER_SECONDS = 30.0
_ASK_SECONDS = 2.0  # in which who has connected says what it wants: it is at it
_ORPHAN_SECONDS = 10.0  # in which workers end that have lost their raylet
_MOST_STARTS = 3  # in a row: a server that does not come up only costs
_MESSAGE_BYTES = 1 << 18


def start() -> NoReturn:
    """``ray start``, of a node whose workers are forked."""
    # Of what Ray can be told that is none of its command line's.
    params: Any = importlib.import_module("ray._private.parameter").RayParams
    params.__init__ = partialmethod(params.__init__, worker_path=os.path.abspath(__file__))
    sys.argv[0] = "ray"
    _title("ray start")
    sys.exit(importlib.import_module("ray.scripts.scripts").main())


def work() -> None:
    """Be a worker, or have one forked."""
    with suppress(OSError, StopIteration):
        if _is_forked(_server_of(sys.argv)):
            return
    _become(_compiled())


def _server_of(arguments: list[str]) -> str:
    """Where the fork server listens that is a worker's with these arguments.

    Raises:
        StopIteration: they are none of a worker's.
    """
    raylet = next(word[len(_RAYLET) :] for word in arguments if word.startswith(_RAYLET))
    folder, name = os.path.split(raylet)
    # No longer than `plasma_store` beside it, as the paths of sockets are short.
    return os.path.join(
        folder, f"fork{os.environ.get('RAY_JOB_ID', '')}{os.path.splitext(name)[1]}"
    )


def _become(worker: CodeType) -> None:
    """What Python does with a program: it is ``__main__`` here."""
    sys.argv[0] = worker.co_filename
    module = ModuleType("__main__")
    module.__file__ = worker.co_filename
    sys.modules["__main__"] = module
    exec(worker, module.__dict__)


def _compiled() -> CodeType:
    """Ray's own worker."""
    spec = find_spec("ray")
    assert spec is not None
    assert spec.origin is not None
    folder = os.path.dirname(spec.origin)
    path = os.path.join(folder, "_private", "workers", "default_worker.py")
    with open(path) as file:
        return compile(file.read(), path, "exec")


def _title(text: str) -> None:
    """What ``ps`` is to show."""
    importlib.import_module("ray._raylet").setproctitle(text)


def _is_forked(path: str) -> bool:
    """Whether another process is the worker that this one was to be.

    Raises:
        OSError: there is no fork server, or it does not answer.
    """
    with closing(_ask_for(path)) as server:
        server.settimeout(_ANSWER_SECONDS)
        wish = json.dumps([sys.argv, dict(os.environ)]).encode()
        socket.send_fds(server, [wish], [0, 1, 2])
        # The other one has been forked, and waits for this: never are both the same worker.
        return server.recv(1) == b"?" and server.send(b"!") == 1


def _ask_for(path: str) -> socket.socket:
    try:
        return _connect(path)
    except OSError:
        pass  # this is the first one, or it has ended
    # Ray's folders may be anybody's to write in.
    flags = os.O_CREAT | os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    lock = os.open(f"{path}.starts", flags, 0o600)
    try:
        if os.fstat(lock).st_uid != os.geteuid():
            raise OSError("this is somebody else's")
        fcntl.flock(lock, fcntl.LOCK_EX)
        with suppress(OSError):
            return _connect(path)  # another one was faster
        if os.fstat(lock).st_size >= _MOST_STARTS:
            raise OSError("there is no fork server")
        os.write(lock, b".")  # a byte for each start of one that did not come up
        _begin(path, lock)
        return _connect(path)
    finally:
        os.close(lock)


def _connect(path: str) -> socket.socket:
    server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    server.settimeout(_ANSWER_SECONDS)
    try:
        server.connect(path)
        peer = server.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        if struct.unpack("3i", peer)[1] != os.geteuid():
            raise OSError("another user listens there")
    except OSError:
        server.close()
        raise
    return server


def _begin(path: str, starts: int) -> None:
    """Start the server. Its socket is there before it is: who comes first waits for it.

    Raises:
        OSError: it cannot be made; or the raylet has gone, with which it was to end.
    """
    with ExitStack() as stack:
        raylet = os.pidfd_open(os.getppid())
        stack.callback(os.close, raylet)
        if os.environ.get("RAY_RAYLET_PID") != str(os.getppid()):
            raise OSError("the raylet has gone")
        with suppress(FileNotFoundError):
            os.unlink(path)
        listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        mask = os.umask(0o177)
        try:
            listener.bind(path)
        finally:
            os.umask(mask)
        listener.listen(128)
        files = (starts, listener.fileno(), raylet)
        flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
        subprocess.Popen(
            [sys.executable, *flags, __file__, "serve", *map(str, files)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=files,
            start_new_session=True,
        )


def serve(starts: int, listener: socket.socket, raylet: int) -> CodeType:
    """Fork for whoever asks. What returns is a fork, to be that worker."""
    gc.disable()  # nothing that is to be shared is moved, or marked, afterwards
    for name in _LOADED:
        importlib.import_module(name)
    worker = _compiled()
    gc.collect()
    gc.freeze()
    if len(os.listdir("/proc/self/task")) > 1:  # what they hold would be held for ever
        raise RuntimeError("something that a worker loads has begun a thread")
    _title(TITLE)
    os.truncate(starts, 0)
    os.close(starts)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    asked = select.poll()
    asked.register(listener, select.POLLIN)
    asked.register(raylet, select.POLLIN)
    while True:
        ready = dict(asked.poll(IDLE_SECONDS * 1000))
        if raylet in ready:
            _end_children()
        if raylet in ready or (not ready and not _has_children()):
            os._exit(0)
        if not ready:
            continue
        client, _ = listener.accept()
        files: list[int] = []
        with client, suppress(OSError):  # who asks then starts as it would without us
            client.settimeout(_ASK_SECONDS)
            wish, files, _, _ = socket.recv_fds(client, _MESSAGE_BYTES, 3)
            if wish and os.fork() == 0:
                listener.close()
                os.close(raylet)
                _take_over(client, json.loads(wish), files)
                return worker
        for file in files:
            os.close(file)


def _has_children() -> bool:
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return False
    return True


def _end_children() -> None:
    """What has lost its raylet ends by itself, unless it hangs."""
    until = time.monotonic() + _ORPHAN_SECONDS
    while _has_children() and time.monotonic() < until:
        time.sleep(0.1)
    with suppress(OSError), open("/proc/thread-self/children") as children:
        for child in children.read().split():
            with suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGKILL)


def _take_over(client: socket.socket, wish: list[Any], files: list[int]) -> None:  # Any: JSON
    """Be in every respect the process that asks, which ends now, if it still waits."""
    try:
        client.settimeout(_ANSWER_SECONDS)
        if client.send(b"?") != 1 or client.recv(1) != b"!":
            os._exit(1)
        client.close()
    except OSError:
        os._exit(1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setpgid(0, 0)  # whoever ends it ends it alone
    for standard, file in enumerate(files):
        os.dup2(file, standard)
        os.close(file)
    sys.argv, environment = wish
    os.environ.clear()
    os.environ.update(environment)
    gc.enable()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["start", *_]:
            start()
        case ["serve", starts, listener, raylet]:
            _become(serve(int(starts), socket.socket(fileno=int(listener)), int(raylet)))
        case _:
            work()
