"""What a tool server says of its tools, and what is passed to one, checked. Pure.

A server may be anybody's: what it offers is read by models in every conversation and its schemas
judge what callers send. So both are bounded, and a schema can neither fetch anything, nor keep the
controller busy: patterns are left to the server, and judging ends after so many steps.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple

from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.validators import extend
from referencing import Registry
from referencing.exceptions import Unresolvable

from workspace.errors import InvalidRequest, TooLarge
from workspace.tools import TOOL_NAME, Json, ToolInfo

MAX_TOOLS = 64
MAX_LOOKED_AT = 128  # of what is listed
MAX_DESCRIPTION = 1000  # characters
MAX_SCHEMA_BYTES = 16 << 10
MAX_LISTED_BYTES = 128 << 10  # of all that one server offers
MAX_ARGUMENT_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_STEPS = 10_000
MAX_VALUES = 20_000  # in arguments that are judged
MAX_TOLD = 10  # of what is left out
_NAME = re.compile(TOOL_NAME)
# What is not judged here: an expression that never ends, all pairs of a long list, what counts no
# steps.
_NOT_HERE = (
    "pattern", "patternProperties", "uniqueItems", "format", "$dynamicRef", "unevaluatedItems",
    "unevaluatedProperties",
)  # fmt: skip
_NO_FORMATS = FormatChecker(formats=())
_steps: ContextVar[int] = ContextVar("steps", default=0)


class TooManySteps(Exception):
    """A schema takes too long to judge by."""


class Offer(NamedTuple):
    """What of a server's listing is taken, and what is not, with why."""

    tools: list[ToolInfo]
    left_out: list[str]


def offer(listed: Sequence[object], *, is_whole: bool = True, taken: Sequence[str] = ()) -> Offer:
    """What is taken of what a server listed; ``taken`` are arguments that no tool may have.

    ``is_whole``: it did not go on listing.
    """
    tools: dict[str, ToolInfo] = {}
    left_out: list[str] = []
    size = 0
    for tool in listed[:MAX_LOOKED_AT]:
        try:
            if len(tools) >= MAX_TOOLS:
                raise ValueError(f"a server has at most {MAX_TOOLS} tools")
            info = _checked(tool, taken)
            if info.name in tools:
                raise ValueError("it is listed twice")
            size += len(info.model_dump_json())
            if size > MAX_LISTED_BYTES:
                raise ValueError(f"all of them have more than {MAX_LISTED_BYTES >> 10} KiB")
        except ValueError as error:
            left_out.append(f"{_called(tool)}: {error}")
        else:
            tools[info.name] = info
    more = len(left_out) - MAX_TOLD + max(0, len(listed) - MAX_LOOKED_AT)
    told = left_out[:MAX_TOLD] + ([f"and {more} more"] if more > 0 else [])
    if not is_whole:
        told.append("it goes on listing more than is read")
    return Offer(list(tools.values()), told)


def _called(tool: object) -> str:
    name = tool.get("name") if isinstance(tool, Mapping) else None
    return repr(name[:60]) if isinstance(name, str) else "a tool without a name"


def _checked(tool: object, taken: Sequence[str]) -> ToolInfo:
    if not isinstance(tool, Mapping):
        raise ValueError("it is no object")
    name, schema = tool.get("name"), tool.get("inputSchema")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError("its name is not of letters, digits, _ and -")
    if not isinstance(schema, Mapping):
        raise ValueError("it has no schema")
    description = tool.get("description")
    return ToolInfo(
        name=name,
        description=_trimmed(description if isinstance(description, str) else ""),
        input_schema=_schema(schema, taken),
    )


def _trimmed(text: str) -> str:
    """A description without what a terminal or a model would take for more than text."""
    told = text[: 4 * MAX_DESCRIPTION]
    plain = "".join(c for c in told if c.isprintable() or c == "\n").strip()
    return plain if len(plain) <= MAX_DESCRIPTION else plain[: MAX_DESCRIPTION - 3] + "..."


