"""What a desktop is as a container, as tables; and the API with an engine that misbehaves."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from pydantic import ValidationError

from controller import containers
from controller.settings import Settings
from workspace import settings as environment
from workspace.backends import seccomp
from workspace.backends.containers import specs
from workspace.backends.containers.api import Away, Engine, log_text
from workspace.backends.containers.options import Options
from workspace.errors import InvalidRequest
from workspace.models import Template

TEMPLATE = Template(name="desktop", memory_mib=1024, cpus=1.5, pids=300, disk_mib=64)
DOCKER, PODMAN = specs.Engine(False, 0), specs.Engine(True, 0)
ROOTLESS = specs.Engine(True, 1001)


def wanted(**settings: str) -> specs.Wanted:
    places = {"folder": "/run/c/abc12345", "home": "/disk/abc12345/home"}
    return specs.Wanted("abc12345", TEMPLATE, "mine", **(places | settings))


def body(
    engine: specs.Engine = DOCKER, made: specs.Wanted | None = None, **options: object
) -> specs.Spec:
    given = Options.model_validate(options)
    return specs.create(made or wanted(), given, engine, most_files=20_000, most_tasks=-1)


def test_it_can_do_nothing_that_a_desktop_need_not() -> None:
    made = body()
    host = made["HostConfig"]
    assert made["User"] == "1000:1000"
    assert host["NetworkMode"] == "none"
    assert host["CapDrop"] == ["ALL"]
    assert not host["Privileged"]
    assert host["ReadonlyRootfs"]
    assert "no-new-privileges" in host["SecurityOpt"]
    assert host["RestartPolicy"] == {"Name": "no"}
    assert "PortBindings" not in host
    assert "Devices" not in host


def test_its_limits_are_the_templates() -> None:
    host = body()["HostConfig"]
    assert host["Memory"] == host["MemorySwap"] == 1024 << 20
    assert (host["CpuQuota"], host["CpuPeriod"]) == (150_000, 100_000)
    assert host["PidsLimit"] == 300
    assert host["ShmSize"] == 512 << 20
    limits = {each["Name"]: (each["Soft"], each["Hard"]) for each in host["Ulimits"]}
    assert limits == {
        "nofile": (8192, 20_000),
        "core": (0, 0),
        "fsize": (64 << 20, 64 << 20),
    }
    given = specs.create(wanted(), Options(), DOCKER, most_files=-1, most_tasks=500)
    limits = {each["Name"]: each["Hard"] for each in given["HostConfig"]["Ulimits"]}
    assert (limits["nofile"], limits["nproc"]) == (65_536, 500)


def test_only_its_home_can_be_written() -> None:
    mounts = {each["Target"]: each for each in body()["HostConfig"]["Mounts"]}
    assert [path for path, each in mounts.items() if not each.get("ReadOnly")] == ["/home/user"]
    assert mounts["/home/user"]["Source"] == "/disk/abc12345/home"
    assert mounts["/carrel/door"]["Source"] == "/run/c/abc12345/door"
    kept = {each["Target"]: each for each in body(made=wanted(home=""))["HostConfig"]["Mounts"]}
    assert kept["/home/user"] == {"Type": "volume", "Target": "/home/user"}


def test_no_secret_is_in_what_the_engine_keeps() -> None:
    assert "token" not in json.dumps(body())
    assert set(body()["Labels"]) == {"carrel.dev/sandbox", "carrel.dev/cluster",
                                     "carrel.dev/template"}  # fmt: skip


@pytest.mark.parametrize(
    ("engine", "setting", "expected"),
    [
        (DOCKER, "carrel", f"seccomp={json.dumps(seccomp.profile())}"),
        (PODMAN, "carrel", "seccomp=/run/c/abc12345/given/seccomp.json"),
        (PODMAN, "/etc/own.json", "seccomp=/etc/own.json"),
        (DOCKER, "unconfined", "seccomp=unconfined"),
        (DOCKER, "default", None),
    ],
)
def test_its_seccomp_profile(engine: specs.Engine, setting: str, expected: str | None) -> None:
    told = body(engine, seccomp=setting)["HostConfig"]["SecurityOpt"]
    assert [each for each in told if each.startswith("seccomp")] == ([expected] if expected else [])


def test_a_profile_from_a_file_goes_to_dockers_daemon_as_text(tmp_path: Path) -> None:
    (tmp_path / "own.json").write_text("{}")
    told = body(seccomp=str(tmp_path / "own.json"))["HostConfig"]["SecurityOpt"]
    assert "seccomp={}" in told
    with pytest.raises(OSError, match="nowhere"):
        body(seccomp=str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("engine", "uid", "owns"),
    [
        (DOCKER, 0, True),  # root gives the home to the desktop's user
        (DOCKER, 1000, True),  # who is that user
        (DOCKER, 1001, False),
        (specs.Engine(False, 1000), 1000, False),  # without root, Docker maps that user elsewhere
        (ROOTLESS, 1001, True),
    ],
)
def test_whose_the_home_can_be(engine: specs.Engine, uid: int, owns: bool) -> None:
    assert engine.owns(uid) is owns


def test_without_root_podman_keeps_the_user() -> None:
    assert body(ROOTLESS)["HostConfig"]["UsernsMode"] == "keep-id:uid=1000,gid=1000"
    assert "UsernsMode" not in body(PODMAN)["HostConfig"]
    assert body(runtime="runsc")["HostConfig"]["Runtime"] == "runsc"
    assert "Runtime" not in body()["HostConfig"]


def test_what_programs_are_to_trust_is_mounted_where_they_are_told_of_it() -> None:
    given = wanted(bundle="all")
    files = specs.files(given, Options())
    assert json.loads(files["given/policy/carrel.json"])["ProxySettings"]
    assert "given/trust/bundle.pem" not in files
    told = specs.environment(has_authority=True)
    assert told["SSL_CERT_FILE"] == "/etc/carrel/trust/bundle.pem"


def test_stats_of_either_cgroup_version() -> None:
    told = {
        "cpu_stats": {"cpu_usage": {"total_usage": 2_500_000_000}},
        "memory_stats": {"usage": 3 << 20, "stats": {"inactive_file": 1 << 20}},
        "pids_stats": {"current": 7},
    }
    assert specs.stats(told) == {"cpu_seconds": 2.5, "memory_mib": 2.0, "pids": 7}
    assert specs.stats({}) == {}


@pytest.mark.parametrize(
    "bad",
    [
        {"host": "tcp://10.0.0.1:2375"},
        {"host": "ssh://elsewhere"},
        {"image": ""},
        {"image": "two words"},
        {"seccomp": "maybe"},
        {"runtime": "run;sc"},
        {"shm_mib": 1},
        {"nonsense": "1"},
    ],
)
def test_refuses_settings_that_it_cannot_use(bad: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Options.model_validate(bad)


def test_the_settings_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("DOCKER_HOST", "CARREL_DOCKER_IMAGE", "CARREL_DOCKER_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    settings = Settings(home=tmp_path)
    assert containers.settings_of(settings) is None
    made = containers.settings_of(settings.model_copy(update={"backend": "docker"}))
    assert made is not None
    assert made["options"]["image"] == "carrel-desktop:ubuntu-full"
    assert made["run_dir"].endswith("/docker")
    monkeypatch.setenv("CARREL_DOCKER_IMAGE", "other")
    monkeypatch.setenv("CARREL_DOCKER_RUNTIME", "runsc")
    monkeypatch.setenv("DOCKER_HOST", "unix:///elsewhere.sock")
    made = containers.settings_of(settings)
    assert made is not None
    assert (made["options"]["host"], made["options"]["runtime"]) == (
        "unix:///elsewhere.sock",
        "runsc",
    )
    monkeypatch.setenv("DOCKER_HOST", "tcp://elsewhere:2375")
    with pytest.raises(InvalidRequest, match="CARREL_DOCKER_HOST"):
        containers.settings_of(settings)


def test_podmans_own_socket_is_found(monkeypatch: pytest.MonkeyPatch, short_dir: Path) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_dir))
    (short_dir / "podman").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(short_dir / "podman/podman.sock"))
        found = environment.docker_host()
    assert found in (f"unix://{short_dir}/podman/podman.sock", "unix:///run/docker.sock")


class Saying:
    """An engine that says the same to whoever connects."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.said = b""
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            with peer:
                peer.settimeout(0.2)
                with suppress(TimeoutError):  # all of a request, which may come in two pieces
                    while peer.recv(65536):
                        pass
                peer.sendall(self.said)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def saying(short_dir: Path) -> Iterator[Saying]:
    engine = Saying(short_dir / "e.sock")
    yield engine
    engine.close()


