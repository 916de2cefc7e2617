"""Read and change the bodies of chat completions, as any server of that API has them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from streamingllm.errors import InputError
from streamingllm.gateway.seen_messages import Told
from streamingllm.gateway.turn_memory import Turn
from streamingllm.server.encoders.common import to_json
from streamingllm.server.sse import in_one_line

Json = dict[str, Any]


def told_in(body: Mapping[str, Any]) -> list[Told]:
    """Return the messages of a request.

    Raises:
        InputError: there are none.
    """
    messages = body.get("messages")
    if not isinstance(messages, list) or not all(isinstance(one, dict) for one in messages):
        raise InputError("messages: is no list of objects; send the messages of the chat")
    return [Told(str(one.get("role", "")), _storable(text_of(one))) for one in messages]


def _storable(text: str) -> str:
    """Return a text that can be stored: half a surrogate pair becomes a question mark."""
    return text.encode(errors="replace").decode()


def text_of(message: Mapping[str, Any]) -> str:
    """Return the text of a message; for one of tool calls alone, the calls."""
    content = message.get("content")
    if isinstance(content, list):
        parts = (part for part in content if isinstance(part, dict))
        content = "\n".join(str(part.get("text") or "") for part in parts).strip()
    if isinstance(content, str) and content:
        return content
    calls = [call.get("function") or {} for call in message.get("tool_calls") or ()]
    return "\n".join(f"{call.get('name', '')}({call.get('arguments', '')})" for call in calls)


def with_recall(body: Mapping[str, Any], turn: Turn) -> Json:
    """Return a request with the recalled text before the user's last message."""
    if not turn.block:
        return dict(body)
    *before, last = body["messages"]
    content = last.get("content")
    if isinstance(content, list):
        content = [{"type": "text", "text": f"{turn.block}\n"}, *content]
    else:
        content = f"{turn.block}\n{content}"
    return {**body, "messages": [*before, {**last, "content": content}]}


def with_messages(body: Mapping[str, Any], messages: Sequence[Json]) -> Json:
    """Return a request with other messages, which names no session."""
    changed = {**body, "messages": [*messages]}
    if isinstance(metadata := body.get("metadata"), dict):
        changed["metadata"] = {k: v for k, v in metadata.items() if k != "session_id"}
    return changed


@dataclass(frozen=True)
class Facts:
    """Hold fields that an answer says of its session, in `streamingllm`.

    Args:
        told: the gateway's own.
        assumed: said only where the upstream says nothing.
    """

    told: Json
    assumed: Json = field(default_factory=dict)

    def added_to(self, answer: Json) -> Json:
        """Return an answer or a chunk with the fields; others that the upstream says stay."""
        there = answer.get("streamingllm")
        said = there if isinstance(there, dict) else {}
        return {**answer, "streamingllm": {**self.assumed, **said, **self.told}}


class AnswerReader:
    """Read the events of a streamed answer: write the facts into its end, collect its text.

    Args:
        facts: for the chunks that end the answer.

    Attributes:
        is_whole: whether the answer has ended as it should.
    """

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._text = ""
        self._calls: dict[int, Json] = {}
        self.is_whole = False

    @property
    def text(self) -> str:
        """Text of the first choice so far; see `text_of`."""
        calls = [{"function": self._calls[at]} for at in sorted(self._calls)]
        return text_of({"content": self._text, "tool_calls": calls})

    def line(self, line: str) -> str:
        """Return a line of the stream as the client gets it."""
        if not line.startswith("data:") or not (data := line[5:].strip()):
            return line
        if data == "[DONE]":
            return line
        try:
            chunk = json.loads(data)
        except ValueError:
            return line
        if not isinstance(chunk, dict) or "choices" not in chunk:
            return line
        choices = chunk["choices"] or []
        for choice in choices:
            if choice.get("index", 0) == 0:
                self._add(choice.get("delta") or {})
                self.is_whole |= choice.get("finish_reason") is not None
        is_end = not choices or any(choice.get("finish_reason") for choice in choices)
        if not is_end:
            return line
        return f"data: {in_one_line(to_json(self._facts.added_to(chunk)))}"

    def _add(self, delta: Json) -> None:
        self._text += delta.get("content") or ""
        for part in delta.get("tool_calls") or ():
            told = part.get("function") or {}
            call = self._calls.setdefault(part.get("index", 0), {"name": "", "arguments": ""})
            for name in call:
                call[name] += told.get(name) or ""
