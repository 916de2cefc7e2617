"""Random JSON: values of a schema, and values that are wrong somewhere."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Mapping
from typing import Any

MAX_DEPTH = 7
_WORDS = (
    *("hi", "Where is the zebra?", "~u:x~a:", "<think>", "<|im_end|>", ""),
    *("é🦓\u200d", "\u0000\n\t"),
)
_WRONG: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1.5, 1e308, 10**30, -(2**63), 2**31, "", "x", "\ud800", "\u0000"),
    *([], {}, [[]], [None], {"": None}, {"type": "frobnicate"}, "x" * 5000, [0] * 300),
    *(float("nan"), float("inf")),
)
_WANTED = ("input", "stream")  # no specification requires them, but they lead further
Chooser = Callable[[random.Random], Any]


class RandomValues:
    """Make values of the schemas of one document.

    Args:
        document: with the `components` that schemas refer to.
        likely: makes the values of fields by name, for most of the values.
    """

    def __init__(self, document: Mapping[str, Any], likely: Mapping[str, Chooser]) -> None:
        self._document = document
        self._likely = likely

    def value(self, rng: random.Random, schema: Any, name: str = "", depth: int = 0) -> Any:
        """Return a value of a schema.

        Args:
            rng: decides.
            schema: of the value.
            name: of the field that holds it.
            depth: of the value in its document; deep ones are as small as the schema allows.
        """
        if name in self._likely and rng.random() < 0.9:
            return self._likely[name](rng)
        schema = self._resolved(schema)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return rng.choice(schema["enum"])
        for union in ("anyOf", "oneOf"):
            if union in schema:
                return self.value(rng, self._one_of(rng, schema[union], depth), name, depth)
        kind = schema.get("type", "any")
        if isinstance(kind, list):
            kind = rng.choice(kind)
        if kind == "object":
            return self._object(rng, schema, depth)
        if kind == "array":
            return self._array(rng, schema, depth)
        return _scalar(rng, kind, schema)

    def _resolved(self, schema: Any) -> Any:
        while "$ref" in schema or "allOf" in schema:
            parts = [*schema.get("allOf", ())]
            if "$ref" in schema:
                found: Any = self._document
                for step in schema["$ref"].removeprefix("#/").split("/"):
                    found = found[step]
                parts.append(found)
            schema = {k: v for k, v in schema.items() if k not in ("$ref", "allOf")}
            for part in parts:
                schema = {**part, **schema}
        return schema

    def _one_of(self, rng: random.Random, options: list[Any], depth: int) -> Any:
        if depth >= MAX_DEPTH:
            plain = [option for option in options if "properties" not in self._resolved(option)]
            return (plain or options)[0]
        return rng.choice(options)

    def _object(self, rng: random.Random, schema: Any, depth: int) -> dict[str, Any]:
        required, properties = schema.get("required", ()), schema.get("properties", {})
        likelihood = min(0.3, 2 / (1 + len(properties))) if depth < MAX_DEPTH else 0.0
        made = {}
        for name, inner in properties.items():
            if name in required or rng.random() < (0.9 if name in _WANTED else likelihood):
                made[name] = self.value(rng, inner, name, depth + 1)
        free = schema.get("patternProperties", {}) or schema.get("additionalProperties")
        if free and rng.random() < 0.7:
            inner = next(iter(free.values())) if "patternProperties" in schema else free
            for _ in range(rng.randint(0, 2)):
                key = str(rng.randrange(300)) if "patternProperties" in schema else _text(rng)
                made[key] = self.value(rng, {} if inner is True else inner, "", depth + 1)
        return made

    def _array(self, rng: random.Random, schema: Any, depth: int) -> list[Any]:
        least = schema.get("minItems", 0)
        most = min(schema.get("maxItems", 3), 3) if depth < MAX_DEPTH else least
        inner = schema.get("items", {})
        num_items = rng.randint(least, max(least, most))
        return [self.value(rng, inner, "", depth + 1) for _ in range(num_items)]


def broken(rng: random.Random, value: Any) -> Any:
    """Return a value with one to three parts replaced, dropped, added or repeated."""
    value = copy.deepcopy(value)
    for _ in range(rng.randint(1, 3)):
        holder = rng.choice(_holders(value) or [{}])
        if isinstance(holder, list):
            change = rng.choice(("replace", "drop", "repeat"))
            at: Any = rng.randrange(len(holder)) if holder else None
        else:
            change = rng.choice(("replace", "replace", "drop", "add"))
            at = rng.choice([*holder]) if holder else None
        if change == "add" and isinstance(holder, dict):
            holder[rng.choice(("frobnicate", "", "\ud800", "session_id", "x" * 300))] = _wrong(rng)
        elif at is None:
            continue
        elif change == "drop":
            del holder[at]
        elif change == "repeat":
            holder += [holder[at]] * rng.choice((1, 40))
        else:
            holder[at] = _wrong(rng)
    return value if rng.random() < 0.97 else _wrong(rng)


def _holders(value: Any) -> list[Any]:
    """All objects and lists of a value."""
    found, pending = [], [value]
    while pending:
        inner = pending.pop()
        if isinstance(inner, dict | list):
            found.append(inner)
            pending += inner.values() if isinstance(inner, dict) else inner
    return found


def _wrong(rng: random.Random) -> Any:
    if rng.random() < 0.05:
        deep: Any = 1
        for _ in range(rng.choice((70, 400))):
            deep = [deep] if rng.random() < 0.5 else {"a": deep}
        return deep
    return copy.deepcopy(rng.choice(_WRONG))


def _scalar(rng: random.Random, kind: str, schema: Any) -> Any:
    if kind == "string":
        return _string(rng, schema)
    if kind in ("integer", "number"):
        return _number(rng, kind, schema)
    if kind == "boolean":
        return rng.random() < 0.5
    if kind == "null":
        return None
    return rng.choice((None, True, 3, _text(rng), {"type": "object"}, [1, "a"]))


def _string(rng: random.Random, schema: Any) -> str:
    least, most = schema.get("minLength", 0), schema.get("maxLength", 10**6)
    if "pattern" in schema:  # digits are of all patterns here
        return str(rng.randrange(1, 300))
    text = _text(rng)
    return (text + "x" * max(0, least - len(text)))[:most]


def _number(rng: random.Random, kind: str, schema: Any) -> Any:
    low = schema.get("minimum", schema.get("exclusiveMinimum", -(10**6)))
    high = schema.get("maximum", schema.get("exclusiveMaximum", 10**6))
    if kind == "integer":
        low, high = int(low) + ("exclusiveMinimum" in schema), int(high)
        high -= "exclusiveMaximum" in schema
        near = min(high, low + 8)
        return rng.choice((low, high, rng.randint(low, near), rng.randint(low, high)))
    return rng.choice((low, high, low + (high - low) * rng.uniform(0.01, 0.99)))


def _text(rng: random.Random) -> str:
    if rng.random() < 0.1:
        return "".join(
            chr(rng.choice((rng.randrange(128), rng.randrange(0x3000)))) for _ in range(40)
        )
    return " ".join(rng.choice(_WORDS) for _ in range(rng.randint(1, 3)))