def _schema(schema: Mapping[str, Any], taken: Sequence[str]) -> Json:  # Any: JSON values
    if _depth(schema) > MAX_DEPTH:
        raise ValueError(f"its schema is nested more than {MAX_DEPTH} deep")
    try:
        size = len(json.dumps(schema, allow_nan=False))
    except ValueError as error:
        raise ValueError("its schema holds what JSON has not") from error
    if size > MAX_SCHEMA_BYTES:
        raise ValueError(f"its schema has more than {MAX_SCHEMA_BYTES >> 10} KiB")
    if schema.get("type") != "object":
        raise ValueError("its schema is not of an object")
    for reference in _references(schema):
        if not (isinstance(reference, str) and reference.startswith("#")):
            raise ValueError("its schema refers to another document")
    plain = dict(schema)
    try:
        Draft202012Validator.check_schema(plain, format_checker=_NO_FORMATS)
    except SchemaError as error:
        raise ValueError(f"its schema is none: {error.message[:200]}") from error
    properties = plain.get("properties")
    for name in taken:
        if isinstance(properties, Mapping) and name in properties:
            raise ValueError(f"it has an argument {name}, which Carrel adds")
    return plain


def _depth(value: object) -> int:
    """How deep it is nested, or one more than is allowed."""
    deepest, left = 0, [(value, 1)]
    while left:
        item, depth = left.pop()
        deepest = max(deepest, depth)
        if depth > MAX_DEPTH:
            return depth
        if isinstance(item, Mapping):
            left += [(child, depth + 1) for child in item.values()]
        elif isinstance(item, list):
            left += [(child, depth + 1) for child in item]
    return deepest


def _within(value: object) -> Iterator[object]:
    """Every value in it, and itself."""
    left = [value]
    while left:
        item = left.pop()
        yield item
        if isinstance(item, Mapping):
            left += item.values()
        elif isinstance(item, list):
            left += item


def _references(schema: object) -> Iterator[object]:
    """All that leads elsewhere; ``$id`` would say from where the others lead."""
    for item in _within(schema):
        if isinstance(item, Mapping):
            yield from (item[key] for key in ("$ref", "$dynamicRef", "$id") if key in item)


def _has_patterns(schema: object) -> bool:
    """Whether what other keywords say depends on expressions."""
    return any(
        isinstance(item, Mapping) and "patternProperties" in item for item in _within(schema)
    )


def _count(value: object) -> int:
    return sum(1 for _ in _within(value))


def arguments(schema: Json, given: Json) -> None:
    """Whether a tool may be given these.

    Raises:
        InvalidRequest: they are not what its schema says; the message says where.
        TooLarge: they are too long to be passed on.
    """
    try:
        size = len(json.dumps(given, allow_nan=False))
    except ValueError as error:
        raise InvalidRequest("arguments: they hold what JSON has not.") from error
    if size > MAX_ARGUMENT_BYTES:
        raise TooLarge(f"The arguments have more than {MAX_ARGUMENT_BYTES >> 20} MiB.")
    if _depth(given) > MAX_DEPTH:
        raise InvalidRequest(f"arguments: they are nested more than {MAX_DEPTH} deep.")
    if _count(given) > MAX_VALUES or _has_patterns(schema):
        return  # its server judges
    judge = _Judge(schema, registry=Registry())
    try:
        wrong = _counted(lambda: next(iter(judge.iter_errors(given)), None))
    except (TooManySteps, RecursionError, Unresolvable):
        return  # its server judges
    except Exception as error:  # jsonschema wraps what a reference leads to
        if isinstance(error.__cause__, Unresolvable):
            return
        raise
    if wrong is not None:
        where = ".".join(str(part) for part in wrong.absolute_path)
        hint = f"The arguments are: {', '.join(list(_properties(schema))[:30]) or 'none'}."
        told = wrong.message[:300]
        raise InvalidRequest(f"{where}: {told}" if where else told, hint=hint)


def _properties(schema: Json) -> list[str]:
    properties = schema.get("properties")
    return [str(name)[:60] for name in properties] if isinstance(properties, Mapping) else []


def _counted(work: Callable[[], Any]) -> Any:  # Any: what the work makes
    token = _steps.set(0)
    try:
        return work()
    finally:
        _steps.reset(token)


# Any, below: jsonschema's own functions for keywords are untyped.
def _step(judge: Callable[..., Any]) -> Callable[..., Any]:
    def counted(*args: Any) -> Iterator[ValidationError]:
        steps = _steps.get() + 1
        if steps > MAX_STEPS:
            raise TooManySteps
        _steps.set(steps)
        return iter(judge(*args) or ())

    return counted


_Judge: Any = extend(  # type: ignore[no-untyped-call]  # as its stubs have it
    Draft202012Validator,
    {
        keyword: None if keyword in _NOT_HERE else _step(judge)
        for keyword, judge in Draft202012Validator.VALIDATORS.items()
    },
)