def _http(status: str, text: str) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode()


@pytest.mark.parametrize(
    ("said", "status", "message"),
    [
        (_http("500 No", '{"message": "it broke"}'), 500, "it broke"),
        (_http("404 No", "Not Found\n"), 404, "Not Found"),
        (_http("200 Yes", "{" + "[" * 100_000), 200, None),
        (_http("204 Yes", ""), 204, "status 204"),
    ],
)
def test_what_an_engine_answers(
    saying: Saying, said: bytes, status: int, message: str | None
) -> None:
    saying.said = said
    answer = Engine(str(saying.path)).ask("GET", "/x", {"a": 1}, query={"b": "c d"})
    assert answer.status == status
    assert message is None or answer.message == message


@pytest.mark.parametrize("said", [b"", b"nonsense\r\n\r\n"])
def test_an_engine_that_does_not_speak_is_away(saying: Saying, said: bytes) -> None:
    saying.said = said
    with pytest.raises(Away):
        Engine(str(saying.path)).ask("GET", "/x", seconds=2)


def test_there_may_be_no_engine(tmp_path: Path) -> None:
    with pytest.raises(Away, match="No such file"):
        Engine(str(tmp_path / "nothing")).ask("GET", "/x")


def test_a_log_is_read_with_its_frames_and_without() -> None:
    assert log_text(b"\x01\0\0\0\0\0\0\x03one\x02\0\0\0\0\0\0\x04 two") == "one two"
    assert log_text(b"plain\n") == "plain\n"
    assert log_text(b"\x01\0\0\0\xff\xff\xff\xffcut") == "cut"
