"""The chain of events and its verification, as tables: nothing but lines."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta, timezone

import pytest

from controller.store.chain import (
    GENESIS,
    MOST_TOLD,
    Finding,
    Head,
    Line,
    NewEvent,
    Walk,
    canonical,
    digest,
    link,
    texts,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=timezone.utc)
W = "abcdefghjk"


def chained(many: int) -> list[Line]:
    new = [NewEvent(NOW, W, "admin", "act", {"n": n}) for n in range(1, many + 1)]
    linked, _ = link(new, texts(new), {})
    return [
        Line(10 * each.seq, NOW, W, "admin", "act", each.event.data, each.seq, each.hash)
        for each in linked
    ]


def walked(lines: list[Line], head: Head | None = None, base: Head | None = None) -> list[Finding]:
    whole = chained(9)
    walk = Walk(W, base or Head())
    found = [finding for line in lines for finding in walk.step(line)]
    return found + list(walk.end(head or Head(whole[-1].seq, whole[-1].hash)))


def told(found: list[Finding]) -> list[tuple[int | None, str]]:
    return [(each.seq, each.what) for each in found]


def test_a_hash_is_of_what_the_document_says() -> None:
    at = datetime(2026, 1, 2, 4, 4, 5, tzinfo=timezone(timedelta(hours=1)))
    data = canonical({"b": [1, 0.5, None], "a": "ключ"})
    assert data == r'{"a":"\u043a\u043b\u044e\u0447","b":[1,0.5,null]}'
    text = f'["{GENESIS}","{W}",1,"2026-01-02T03:04:05.000000+00:00","me","k",{data}]'
    assert digest(GENESIS, W, 1, at, "me", "k", data) == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    "data",
    [
        {},
        {1: "a", 10: "b", 9: "c"},
        {"nul\0": ["\0", "\\u0000"]},
        {"half": "\ud800", "n": [2**70, -0.0, 1e300, True]},
        {"deep": ({"z": 1, "a": (1, 2)},)},
    ],
)
def test_data_is_hashed_as_it_is_read_back(data: dict[str, object]) -> None:
    import json

    assert canonical(json.loads(canonical(data))) == canonical(data)


def test_no_json_is_refused() -> None:
    for bad in ({"a": {1, 2}}, {"a": float("nan")}):
        with pytest.raises((TypeError, ValueError)):
            canonical(bad)


def test_a_chain_goes_on_where_it_was() -> None:
    new = [NewEvent(NOW, None, "a", "k", {}), NewEvent(NOW, W, "a", "k", {})]
    first, heads = link(new[:1], ["{}"], {})
    second, ends = link(new, ["{}", "{}"], heads)
    assert [each.seq for each in first + second] == [1, 2, 1]
    assert ends == {"": Head(2, second[0].hash), W: Head(1, second[1].hash)}
    assert second[0].hash == digest(first[0].hash, "", 2, NOW, "a", "k", "{}")


def test_a_whole_chain_is_right_and_so_is_one_without_its_beginning() -> None:
    lines = chained(9)
    assert walked(lines) == []
    assert walked(lines[4:], base=Head(4, lines[3].hash)) == []


@pytest.mark.parametrize(
    ("wrong", "findings"),
    [
        ("removed", [(4, "removed")]),
        ("two removed", [(4, "removed")]),
        ("first removed", [(1, "removed")]),
        ("tail", [(8, "removed")]),
        ("changed", [(4, "changed")]),
        ("hash", [(4, "changed"), (5, "changed")]),
        ("inserted", [(4, "inserted")]),
        ("appended", [(10, "inserted")]),
        ("swapped", [(4, "reordered")]),
        ("renumbered", [(4, "changed"), (5, "changed"), (6, "changed")]),
    ],
)
def test_what_is_wrong_is_named(wrong: str, findings: list[tuple[int, str]]) -> None:
    lines = chained(9)
    match wrong:
        case "removed":
            del lines[3]
        case "two removed":
            del lines[3:5]
        case "first removed":
            del lines[0]
        case "tail":
            del lines[7:]
        case "changed":
            lines[3] = lines[3]._replace(data={"n": 44})
        case "hash":
            lines[3] = lines[3]._replace(hash="f" * 64)
        case "inserted":
            lines.insert(4, lines[3]._replace(id=41, kind="other"))
        case "appended":
            lines = chained(10)
        case "swapped":
            lines[3], lines[4] = lines[4], lines[3]
        case "renumbered":  # a line is taken out, and the ones after it moved up
            del lines[3]
            lines[3:] = [line._replace(seq=line.seq - 1) for line in lines[3:]]
    assert told(walked(lines))[:3] == findings[:3]


def test_a_forged_chain_has_another_head_and_a_head_may_be_gone() -> None:
    new = [NewEvent(NOW, W, "mallory", "act", {}) for _ in range(9)]
    forged, _ = link(new, ["{}"] * 9, {})
    lines = [Line(n.seq, *n.event[:1], W, "mallory", "act", {}, n.seq, n.hash) for n in forged]
    assert told(walked(lines)) == [(9, "head")]
    assert told(list(Walk(W, Head()).end(None))) == [(0, "head")]


def test_of_very_much_that_is_wrong_the_first_is_told_and_the_rest_counted() -> None:
    lines = [line._replace(actor="mallory") for line in chained(99)]
    found = walked(lines, head=Head(99, lines[-1].hash))
    assert len(found) == MOST_TOLD + 1
    assert "79 more" in found[-1].why
