"""Requests that mean no good, sent to the controller over a real port with fake desktops behind it.

They are made from the application's own OpenAPI, so that a new route is fuzzed from its first day.
``FUZZ_SEED`` and ``FUZZ_REQUESTS`` repeat or lengthen a run.
"""

from __future__ import annotations

import asyncio
import copy
import os
import random
from collections import Counter

import pytest
from fastapi import FastAPI

from tests.controller.conftest import BEARER, KEY, LocalCluster, add_template, claim, client
from tests.fuzz.drawing import Json
from tests.fuzz.fuzzer import Fuzzer, Surface
from tests.serving import listening

REQUESTS = int(os.environ.get("FUZZ_REQUESTS", "1500"))
WORKERS = 4
# They end what all the others stand on.
_SPARED = {"delete /v1/workspaces/{workspace_id}", "post /v1/logout"}
# Their answers have no end.
_SPARED |= {f"get /v1{path}/events/stream" for path in ("", "/workspaces/{workspace_id}")}
# Refused in form: the fake desktop has none.
_WEB_SOCKETS = ("vnc", "terminal", "processes/{job}/stream", "ports/3000/a", "ports/x/a", "tools/a")


def _surfaces(api: FastAPI) -> list[Surface]:
    told = copy.deepcopy(api.openapi())
    # Where there is no room a claim waits for a minute if it does not say for how long.
    told["components"]["schemas"]["WorkspaceRequest"].setdefault("required", []).append(
        "queue_seconds"
    )
    found = []
    for path, methods in told["paths"].items():
        for method, route in methods.items():
            if f"{method} {path}" not in _SPARED:
                found.append(_surface(method, path, route, told["components"]["schemas"]))
    prefix = "/v1/workspaces/{workspace_id}/"
    return found + [Surface("WS", prefix + path, None, []) for path in _WEB_SOCKETS]


def _surface(method: str, path: str, route: Json, schemas: Json) -> Surface:
    asked = [each for each in route.get("parameters", ()) if each["in"] == "query"]
    query = {
        "type": "object",
        "properties": {each["name"]: each["schema"] for each in asked},
        "required": [each["name"] for each in asked if each.get("required")],
        "$defs": schemas,
    }
    content = route.get("requestBody", {}).get("content", {})
    bodies = [{**each["schema"], "$defs": schemas} for each in content.values()]
    if "application/octet-stream" in content:
        bodies = []
    return Surface(method.upper(), path, query if asked else None, bodies)


@pytest.mark.timeout(120)
async def test_requests_that_mean_no_good(
    app: FastAPI, cluster: LocalCluster, caplog: pytest.LogCaptureFixture
) -> None:
    seed = int(os.environ.get("FUZZ_SEED") or random.randrange(2**32))
    print(f"FUZZ_SEED={seed}")
    surfaces = _surfaces(app)
    async with app.router.lifespan_context(app), client(app, headers=BEARER) as http:
        await add_template(http, "fake")
        await add_template(http, "spared")
        made = str((await claim(http, template="fake", name="fuzzed"))["id"])
        asked = await http.post(f"/v1/workspaces/{made}/requests", json={"reason": "To be there."})
        ticket = asked.json()["ticket"]
        async with listening(app) as port:
            fuzzers = [
                Fuzzer(
                    lambda: asyncio.open_connection("127.0.0.1", port),
                    surfaces,
                    seed + number,
                    token=KEY,
                    own={
                        "workspace_id": lambda: made,
                        "ticket": lambda: ticket,
                        "template": lambda: "fake",
                        "ttl_seconds": lambda: 600,
                        "wait_seconds": lambda: 0,  # for a person who does not come
                        "queue_seconds": lambda: 0,
                    },
                )
                for number in range(WORKERS)
            ]
            await asyncio.gather(*(each.run(REQUESTS // WORKERS) for each in fuzzers))
            routes = [each for each in surfaces if each.method != "WS"]  # none lets one through
            for _ in range(20):  # those that chance has passed by, or never let through
                reached = set[str]().union(*(each.reached for each in fuzzers))
                passed = [each for each in routes if each.name not in reached]
                if not passed:
                    break
                await fuzzers[0].run(3 * len(passed), passed)
        statuses = sum((each.answers for each in fuzzers), Counter[int]())
        print(statuses)
        # Not of what they had: a second more to live is a valid wish too, and a full pool.
        after = (await claim(http, template="spared"))["id"]
        answer = await http.get(f"/v1/workspaces/{after}/screenshot")
        assert answer.status_code == 200
        assert not passed, [each.name for each in passed]
    assert "Traceback" not in caplog.text, caplog.text[-8000:]
