"""What is taken of what a tool server says, and what its tools may be given."""

from __future__ import annotations

from typing import Any

import pytest

from controller.tools import checking
from tests.tool_server import BAD, DOUBLING, MANY, TEXT
from workspace.errors import InvalidRequest, TooLarge


def listed(tools: list[Any]) -> list[object]:
    return [tool.model_dump(mode="json", by_alias=True) for tool in tools]


def test_what_is_in_order_is_taken_and_the_rest_is_told() -> None:
    array = {"name": "list", "inputSchema": {"type": "array"}}
    offer = checking.offer([*listed(BAD), array])
    assert [tool.name for tool in offer.tools] == ["good", "slow", "doubling"]
    assert len(offer.tools[0].description) == checking.MAX_DESCRIPTION
    assert offer.tools[0].description.startswith("[31mxxx")  # no escape
    told = "\n".join(offer.left_out)
    for name, why in {
        "none": "its schema is none",
        "list": "not of an object",
        "far": "another document",
        "deep": "nested",
        "big": "16 KiB",
        "a b": "letters",
        "good": "twice",
    }.items():
        assert f"{name!r}: " in told, name
        assert why in told, name


@pytest.mark.parametrize("odd", [None, 3, "tool", [], {}, {"name": 1}, {"name": "a"}])
def test_what_is_no_tool_is_left_out(odd: object) -> None:
    offer = checking.offer([odd])
    assert offer.tools == []
    assert len(offer.left_out) == 1


def test_ten_thousand_are_a_few() -> None:
    offer = checking.offer(listed(MANY), is_whole=False)
    assert len(offer.tools) == checking.MAX_TOOLS
    assert len(offer.left_out) == checking.MAX_TOLD + 2
    assert offer.left_out[-2] == f"and {10_000 - checking.MAX_TOOLS - checking.MAX_TOLD} more"


def test_all_that_one_offers_is_bounded() -> None:
    schema = {"type": "object", "description": "x" * 15_000}
    offer = checking.offer([{"name": f"t{n}", "inputSchema": schema} for n in range(20)])
    assert len(offer.tools) == 8
    assert "128 KiB" in offer.left_out[0]


def test_an_argument_that_is_added_is_nobodys_else() -> None:
    schema = {"type": "object", "properties": {"desktop_id": {}}}
    offer = checking.offer([{"name": "a", "inputSchema": schema}], taken=["desktop_id"])
    assert offer.left_out == ["'a': it has an argument desktop_id, which Carrel adds"]


def test_arguments_are_judged_by_the_schema() -> None:
    checking.arguments(TEXT, {"text": "a", "more": 1})
    with pytest.raises(InvalidRequest, match="'text' is a required property") as raised:
        checking.arguments(TEXT, {})
    assert raised.value.hint == "The arguments are: text."
    with pytest.raises(InvalidRequest, match="text: 3 is not of type 'string'"):
        checking.arguments(TEXT, {"text": 3})


LIST = {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}}
SELF = {"type": "object", "properties": {"a": {"$ref": "#"}}, "anyOf": [{"$ref": "#"}]}


@pytest.mark.parametrize(
    ("schema", "given"),
    [
        (DOUBLING, {"a": "x"}),
        (SELF, {"a": {}}),
        (LIST, {"a": [{"n": n} for n in range(15_000)]}),
        ({"type": "object", "$ref": "#/$defs/none"}, {}),
        ({"type": "object", "properties": {"a": {"pattern": "^(a+)+$"}}}, {"a": "a" * 40 + "b"}),
        (
            {
                "type": "object",
                "patternProperties": {"^(a+)+$": {}},
                "additionalProperties": False,
            },
            {"a" * 40 + "b": 1},
        ),
    ],
)
def test_what_would_take_for_ever_is_left_to_the_server(
    schema: dict[str, Any], given: dict[str, Any]
) -> None:
    checking.arguments(schema, given)


def test_arguments_are_bounded() -> None:
    with pytest.raises(TooLarge):
        checking.arguments(TEXT, {"text": "x" * (checking.MAX_ARGUMENT_BYTES + 1)})
    deep: dict[str, Any] = {}
    for _ in range(40):
        deep = {"a": deep}
    with pytest.raises(InvalidRequest, match="nested"):
        checking.arguments({"type": "object"}, deep)
    with pytest.raises(InvalidRequest, match="what JSON has not"):
        checking.arguments({"type": "object"}, {"a": float("nan")})
