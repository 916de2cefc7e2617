"""Random requests to all routes of an OpenAPI document, most of them nearly right."""

from __future__ import annotations

import json
import random
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from tests.server.fuzz_values import Chooser, RandomValues, broken

_MOST_IDS = 200
_IMPORT = "/v1/sessions/import"
_HEADER_NAMES = (
    *("x-session-id", "x-openwebui-chat-id", "x-chat-id", "x-conversation-id", "x-openwebui-task"),
    *("x-streamingllm-events", "idempotency-key", "accept", "accept-encoding", "anthropic-beta"),
)
_HEADER_VALUES = (
    *("visibility", "a", "b", "title_generation", "", "two words", "x" * 2000, "../..", "é"),
    *("text/event-stream", "gzip", "%00", "0", "null"),
)
_SEGMENTS = ("a", "%2e%2e", "%00", "%ff", "%F0%9F%A6%93", "x" * 3000, "a%2Fb", "%", "' OR 1=1")


@dataclass(frozen=True)
class FuzzRequest:
    """Hold one request.

    Args:
        number: that makes it again, with the seed.
        method: of HTTP.
        route: template of the path.
        target: path and query.
        headers: names and values.
        content: body as bytes.
    """

    number: int
    method: str
    route: str
    target: str
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes = b""


class KnownIds:
    """Hold the latest ids that answers named, and names that requests choose themselves."""

    def __init__(self) -> None:
        self._ids: dict[str, deque[str]] = {
            kind: deque(maxlen=_MOST_IDS) for kind in ("session", "resp", "conv", "msg", "call")
        }
        self.documents: deque[Any] = deque([{}], maxlen=20)

    def learn(self, answer: Any) -> None:
        """Note all ids of an answer, and a session that was exported."""
        if isinstance(answer, dict) and "token_ids" in answer:
            self.documents.append(answer)
        pending = [answer]
        while pending:
            inner = pending.pop()
            if isinstance(inner, dict | list):
                pending += inner.values() if isinstance(inner, dict) else inner
            elif isinstance(inner, str) and len(inner) < 80:
                kind = inner.split("_", 1)[0].replace("sess", "session")
                if kind in self._ids and "_" in inner:
                    self._ids[kind].append(inner)

    def one(self, kind: str, rng: random.Random) -> str:
        """Return an id of a kind, or a name of ours."""
        ids = self._ids[kind]
        if kind == "session" and rng.random() < 0.5:
            return rng.choice("abcdefgh")
        return rng.choice(ids) if ids and rng.random() < 0.9 else f"{kind}_none"


class FuzzRequests:
    """Make requests to the routes of a document.

    Args:
        document: OpenAPI of the server.
        others: further documents whose bodies are sent to routes that both have.
        likely: values of fields by name.
        known: ids of what the server holds.
        seed: of all requests.
    """

    def __init__(
        self,
        document: Any,
        others: list[Any],
        likely: Mapping[str, Chooser],
        known: KnownIds,
        seed: int,
    ) -> None:
        self._seed = seed
        self.known = known
        self._operations = _operations(document, "", RandomValues(document, likely))
        for other in others:
            self._operations += _operations(other, "/v1", RandomValues(other, likely))

    def request(self, number: int) -> FuzzRequest:
        """Return the request of a number."""
        rng = random.Random(f"{self._seed}/{number}")
        route, method, operation, values = rng.choice(self._operations)
        path, query = route, []
        for parameter in operation.get("parameters", ()):
            name = parameter["name"]
            if parameter["in"] == "path":
                path = path.replace(f"{{{name}}}", self._segment(rng, name))
            elif parameter["in"] == "query" and rng.random() < 0.4:
                value = values.value(rng, parameter["schema"], name)
                value = broken(rng, [value]) if rng.random() < 0.2 else value
                query.append(f"{name}={quote(_plain(value), safe='')}")
        headers = _headers(rng)
        content = b""
        body = operation.get("requestBody", {}).get("content", {}).get("application/json")
        if body is not None:
            is_import = route == _IMPORT and rng.random() < 0.9
            value = rng.choice(self.known.documents) if is_import else None
            content = _content(rng, value or values.value(rng, body["schema"]))
            headers.setdefault("content-type", "application/json")
        target = path + ("?" + "&".join(query) if query else "")
        return FuzzRequest(number, method.upper(), route, target, headers, content)

    def _segment(self, rng: random.Random, name: str) -> str:
        kinds = {"session_id": "session", "response_id": "resp", "conversation_id": "conv"}
        if rng.random() < 0.1:
            return quote(rng.choice(_SEGMENTS), safe="%.")
        return self.known.one(kinds.get(name, "msg"), rng)


def likely_values(model: str, known: KnownIds) -> dict[str, Chooser]:
    """Return makers of values that lead past the first check, by the name of the field.

    Args:
        model: name that the server knows.
        known: ids of what the server holds.
    """
    few: Chooser = lambda rng: rng.choice((1, 2, 3, 6))  # noqa: E731
    return {
        "model": lambda _: model,
        **dict.fromkeys(("max_tokens", "max_completion_tokens", "max_output_tokens"), few),
        **dict.fromkeys(("n", "best_of"), lambda rng: rng.choice((1, 1, 2))),
        "session_id": lambda rng: known.one("session", rng),
        "message_id": lambda rng: known.one("msg", rng),
        "previous_response_id": lambda rng: known.one("resp", rng),
        "conversation": lambda rng: known.one("conv", rng),
        "call_id": lambda rng: known.one("call", rng),
        "after": lambda rng: known.one(rng.choice(("msg", "session")), rng),
        "response_format": lambda rng: {"type": rng.choice(("text", "json_object"))},
        "schema": lambda rng: {"type": rng.choice(("object", "array", "integer", "no"))},
        "num_turns": lambda rng: rng.choice((0, 1, 2)),
    }


def _operations(document: Any, prefix: str, values: RandomValues) -> list[Any]:
    found = []
    for path, methods in document["paths"].items():
        for method in ("get", "post", "patch", "put", "delete"):
            if method in methods:
                # Routes that answer get as many requests as the others together.
                weight = 4 if "requestBody" in methods[method] else 1
                found += [(prefix + path, method, methods[method], values)] * weight
    return found


def _headers(rng: random.Random) -> dict[str, str]:
    if rng.random() < 0.7:
        return {}
    names = rng.sample(_HEADER_NAMES, rng.randint(1, 2))
    return {name: rng.choice(_HEADER_VALUES) for name in names}


def _content(rng: random.Random, value: Any) -> bytes:
    """A body: as the schema says, wrong in places, or no JSON."""
    chance = rng.random()
    if chance < 0.4:
        value = broken(rng, value)
    text = json.dumps(value).encode()
    if chance > 0.97:
        cut = rng.randrange(len(text) + 1)
        return rng.choice((b"", text[:cut], b"\xff" + text, text + b"}", b"[" * 20_000, b"\x00"))
    return text


def _plain(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text.encode(errors="replace").decode()[:5000]  # clients refuse longer addresses
