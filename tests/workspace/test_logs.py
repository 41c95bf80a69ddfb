"""Lines of the log: whose they are, and that each stays one line whatever comes from outside."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest

from workspace import logs

pytestmark = pytest.mark.anyio
EVIL = "a\x1b]0;title\x07b\r\n2026-01-01 00:00:00,000 INFO controller: all is well\x9b31m\u202e\x7f"


def written(formatter: logging.Formatter, message: str, *args: object, fails: bool = False) -> str:
    error = None
    if fails:
        try:
            raise ValueError(EVIL)
        except ValueError as caught:
            error = (type(caught), caught, caught.__traceback__)
    record = logging.LogRecord("controller.test", logging.INFO, "x.py", 1, message, args, error)
    return formatter.format(record)


def test_a_line_says_when_how_bad_and_what() -> None:
    line = written(logs.Text("%(asctime)s %(levelname)s %(name)s"), "%d of %s", 3, "them")
    assert line.endswith(" INFO controller.test: 3 of them")
    told = json.loads(written(logs.Json(), "%d of %s", 3, "them"))
    assert told.pop("time").endswith("Z")
    assert told == {"level": "INFO", "logger": "controller.test", "message": "3 of them"}


def test_a_line_from_outside_stays_one_inert_line() -> None:
    line = written(logs.Text("%(name)s"), "said %s", EVIL)
    assert line.isprintable()
    assert "\\u001b]0;title\\u0007b\\u000d\\u000a2026" in line
    line = written(logs.Json(), "said %s", EVIL)
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["message"] == f"said {EVIL}"


def test_a_trace_can_be_told_from_lines() -> None:
    first, *others = written(logs.Text("%(name)s"), "it failed", fails=True).splitlines()
    assert first == "controller.test: it failed"
    assert len(others) > 2
    assert all(line.startswith("    | ") and line.isprintable() for line in others)
    told = json.loads(written(logs.Json(), "it failed", fails=True))
    assert told["message"] == "it failed"
    assert "ValueError: a\x1b]0;" in told["trace"]


def test_what_no_encoding_has_and_what_is_too_long_is_written_all_the_same() -> None:
    for formatter in (logs.Text("%(name)s"), logs.Json()):
        line = written(formatter, "\ud800" + "x" * 100_000)
        assert len(line.encode()) < 30_000


async def test_a_line_says_whose_it_is_as_long_as_that_is_so() -> None:
    text, as_json = logs.Text("%(name)s"), logs.Json()
    with logs.answering(logs.Request("r1", workspace_id="w1")):
        assert written(text, "hi") == "controller.test [request=r1 workspace=w1]: hi"
        told = json.loads(written(as_json, "hi"))
        assert (told["request"], told["workspace"]) == ("r1", "w1")
        is_over = asyncio.Event()

        async def lives_on() -> str:
            logs.belongs_to("w2")
            await is_over.wait()
            return written(text, "hi")

        task = asyncio.create_task(lives_on())
        await asyncio.sleep(0)
        assert "workspace=w2" in written(text, "hi")  # the request is for it now
    is_over.set()
    assert await task == "controller.test [workspace=w2]: hi"
    assert written(text, "hi") == "controller.test: hi"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"x-request-id": "abc-1.2_3"}, "abc-1.2_3"),
        ({"x-request-id": "a b"}, None),
        ({"x-request-id": "a\x1b[2J"}, None),
        ({"x-request-id": "x" * 65}, None),
        ({"x-request-id": ""}, None),
        ({"traceparent": "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"}, "ab" * 16),
        ({"traceparent": "00-" + "00" * 16 + "-" + "cd" * 8 + "-01"}, None),
        ({"traceparent": "ff-" + "ab" * 16 + "-" + "cd" * 8 + "-01"}, None),
        ({"traceparent": "nonsense"}, None),
        ({"traceparent": "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01", "x-request-id": "me"}, "me"),
    ],
)
def test_a_request_is_called_what_it_says_if_that_can_be_used(
    headers: dict[str, str], expected: str | None
) -> None:
    found = logs.request_id([(k.encode(), v.encode("latin-1")) for k, v in headers.items()])
    if expected is None:
        assert len(found) == 16
        assert found not in headers.values()
    else:
        assert found == expected


def test_a_request_within_one_has_its_name() -> None:
    with logs.answering(logs.Request("outer")):
        assert logs.request_id([]) == "outer"
