"""The way out through the whole service: claimed with rules, changed, told of in the log."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.e2e.conftest import OUTSIDE, Service
from tests.waiting import until
from workspace import SyncCarrel

VALUE = "Bearer s3cret-of-the-service"


class Site(ThreadingHTTPServer):
    """A server that remembers what it was told as ``Authorization``."""

    told: list[str | None]


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        assert isinstance(self.server, Site)
        self.server.told.append(self.headers.get("Authorization"))
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")


@contextmanager
def serving(port: int) -> Iterator[Site]:
    server = Site((OUTSIDE, port), _Handler)
    server.told = []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def site() -> Iterator[Site]:
    with serving(0) as server:
        yield server


def test_a_desktop_goes_out_by_its_rules(service: Service, site: Site) -> None:
    target = f"{OUTSIDE}:{site.server_port}"
    made = service.carrel("new", "light", "--egress", target, "--json")
    assert made.returncode == 0, made.stderr
    name = json.loads(made.stdout)["id"]
    with SyncCarrel(service.url, service.key) as carrel:
        desktop = carrel.desktop(name)

        def curl(url: str) -> str:
            return desktop.run(f"curl -sS {url}").stdout

        def lines() -> list[dict[str, object]]:
            return [it.data for it in carrel.events(name).events if it.kind == "egress"]

        assert curl(f"http://{target}/") == "hello"
        assert "is not among this desktop's egress rules" in curl("http://example.org/")
        carrel.set_egress(name, allow=["127.0.0.3:*"])
        assert "127.0.0.3 is loopback" in curl("http://127.0.0.3:22/")
        state = json.loads(service.carrel("egress", name, "--deny", target, "--json").stdout)
        assert state["egress"] == ["127.0.0.3:*"]
        assert (state["use"]["allowed"], state["use"]["refused"]) == (1, 2)
        assert "not among" in curl(f"http://{target}/")
        until(lambda: len(lines()) >= 4)
        (allowed,) = [line for line in lines() if line["verdict"] == "allowed"]
        assert (allowed["host"], allowed["port"]) == (OUTSIDE, site.server_port)
        assert int(str(allowed["bytes_down"])) > 5
        curl("http://late.example/")
        carrel.release(name)
        assert any(line["host"] == "late.example" for line in lines())  # told as it ended


def test_a_secret_is_put_in_on_the_way(service: Service) -> None:
    target = f"{OUTSIDE}:80"  # plain HTTP is for secrets of that port
    with serving(80) as site, SyncCarrel(service.url, service.key) as carrel:
        secret = {"name": "api", "host": target, "value": VALUE}
        with carrel.claim("light", egress=[target], secrets=[secret]) as desktop:
            done = desktop.run(f"curl -sS http://{target}/; env")
            assert done.stdout.startswith("hello")
            assert site.told == [VALUE]
            assert "s3cret" not in done.stdout
            state = carrel.egress(desktop.id)
            assert [it.name for it in state.secrets] == ["api"]
            told = repr(carrel.events(desktop.id)) + repr(state) + repr(carrel.get(desktop.id))
            assert "s3cret" not in told
