"""Everything that changes something is in the log before its caller is answered, and no secret is.

A route that is new and changes something needs an example here: without one the first test fails.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any  # JSON values

import httpx
import pytest
from fastapi.routing import APIRoute

from controller.app import _ROUTERS
from controller.settings import Settings
from tests.controller.conftest import KEY, add_template, claim

pytestmark = pytest.mark.anyio
_BASE = "/v1/workspaces/{workspace_id}"
# They change nothing: a question with a body, and what nodes ask for every desktop all the time.
HARMLESS = {
    f"POST {_BASE}/wait",
    f"POST {_BASE}/browser/wait",
    "POST /v1/leases/{sandbox}",
    "POST /v1/leases/{sandbox}/connections",
}
# The same as with POST: they are one line of the log, once a minute.
HARMLESS |= {
    f"{method} {_BASE}/ports/{{port}}/{{path:path}}" for method in ("PUT", "PATCH", "DELETE")
}
# What is sent, and the kind of the line that tells of it: whatever comes of it.
EXAMPLES: dict[str, tuple[dict[str, Any], str]] = {
    "POST /v1/workspaces": ({"json": {"template": "desktop"}}, "claim"),
    f"DELETE {_BASE}": ({}, "released"),
    f"POST {_BASE}/extend": ({"json": {"ttl_seconds": 60}}, "extend"),
    f"POST {_BASE}/pause": ({}, "pause"),
    f"POST {_BASE}/resume": ({}, "resume"),
    f"POST {_BASE}/egress": ({"json": {"egress": "none"}}, "egress_rules"),
    f"POST {_BASE}/viewer": ({}, "viewer"),
    f"POST {_BASE}/actions": ({"json": {"type": "click", "x": 1, "y": 2}}, "act"),
    f"POST {_BASE}/screen": ({"json": {"width": 800}}, "screen"),
    f"PUT {_BASE}/clipboard": ({"json": {"text": "a"}}, "clipboard"),
    f"PUT {_BASE}/environment": ({"json": {"A": "b"}}, "environment"),
    f"POST {_BASE}/windows/{{window}}/move": ({"json": {"x": 1, "y": 2}}, "window"),
    f"POST {_BASE}/windows/{{window}}/resize": ({"json": {"width": 9, "height": 9}}, "window"),
    f"POST {_BASE}/windows/{{window}}/state": ({"json": {"state": "normal"}}, "window"),
    f"POST {_BASE}/windows/{{window}}/focus": ({}, "window"),
    f"POST {_BASE}/windows/{{window}}/close": ({}, "window"),
    f"POST {_BASE}/browser/navigate": ({"json": {"url": "http://a/"}}, "browser_navigate"),
    f"POST {_BASE}/browser/act": (
        {"json": {"actions": [{"type": "click", "ref": "r1"}]}},
        "browser_act",
    ),
    f"POST {_BASE}/browser/tabs": ({"json": {"do": "new"}}, "browser_tab"),
    f"POST {_BASE}/browser/evaluate": ({"json": {"expression": "1"}}, "browser_evaluate"),
    f"POST {_BASE}/browser/downloads/{{download}}/cancel": ({}, "browser_download_cancel"),
    f"POST {_BASE}/browser/state": ({}, "browser_state_saved"),
    f"PUT {_BASE}/browser/state": ({"json": {}}, "browser_state_loaded"),
    f"POST {_BASE}/browser/trace": ({"json": {"do": "start"}}, "browser_trace"),
    f"POST {_BASE}/ide": ({"json": {"type": "open", "path": "a.py"}}, "ide"),
    f"POST {_BASE}/applications": ({"json": {"name": "mousepad"}}, "application"),
    f"POST {_BASE}/processes": ({"json": {"command": "true"}}, "process"),
    f"POST {_BASE}/processes/{{job}}/stdin": ({"content": b"a"}, "stdin"),
    f"POST {_BASE}/processes/{{job}}/signal": ({"json": {}}, "signal"),
    f"DELETE {_BASE}/processes/{{job}}": ({}, "signal"),
    f"PUT {_BASE}/files": ({"params": {"path": "a"}, "content": b"abc"}, "file_write"),
    f"POST {_BASE}/artifacts": ({"json": {"path": "a"}}, "artifact_save"),
    "DELETE /v1/artifacts/{artifact_id}": ({}, "artifact_remove"),
    f"DELETE {_BASE}/files": ({"params": {"path": "a"}}, "file_remove"),
    f"PUT {_BASE}/files/directory": ({"params": {"path": "a"}}, "directory"),
    f"POST {_BASE}/files/move": ({"json": {"source": "a", "destination": "b"}}, "file_move"),
    f"POST {_BASE}/recording": ({}, "recording_start"),
    f"POST {_BASE}/recording/stop": ({}, "recording_stop"),
    f"DELETE {_BASE}/recording": ({}, "recording_remove"),
    "DELETE /v1/volumes/{name}": ({}, "volume_removed"),
    "POST /v1/tools": ({"json": {"name": "home", "url": "http://127.0.0.1:9/mcp"}}, "tools_added"),
    "POST /v1/tools/{name}/calls": ({"json": {"tool": "t"}}, "tool_call"),
    "DELETE /v1/tools/{name}": ({}, "tools_removed"),
    f"POST {_BASE}/tools/{{name}}": ({}, "tools_started"),
    f"POST {_BASE}/tools/{{name}}/calls": ({"json": {"tool": "t"}}, "tool_call"),
    "POST /v1/templates": ({"json": {"name": "new", "backend": "fake"}}, "template"),
    "PATCH /v1/nodes/{node_id}": ({"json": {"draining": True}}, "drain"),
    "PATCH /v1/pools/{template}": ({"json": {"warm": 0}}, "scale"),
    "POST /v1/keys": ({"json": {"name": "ci"}}, "key_created"),
    "DELETE /v1/keys/{key_id}": ({}, "key_revoked"),
    "PUT /v1/tenants/{name}": ({"json": {"workspaces": 5}}, "quotas"),
    f"POST {_BASE}/shares": ({"json": {"mode": "view", "ttl_seconds": 60}}, "shared"),
    f"DELETE {_BASE}/shares/{{share}}": ({}, "unshared"),
    f"POST {_BASE}/control": ({}, "control_taken"),
    f"DELETE {_BASE}/control": ({}, "control_returned"),
    f"POST {_BASE}/ports/{{port}}": ({}, "port_opened"),
    f"POST {_BASE}/cdp": ({}, "cdp_opened"),
    f"POST {_BASE}/ports/{{port}}/{{path:path}}": ({}, "port"),
    f"POST {_BASE}/requests": ({"json": {"reason": "log in"}}, "human_requested"),
    f"POST {_BASE}/requests/{{ticket}}": ({"json": {"outcome": "done"}}, "human_answered"),
    "POST /v1/login": ({"json": {"key": KEY}}, "login"),
    "POST /v1/logout": ({}, "logout"),
}
# What later examples name by what an answer said.
TOLD = {
    f"POST {_BASE}/artifacts": ("artifact_id", "id"),
    "POST /v1/keys": ("key_id", "id"),
    f"POST {_BASE}/shares": ("share", "id"),
    f"POST {_BASE}/requests": ("ticket", "ticket"),
}
_NAMES = {
    "window": "1",
    "port": "3000",
    "path": "a",
    "download": "d1",
    "job": "j1",
    "name": "home",
    "node_id": "n1",
    "template": "desktop",
}


def changing() -> set[str]:
    """Every route of the application that may change something."""
    return {
        f"{method} {route.path}"
        for module in _ROUTERS
        for route in module.router.routes
        if isinstance(route, APIRoute)
        for method in route.methods - {"GET", "HEAD", "OPTIONS"}
    }


async def test_every_route_that_changes_something_is_in_the_log(http: httpx.AsyncClient) -> None:
    routes = changing()
    assert len(routes) > 30
    assert routes - HARMLESS == EXAMPLES.keys()
    made = await claim(http, template="desktop")
    viewer = str(made["watch_url"]).partition("#")[2]
    names = {**_NAMES, "workspace_id": str(made["id"])}
    ends_last = sorted(EXAMPLES, key=lambda it: it == f"DELETE {_BASE}")
    for example in ends_last:
        options, kind = EXAMPLES[example]
        if example.endswith("/viewer"):
            options = {"json": {"token": viewer}}
        method, path = example.split()
        path = re.sub(r"{(\w+)(?::path)?}", lambda it: names[it[1]], path)
        before = (await http.get("/v1/events?limit=1000")).json()["after"]
        answer = await http.request(method, path, **options)
        assert answer.status_code != 422, f"{example}: {answer.text}"
        if example in TOLD:
            name, field = TOLD[example]
            names[name] = answer.json()[field]
        new = (await http.get(f"/v1/events?after={before}")).json()["events"]
        assert kind in [event["kind"] for event in new], f"{example}: {answer.text}"


async def test_an_action_is_told_of_with_what_was_seen(http: httpx.AsyncClient) -> None:
    base = f"/v1/workspaces/{(await claim(http, template='desktop'))['id']}"
    click = {"type": "click", "x": 1, "y": 2}
    seen = (await http.post(f"{base}/actions?observe=frame&settle_ms=0", json=click)).json()
    await http.post(f"{base}/actions", json=click)
    (looked, blind) = (await http.get(f"{base}/events?after=2")).json()["events"]
    assert (
        looked["data"]["seen"].items()
        >= {
            "effect": seen["effect"],
            "frame": seen["screenshot"]["frame"],
        }.items()
    )
    assert len(looked["data"]["seen"]["digest"]) == 16
    assert blind["data"]["seen"] == {"effect": "not_observed"}


async def test_a_file_is_told_of_with_its_hash(http: httpx.AsyncClient) -> None:
    base = f"/v1/workspaces/{(await claim(http, template='desktop'))['id']}"
    await http.put(f"{base}/files", params={"path": "a"}, content=b"abc")
    (told,) = (await http.get(f"{base}/events?after=2")).json()["events"]
    assert told["data"]["size"] == 3
    assert told["data"]["sha256"].startswith("ba7816bf8f01cfea")


MARK = "Marzipan7Q"


def on_disk(folder: Path) -> bytes:
    """All that the database has written."""
    return b"".join(file.read_bytes() for file in sorted(folder.glob("carrel.db*")))


async def test_no_secret_is_in_the_database(http: httpx.AsyncClient, settings: Settings) -> None:
    """What is typed, copied, set or shown as a key never gets to the disk of the controller."""
    await add_template(http, "marked", MARK=MARK)
    made = await claim(http, template="marked")
    base = f"/v1/workspaces/{made['id']}"
    asked: list[tuple[str, str, dict[str, Any]]] = [
        (
            "POST",
            "/v1/workspaces",
            {"json": {"environment": {"A": MARK}, "setup": [f"echo {MARK}"]}},
        ),
        ("PUT", f"{base}/environment", {"json": {"A": MARK}}),
        ("PUT", f"{base}/clipboard", {"json": {"text": MARK, "html": MARK}}),
        ("PUT", f"{base}/files?path=a", {"content": MARK.encode()}),
        ("POST", f"{base}/processes/j1/stdin", {"content": MARK.encode()}),
        (
            "POST",
            f"{base}/processes",
            {"json": {"command": "true", "environment": {"A": MARK}, "stdin": MARK}},
        ),
        ("POST", "/v1/login", {"json": {"key": MARK}}),
        ("POST", f"{base}/viewer", {"json": {"token": MARK}}),
        ("GET", f"{base}/clipboard?key={MARK}", {}),
        ("GET", "/v1/events", {"headers": {"Authorization": f"Bearer {MARK}"}}),
        ("POST", f"{base}/applications", {"json": {"name": "mousepad", "arguments": [MARK]}}),
        ("POST", f"{base}/browser/navigate", {"json": {"url": f"http://u:{MARK}@a/?k={MARK}"}}),
        ("POST", f"{base}/browser/tabs", {"json": {"do": "new", "url": f"http://a/?k={MARK}"}}),
        ("POST", f"{base}/browser/evaluate", {"json": {"expression": f"'{MARK}'"}}),
        ("POST", f"{base}/ide", {"json": {"type": "run_task", "command": f"echo {MARK}"}}),
        ("POST", f"{base}/ide", {"json": {"type": "terminal", "command": f"login {MARK}"}}),
        ("POST", f"{base}/ide", {"json": {"type": "command", "id": "a", "args": [MARK]}}),
        ("POST", f"{base}/ide", {"json": {"type": "symbols", "query": MARK}}),
        (
            "POST",
            f"{base}/ide",
            {"json": {"type": "debug", "do": "start", "program": "a.py", "args": [MARK]}},
        ),
        (
            "POST",
            f"{base}/ide",
            {"json": {"type": "debug", "do": "evaluate", "expression": f"'{MARK}'"}},
        ),
        (
            "POST",
            f"{base}/ide",
            {
                "json": {
                    "type": "apply_edit",
                    "edits": [
                        {"path": "a.py", "old": MARK, "new": MARK},
                        {"path": "b.py", "line": 1, "end_line": 1, "new": "", "expected": MARK},
                        {"path": "c.py", "create": True, "new": MARK},
                    ],
                }
            },
        ),
        (
            "PUT",
            f"{base}/browser/state",
            {"json": {"cookies": [{"name": "s", "value": MARK, "domain": "a"}]}},
        ),
        (
            "POST",
            f"{base}/browser/act",
            {
                "json": {
                    "actions": [
                        {"type": "fill", "ref": "r1", "text": MARK},
                        {"type": "select", "ref": "r1", "values": [MARK]},
                        {"type": "dialog", "text": MARK},
                    ]
                }
            },
        ),
    ]
    for observe in ("none", "frame"):
        for action in (
            {"type": "type", "text": MARK},
            {"type": "set_value", "element": "e1", "value": MARK},
        ):
            asked.append(("POST", f"{base}/actions?observe={observe}", {"json": action}))
    for method, path, options in asked:
        answer = await http.request(method, path, **options)
        is_refused = "?key=" in path  # no key belongs in a URL
        assert (answer.status_code == 422) is is_refused, f"{method} {path}: {answer.text}"
    assert b"clipboard" in (written := on_disk(settings.home))
    assert MARK.encode() not in written
    events = (await http.get("/v1/events?limit=1000")).json()["events"]
    assert {"act", "clipboard", "environment", "process"} <= {event["kind"] for event in events}
