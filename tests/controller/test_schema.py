"""What the OpenAPI says, held to what is answered: schemathesis asks every route of a real port.

No answer has a status, a type, a header or a body that its route does not tell of, and none is a
5xx but for what this controller, which has no OpenID provider and only fake desktops, cannot do.
``SCHEMA_EXAMPLES`` lengthens a run, ``SCHEMA_SEED`` repeats it.
"""

from __future__ import annotations

import copy
import os
import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import anyio.to_thread
import httpx
import hypothesis
import pytest
from fastapi import FastAPI
from schemathesis import Case, CheckContext, GenerationMode, Response
from schemathesis.openapi import from_dict
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.controller.conftest import BEARER, add_template, bearer, claim, new_key, serving
from tests.serving import listening

pytestmark = pytest.mark.anyio
EXAMPLES = int(os.environ.get("SCHEMA_EXAMPLES", "3"))
VIEWERS_EXAMPLES = max(EXAMPLES // 2, 1)
STREAM = "/events/stream"  # has no end: only how it begins is looked at
# What cannot be done here, by design: there is no OpenID provider, fake desktops have no shell, and
# at the addresses of tool servers that are made up nobody answers.
CANNOT = {(501, "unsupported"), (504, "timed_out"), (503, "tools_down")}
ENDING = [("DELETE ", ""), ("POST ", "/extend")]  # what a workspace of its own is for
LONGEST = {"seconds": 0.1, "wait_seconds": 0, "queue_seconds": 0, "settle_ms": 10}


def no_server_error(ctx: CheckContext, response: Response, case: Case) -> None:
    if response.status_code >= 500:
        code = response.json()["code"]
        assert (response.status_code, code) in CANNOT, response.text


CHECKS = [
    no_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


def hurried(value: Any) -> Any:  # Any: JSON values
    """What is asked, without long waits for what does not come."""
    if isinstance(value, list):
        return [hurried(each) for each in value]
    if not isinstance(value, dict):
        return value
    shorter = {name: hurried(each) for name, each in value.items()}
    for name in shorter.keys() & LONGEST.keys():
        if isinstance(shorter[name], int | float):
            shorter[name] = min(shorter[name], LONGEST[name])
    return shorter


@dataclass
class Asking:
    """Everything asked with one key, in a thread of its own; what was wrong is kept."""

    base_url: str
    headers: dict[str, str]
    own: dict[str, str]  # what path parameters are mostly
    spared: dict[str, str]  # the workspace of a route that may end it, by the route
    seed: int
    examples: int
    answers: Counter[int] = field(default_factory=Counter)
    wrong: dict[str, str] = field(default_factory=dict)
    reached: set[str] = field(default_factory=set)

    def all_of(self, told: dict[str, Any]) -> None:
        schema = from_dict(told)
        schema.config.update(base_url=self.base_url)
        for result in schema.get_all_operations():
            operation = result.ok()
            if operation.path.endswith(STREAM):
                continue
            names = set(re.findall(r"{(\w+)}", operation.path))
            own = {name: value for name, value in self.own.items() if name in names}
            if spared := self.spared.get(operation.label):
                own = {"workspace_id": spared}
            ways = [
                (GenerationMode.POSITIVE, own, self.examples),
                (GenerationMode.POSITIVE, {}, 1 if own else 0),
                (GenerationMode.NEGATIVE, own, self.examples // 2),
            ]
            for mode, given, examples in ways:
                self._ask(operation, mode, given, examples)

    def _ask(
        self, operation: Any, mode: GenerationMode, own: dict[str, str], examples: int
    ) -> None:
        @hypothesis.seed(self.seed)
        @hypothesis.settings(
            max_examples=max(examples, 1),
            database=None,
            deadline=None,
            phases=[hypothesis.Phase.generate],
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(case=operation.as_strategy(mode, path_parameters=dict(own) or None))
        def asking(case: Case) -> None:
            case.headers.update(self.headers)
            case.body, case.query = hurried(case.body), hurried(case.query)
            answer = case.call(timeout=20)
            self.answers[answer.status_code] += 1
            self.reached.add(operation.label)
            try:
                case.validate_response(answer, checks=CHECKS)
            except BaseException as error:
                self.wrong.setdefault(operation.label, f"{type(error).__name__}: {error}"[:3000])

        if examples:
            try:
                asking()
            except hypothesis.errors.Unsatisfiable:
                pass  # it takes nothing that could be wrong


def operations(told: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:  # Any: OpenAPI
    for path, methods in told["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


# The controller's own use of it, in another thread, is taken for a strategy's.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")
@pytest.mark.timeout(120)
async def test_every_answer_is_one_that_its_route_tells_of(app: FastAPI) -> None:
    seed = int(os.environ.get("SCHEMA_SEED") or random.randrange(2**32))
    print(f"SCHEMA_SEED={seed}")
    told = copy.deepcopy(app.openapi())
    for _, operation in operations(told):
        operation.pop("security", None)  # else most of what is wrong would be the key
    async with serving(app) as http:
        await add_template(http, "fake")
        await add_template(http, "broken", FAKE_START_ERROR="no")
        own = {"template": "broken", "node_id": "n1", "window": "1"}
        own["workspace_id"] = await made(http)
        ending = [f"{one}/v1/workspaces/{{workspace_id}}{end}" for one, end in ENDING]
        spared = {label: await made(http) for label in ending}
        viewer = bearer((await new_key(http, "looks-on", role="viewer"))["key"])
        async with listening(app) as port:
            for headers, examples in ((viewer, VIEWERS_EXAMPLES), (dict(BEARER), EXAMPLES)):
                asking = Asking(f"http://127.0.0.1:{port}", headers, own, spared, seed, examples)
                await anyio.to_thread.run_sync(asking.all_of, told)
                print(asking.answers)
                wrong = [f"{label}: {what}" for label, what in asking.wrong.items()]
                assert not wrong, "\n\n".join(wrong)
                missed = {label for label, _ in operations(told)} - asking.reached
                assert all(label.endswith(STREAM) for label in missed), missed
        assert asking.answers[200] > asking.answers[410], "it asked an ended desktop"


async def made(http: httpx.AsyncClient) -> str:
    return str((await claim(http, template="fake"))["id"])


@pytest.mark.parametrize("path", ["", "/workspaces/{workspace_id}"])
async def test_a_stream_begins_as_it_is_told(app: FastAPI, path: str) -> None:
    async with serving(app) as http, listening(app) as port:
        await add_template(http, "fake")
        at = path.format(workspace_id=await made(http))
        told = app.openapi()["paths"][f"/v1{path}{STREAM}"]["get"]["responses"]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=BEARER) as real:
            async with real.stream("GET", f"/v1{at}{STREAM}") as answer:
                kind = answer.headers["content-type"].partition(";")[0]
                assert kind in told[str(answer.status_code)]["content"]
                assert answer.status_code == 200
            for query in ("after=-1", "after=x", f"after={2**70}", "key=a"):
                refused = await real.get(f"/v1{at}{STREAM}?{query}")
                assert refused.status_code == 422
                assert "application/json" in told["422"]["content"]
