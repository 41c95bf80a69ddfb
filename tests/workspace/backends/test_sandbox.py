from __future__ import annotations

import json
from pathlib import Path

import pytest

from workspace import backends
from workspace.backends import sandbox
from workspace.errors import InvalidRequest
from workspace.proxy.certificates import Authority

HOST = sandbox.Host(
    links={"/bin": "usr/bin", "/lib64": "usr/lib64"},
    folders=("/lib",),
    opt=("/opt/google",),
    chromium=("default-flags",),
    bwrap_version=(0, 8, 0),
)


def arguments(host: sandbox.Host = HOST) -> tuple[list[str], list[str]]:
    argv, data = sandbox.command_line(
        host,
        home=Path("/var/lib/carrel/disk/abcdefgh/home"),
        source=Path("/r/src"),
        dependencies=Path("/r/deps"),
        memory_mib=1024,
        machine_id="0" * 32,
    )
    assert argv[:4] == ["/usr/bin/bwrap", "--args", "15", "--"]
    return data[0].split("\0"), data


def test_the_arguments_close_what_must_be_closed() -> None:
    given, _ = arguments()
    text = " ".join(given)
    for must in (
        "--unshare-all --unshare-user",  # the first alone would go on without
        "--uid 1000 --gid 1000",
        "--die-with-parent --new-session",
        "--clearenv --cap-drop ALL",
        "--ro-bind /usr /usr",
        "--remount-ro /",
        "--seccomp 13",
    ):
        assert must in text
    assert "--share-net" not in given
    writable = [given[i + 2] for i, word in enumerate(given) if word == "--bind"]
    assert writable == ["/home/user"]
    assert not {"--dev-bind", "--cap-add"} & set(given)


def test_only_named_files_of_etc_are_bound_and_none_with_secrets() -> None:
    given, _ = arguments()
    bound = {given[i + 1] for i, word in enumerate(given) if word.startswith("--ro-bind")}
    secret = (
        "shadow",
        "ssh",
        "ssl/private",
        "sudoers",
        "npmrc",
        "pip.conf",
        "profile.d",
        "machine",
    )
    assert "/etc" not in bound
    assert not [path for path in bound if path.startswith(tuple(f"/etc/{s}" for s in secret))]
    assert not [path for path in bound if path.startswith(("/home", "/root", "/var/lib", "/run"))]


def test_composed_files_have_their_descriptor_each() -> None:
    given, data = arguments()
    for index, word in enumerate(given):
        if word == "--file" and given[index + 2] == "/etc/machine-id":
            assert data[int(given[index + 1]) - 15] == "0" * 32 + "\n"
        if word == "--file" and given[index + 2] == "/etc/passwd":
            assert "user:x:1000:1000" in data[int(given[index + 1]) - 15]


def test_chromium_is_attachable_and_managed_and_keeps_its_flags() -> None:
    given, data = arguments()
    composed = {
        given[index + 2]: data[int(given[index + 1]) - 15]
        for index, word in enumerate(given)
        if word == "--file"
    }
    flags = composed["/etc/chromium.d/carrel"]
    assert "--remote-debugging-port=9222" in flags
    assert "--user-data-dir=$HOME/" in flags
    policy = json.loads(composed["/etc/chromium/policies/managed/carrel.json"])
    assert policy["BrowserSignin"] == 0
    assert composed["/etc/opt/chrome/policies/managed/carrel.json"] == json.dumps(policy)
    bound = {given[i + 1] for i, word in enumerate(given) if word.startswith("--ro-bind")}
    assert "/etc/chromium.d/default-flags" in bound
    assert not {"/etc/chromium", "/etc/chromium.d"} & bound  # a policy of the machine's


def test_the_hosts_layout_is_repeated() -> None:
    text = " ".join(arguments()[0])
    assert "--symlink usr/bin /bin" in text
    assert "--ro-bind /lib /lib" in text
    assert "--ro-bind-try /opt/google /opt/google" in text


def test_an_old_bubblewrap_is_not_asked_for_sizes() -> None:
    assert "--size" in arguments()[0]
    assert "--size" not in arguments(HOST._replace(bwrap_version=(0, 6, 1)))[0]


def test_an_unknown_backend_names_the_known_ones() -> None:
    with pytest.raises(InvalidRequest) as caught:
        backends.create("doker")
    assert "bubblewrap" in caught.value.hint
    assert "fake" in caught.value.hint


def test_browsers_are_told_of_the_way_out_beside_what_the_machine_tells_them() -> None:
    theirs = "/etc/chromium/policies/managed/company.json"
    certificate = Authority.make().certificate.decode()
    host = HOST._replace(browsers=("/etc/chromium/master_preferences", theirs), bundle="trusted\n")
    given, data = sandbox.command_line(
        host,
        home=Path("/home"),
        source=Path("/r/src"),
        dependencies=Path("/r/deps"),
        memory_mib=1024,
        machine_id="0" * 32,
        certificate=certificate,
    )
    given = data[0].split("\0")
    assert ["--ro-bind-try", theirs, theirs] == given[(at := given.index(theirs)) - 1 : at + 2]
    at = given.index("/etc/chromium/policies/managed/carrel.json")
    policy = json.loads(data[int(given[at - 1]) - 15])
    assert policy["ProxySettings"]["ProxyServer"] == "127.0.0.1:3128"
    assert len(policy["CACertificates"]) == 1
    at = given.index("/etc/ssl/certs/ca-certificates.crt")
    assert given[at - 2] == "--ro-bind-data"
    assert data[int(given[at - 1]) - 15] == "trusted\n" + certificate
    assert "PRIVATE" not in "".join(data)
    assert "--ro-bind-data" not in arguments()[0]  # without a certificate the machine's own is seen


def test_the_machines_own_settings_of_browsers_are_found(tmp_path: Path) -> None:
    managed = tmp_path / "policies" / "managed"
    managed.mkdir(parents=True)
    for path in (tmp_path / "master_preferences", managed / "company.json"):
        path.write_text("{}")
    (tmp_path / "policies" / "recommended").mkdir()
    assert list(sandbox._settings(tmp_path)) == [
        str(tmp_path / "master_preferences"),
        str(tmp_path / "policies" / "recommended"),
        str(managed / "company.json"),
    ]
    assert list(sandbox._settings(tmp_path / "none")) == []
