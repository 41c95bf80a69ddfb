"""What tools are given: models, the JSON schemas that every client can read, and plain refusals.

A schema here is flat: no references, no ``anyOf`` with null, no titles: some clients understand
no more, and every byte of it is read by the model in every conversation. Clients also send lists
and objects as JSON in a string; that is accepted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from workspace.errors import InvalidRequest

Json = dict[str, Any]  # Any: JSON values
M = TypeVar("M", bound=BaseModel)


class Input(BaseModel):
    """The arguments of one tool."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class OnDesktop(Input):
    desktop_id: str


def _parsed(value: object) -> object:
    if isinstance(value, str) and value[:1] in ("[", "{"):
        try:
            parsed: object = json.loads(value)
        except (ValueError, RecursionError):
            return value
        return parsed
    return value


FromJson = BeforeValidator(_parsed)


def _not_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("give a number, not true or false")
    return value


NotBool = BeforeValidator(_not_bool)  # text that reads as a number is accepted: models send it


def schema(model: type[BaseModel]) -> Json:
    """The model's JSON schema, flat."""
    whole = model.model_json_schema()
    flat = _flat(_without(whole, "description"), whole.get("$defs", {}))
    return {"type": "object", "properties": {}, **flat}


_NOISE = ("title", "$defs", "additionalProperties", "exclusiveMinimum")
# Bounds that nobody meets by chance: what is refused is told then, and need not be read before.
_WIDE: Mapping[str, Callable[[float], bool]] = {
    "maximum": lambda bound: bound >= 10_000,
    "minimum": lambda bound: bound <= 1,
    "maxLength": lambda bound: bound >= 1000,
    "minLength": lambda bound: bound <= 1,
}


def _flat(node: Json, definitions: Mapping[str, Json]) -> Json:
    if "$ref" in node:
        target = definitions[node["$ref"].rpartition("/")[2]]
        if "description" in node and "properties" in target:  # that says it of its parts, too
            parts = target["properties"]
            bare = {name: _without(part, "description") for name, part in parts.items()}
            target = {**target, "properties": bare}
        node = {**_without(target, "description"), **_without(node, "$ref")}
    if "anyOf" in node:
        options = [option for option in node["anyOf"] if option.get("type") != "null"]
        if len(options) == 1:
            return _flat({**options[0], **_without(node, "anyOf", "default")}, definitions)
    wide = [name for name, is_wide in _WIDE.items() if name in node and is_wide(node[name])]
    result = _without(node, *_NOISE, *wide)
    if result.get("default", 0) is None:
        del result["default"]
    if "properties" in result:
        result["properties"] = {
            name: _flat(child, definitions) for name, child in result["properties"].items()
        }
    if isinstance(result.get("items"), dict):
        result["items"] = _flat(result["items"], definitions)
    return result


def _without(node: Json, *names: str) -> Json:
    return {key: value for key, value in node.items() if key not in names}


def parse(model: type[M], arguments: Mapping[str, Any]) -> M:  # Any: JSON values, checked here
    """The arguments as the model.

    Raises:
        InvalidRequest: they are wrong; the message names each wrong one and what is allowed.
    """
    try:
        return model.model_validate(arguments)
    except ValidationError as error:
        allowed = ", ".join(model.model_fields)
        raise InvalidRequest(explain(error), hint=f"The arguments are: {allowed}.") from error


def explain(error: ValidationError) -> str:
    """What is wrong, one clause per argument, without the values."""
    clauses = []
    for item in error.errors(include_url=False, include_input=False)[:5]:
        where = ".".join(str(part) for part in item["loc"])
        what = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            what = "there is no such argument"
        elif item["type"] == "missing":
            what = "it is required"
        clauses.append(f"{where}: {what}" if where else what)
    return "; ".join(clauses) + "."
