"""Random frames for the WebSockets of the server."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

from pydantic import TypeAdapter

from streamingllm.server.schemas.realtime import EVENT
from streamingllm.server.schemas.responses import SocketRequest
from streamingllm.server.schemas.streams import FRAME
from tests.server.fuzz_values import Chooser, RandomValues, broken

_SCHEMAS: dict[str, TypeAdapter[Any]] = {
    "/v1/responses": TypeAdapter(SocketRequest),
    "/v1/realtime": EVENT,
    "/v1/streams/fuzzed": FRAME,
}
_PROBE_ID = "probe"


class Frames:
    """Make frames of each socket.

    Args:
        likely: values of fields by name.
        specification: OpenAPI of Open Responses, whose frames are sent too.
    """

    def __init__(self, likely: dict[str, Chooser], specification: Any) -> None:
        self._made: dict[str, list[tuple[RandomValues, Any]]] = {}
        for path, adapter in _SCHEMAS.items():
            schema = adapter.json_schema()
            self._made[path] = [(RandomValues(schema, likely), schema)]
        event = {"$ref": "#/components/schemas/WebSocketResponseCreateEvent"}
        self._made["/v1/responses"].append((RandomValues(specification, likely), event))

    @property
    def paths(self) -> list[str]:
        """Paths of all sockets."""
        return [*self._made]

    def some(self, rng: random.Random, path: str) -> list[str | bytes]:
        """Return one to six frames."""
        return [self._one(rng, path) for _ in range(rng.randint(1, 6))]

    def probe(self, path: str) -> tuple[str, Callable[[Any], bool]]:
        """Return a frame that a usable socket answers at once, and the test for that answer."""
        if path == "/v1/responses":
            return '{"type": "probe"}', lambda e: e["type"] == "error" and "probe" not in str(e)
        if path == "/v1/realtime":
            frame = {"type": "response.cancel", "response_id": "none", "event_id": _PROBE_ID}
            return json.dumps(
                frame
            ), lambda e: e["type"] == "error" and e["error"]["event_id"] == _PROBE_ID
        return '{"type": "inspect"}', lambda e: e["type"] == "view"

    def _one(self, rng: random.Random, path: str) -> str | bytes:
        if rng.random() < 0.05:
            return rng.choice((b"\xff\x00", "", "[", "[" * 20_000, "3", "null", '{"type": 3}'))
        values, schema = rng.choice(self._made[path])
        frame = values.value(rng, schema)
        return json.dumps(broken(rng, frame) if rng.random() < 0.4 else frame)
