"""How a database is named, reached and told of."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from controller.store import Store, databases
from tests.controller.conftest import both_databases, claim
from tests.postgres import Postgres, postgres
from workspace.errors import Unavailable

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:secret@db/carrel?password=secret", "postgresql://db/carrel"),
        ("postgres://me:s%40cret@h1:5432,h2:5433/carrel", "postgres://h1:5432,h2:5433/carrel"),
        ("sqlite+aiosqlite:////var/x.db", "sqlite+aiosqlite:////var/x.db"),
    ],
)
def test_a_database_is_told_of_without_its_password(url: str, shown: str) -> None:
    assert databases.shown(url) == shown
    told = databases.unavailable(url, OSError(111, "Connection refused"))
    assert "cret" not in str(told)


@pytest.mark.parametrize(
    "url", ["mysql+aiomysql://h/d", "postgresql+psycopg://h/d", "sqlite:///x.db", "nonsense", ""]
)
def test_other_databases_are_refused_with_what_to_give(url: str) -> None:
    with pytest.raises(Unavailable) as refused:
        databases.connect(url)
    assert "postgresql://" in refused.value.hint
    assert "sqlite+aiosqlite://" in refused.value.hint


def test_json_keeps_every_character_but_one() -> None:
    value = {"a\0": ["\0", "\\u0000", "\\\0", {"b": ("\0", 1.5, None, True)}]}
    kept = json.loads(databases.to_json(value))
    assert kept == {"a�": ["�", "\\u0000", "\\�", {"b": ["�", 1.5, None, True]}]}
    with pytest.raises(ValueError, match="JSON"):
        databases.to_json(float("nan"))


@both_databases
async def test_what_no_database_keeps_is_refused_or_not_found(http: httpx.AsyncClient) -> None:
    for body in ({"name": "a\0"}, {"metadata": {"a\0": "b"}}, {"metadata": {"a": "\0"}}):
        answer = await http.post("/v1/workspaces", json=body)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    for path, status in (("/%00", 404), ("/%00/events", 404), ("?after=%00", 422)):
        assert (await http.get(f"/v1/workspaces{path}")).status_code == status
    made = await claim(http, name="\U0001f9d1 é" * 20, metadata={"ключ": "é" * 1000})
    base = f"/v1/workspaces/{made['id']}"
    assert (await http.get(base)).json()["name"] == "\U0001f9d1 é" * 20
    assert (await http.get(f"{base}/files?path=a%00b")).status_code == 404
    (event,) = (await http.get(f"{base}/events?after=2")).json()["events"]
    assert event["data"]["path"] == "a�b"


async def test_a_host_that_is_away_is_passed_over(server: Postgres) -> None:
    url = server.database().replace("?host=", "?host=/nowhere,")
    async with (store := Store(url.replace("&port=5432", "&port=5432,5432"))).run():
        await store.ping()


async def test_a_database_that_is_not_there_is_said_so(server: Postgres) -> None:
    for url, why in (
        (server.url("nothing"), "does not exist"),
        ("postgresql://carrel:secret@127.0.0.1:1/carrel", "Connect"),
    ):
        with pytest.raises(Unavailable, match=why) as told:
            async with Store(url).run():
                pass
        assert "secret" not in str(told.value)


@pytest.fixture(scope="module")
def certified() -> Iterator[tuple[Path, int]]:
    """A server that speaks TLS on loopback: its certificate, and its port."""
    with (
        tempfile.TemporaryDirectory(prefix="c-tls-") as folder,
        socket.create_server(("127.0.0.1", 0)) as free,
    ):
        port = free.getsockname()[1]
        key, certificate = Path(folder, "key"), Path(folder, "certificate")
        made = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext".split()
        names = ["subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
        subprocess.run(["openssl", *made, *names], check=True, capture_output=True)
        for each in (Path(folder), key, certificate):
            if os.geteuid() == 0:
                shutil.chown(each, "nobody")
        free.close()
        tls = ("ssl=on", f"ssl_key_file={key}", f"ssl_cert_file={certificate}")
        with postgres("listen_addresses=127.0.0.1", *tls, port=port):
            yield certificate, port


async def test_tls_is_what_the_url_says(certified: tuple[Path, int], tmp_path: Path) -> None:
    certificate, port = certified
    url = f"postgresql://carrel@{{}}:{port}/postgres?sslmode={{}}&sslrootcert={certificate}"
    async with (store := Store(url.format("localhost", "verify-full"))).run():
        await store.ping()
        rows = await store._do(
            lambda it: it.exec_driver_sql(
                "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
            )
        )
        assert rows.scalar_one() is True
    with pytest.raises(Unavailable, match="certificate"):  # it is not 127.0.0.1's
        async with Store(url.format("127.0.0.1", "verify-full")).run():
            pass
