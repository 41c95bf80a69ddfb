"""Values drawn from JSON schemas, most of them valid, and then spoilt.

Everything is drawn from one seeded ``random.Random``, so that a seed says what was sent. Times and
texts that are valid are kept short, so that ten thousand requests take seconds.
"""

from __future__ import annotations

import json
import random
import string
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote, urlencode

Json = Any  # of a schema, or drawn from one

_LETTERS = string.ascii_letters + " äß世🚀‮\u200d\x1b\n\t\x00'\"\\%{}"
_WORDS = ("", "x", "a", "ctrl+a", "shift+Left", "é", "F5", "Return", "nokey", "+", "left", "jpeg")
_TIMES = {"seconds", "wait_seconds", "timeout_seconds", "settle_ms", "quiet_ms", "max_seconds"}
_JUNK: tuple[Json, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, -(2**64), 10**400, 0.5, 1e308, -1e-308, -0.0),
    *(float("nan"), float("inf"), float("-inf"), "", "\0", "\ud800", "x" * 70_000, "NaN", "1e999"),
    *("../../etc/passwd", "%00", "\u202e\u0301" * 50, [], [[]], {}, {"": ""}, {"type": "click"}),
)


class Draw:
    """Draws values; ``own`` brings valid ones for fields that name something of the desktop."""

    def __init__(
        self, chance: random.Random, own: dict[str, Callable[[], Json]] | None = None
    ) -> None:
        self.chance = chance
        self._own = own or {}

    def one_of(self, choices: Sequence[Json]) -> Json:
        return self.chance.choice(choices)

    def text(self, longest: int = 12) -> str:
        count = self.chance.randrange(longest + 1)
        return "".join(self.chance.choice(_LETTERS) for _ in range(count))

    def junk(self) -> Json:
        if self.chance.random() < 0.02:
            deep: Json = []
            for _ in range(self.chance.choice([50, 500])):
                deep = [deep] if self.chance.random() < 0.5 else {"a": deep}
            return deep
        return self.one_of(_JUNK)

    def value(self, schema: Json, name: str = "", root: Json = None) -> Json:
        """A value that the schema (JSON Schema, as pydantic writes it) most often allows."""
        root = schema if root is None else root
        if name in self._own and self.chance.random() < 0.9:
            return self._own[name]()
        if "$ref" in schema:
            return self.value(root["$defs"][schema["$ref"].rpartition("/")[2]], name, root)
        for several in ("anyOf", "oneOf"):
            if several in schema:
                return self.value(self.one_of(schema[several]), name, root)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self.one_of(schema["enum"])
        if "allOf" in schema:
            return self.value(schema["allOf"][0], name, root)
        return self._typed(schema, name, root)

    def _typed(self, schema: Json, name: str, root: Json) -> Json:
        kind = schema.get("type")
        if kind == "object":
            return self._object(schema, root)
        if kind == "array":
            if "prefixItems" in schema:
                return [self.value(item, name, root) for item in schema["prefixItems"]]
            least = schema.get("minItems", 0)
            count = self.chance.randint(least, max(least, min(4, schema.get("maxItems", 4))))
            return [self.value(schema.get("items", {}), name, root) for _ in range(count)]
        if kind in ("integer", "number"):
            return self._number(schema, name, kind == "integer")
        if kind == "boolean":
            return self.chance.random() < 0.5
        if kind == "string":
            return self._string(schema, name)
        return None if kind == "null" else self.junk()

    def _object(self, schema: Json, root: Json) -> Json:
        required = schema.get("required", [])
        drawn = {
            key: self.value(part, key, root)
            for key, part in schema.get("properties", {}).items()
            # Without a time of its own a request waits as long as is usual.
            if key in required or key in _TIMES or "const" in part or self.chance.random() < 0.4
        }
        extra = schema.get("additionalProperties") or next(
            iter(schema.get("patternProperties", {}).values()), None
        )
        if isinstance(extra, dict):
            for _ in range(self.chance.randrange(3)):
                drawn[f"FUZZ_{self.chance.randrange(20)}"] = self.value(extra, "", root)
        return drawn

    def _number(self, schema: Json, name: str, is_whole: bool) -> Json:
        low = schema.get("minimum", schema.get("exclusiveMinimum", -1000))
        high = schema.get("maximum", schema.get("exclusiveMaximum", 1000))
        if name in _TIMES:
            return self.chance.randint(0, 30) if is_whole else self.chance.uniform(0, 0.03)
        if name == "ttl_seconds":  # what they are all sent to is to live on
            return self.chance.randint(60, 600)
        if name in ("repeat", "dx", "dy"):
            low, high = max(low, -3), min(high, 3)
        elif self.chance.random() < 0.1:
            return self.one_of([low, high])
        low, high = max(low, -5), min(high, 1300)
        return self.chance.randint(int(low), int(high)) if is_whole else self.chance.uniform(0.1, 1)

    def _string(self, schema: Json, name: str) -> str:
        if name == "mode":
            return str(self.one_of(["644", "0600", "700"]))
        if name in ("chord", "modifiers"):
            return str(self.one_of([*_WORDS, "ctrl", "shift", "alt", "super"]))
        if "pattern" in schema and "x00" not in schema["pattern"]:
            return str(self.one_of(_WORDS))
        drawn = self.text() if self.chance.random() < 0.8 else str(self.one_of(_WORDS))
        return drawn or "x" * schema.get("minLength", 0)

    def spoilt(self, value: Json) -> Json:
        """``value`` with junk in one place of it, at any depth."""
        if isinstance(value, dict) and value and self.chance.random() < 0.85:
            key = self.one_of(list(value))
            how = self.chance.random()
            if how < 0.15 and key not in _TIMES:
                return {k: v for k, v in value.items() if k != key}
            if how < 0.25:
                return value | {self.text(): self.junk()}
            return value | {key: self.spoilt(value[key])}
        if isinstance(value, list) and value and self.chance.random() < 0.85:
            at = self.chance.randrange(len(value))
            return [*value[:at], self.spoilt(value[at]), *value[at + 1 :]]
        return self.junk()

    def encoded(self, value: Json) -> bytes:
        """JSON of ``value``, now and then no JSON at all."""
        text = json.dumps(value, ensure_ascii=self.chance.random() < 0.8 or "\\ud8" in repr(value))
        how = self.chance.random()
        if how < 0.9:
            return text.encode("utf-8", "surrogatepass")
        broken: list[Callable[[], bytes]] = [
            lambda: text.encode("utf-16", "surrogatepass"),
            lambda: b"\xef\xbb\xbf" + text.encode("utf-8", "surrogatepass"),
            lambda: text.encode("utf-8", "surrogatepass")[: self.chance.randrange(len(text) + 1)],
            lambda: self.chance.randbytes(self.chance.randrange(100)),
            lambda: b"[" * self.chance.choice([10, 1000, 100_000]),
            lambda: b'{"a":' * 10_000,
            lambda: text.encode("utf-8", "surrogatepass") * 2,
            lambda: b"\0" + text.encode("utf-8", "surrogatepass"),
            lambda: b"",
        ]
        return self.chance.choice(broken)()

    def query(self, schema: Json | None) -> str:
        """A query string, most often one that the schema allows."""
        drawn = self.value(schema) if schema else {}
        how = self.chance.random()
        if how < 0.25:
            drawn = self.spoilt(drawn)
        pairs = drawn.items() if isinstance(drawn, dict) else [(self.text(), drawn)]
        text = urlencode([(key, _in_query(value)) for key, value in pairs if value is not None])
        if how > 0.95:
            text += str(
                self.one_of(["&", "&a", "%", "&%zz=1", "&%00=%ff%fe", "&=&=", ";a=1", "&" * 3000])
            )
        return f"?{text}" if text or how > 0.97 else ""

    def segment(self) -> str:
        """A part of a path, percent-encoded, with some tricks."""
        tricks = ("..", ".", "%2e%2e", "%2F", "%00", "%ff", "%", "%zz", "*", "~", "a%0d%0aX:y")
        return str(self.one_of(tricks)) if self.chance.random() < 0.5 else quote(self.text(), "")


def _in_query(value: Json) -> str | bytes:
    if isinstance(value, bool):
        return str(value).lower()
    text = value if isinstance(value, str) else json.dumps(value)
    return text.encode("utf-8", "surrogatepass")[:20_000]
