"""Turn the events of a turn into those of a realtime response."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from streamingllm.finish_reason import FinishReason
from streamingllm.server.forgetting import view_fields
from streamingllm.server.realtime.items import call_item
from streamingllm.sessions.transcript import ToolCall
from streamingllm.sessions.turn import (
    SampleEnded,
    TextDelta,
    ToolCallDelta,
    TurnEnded,
    TurnEvent,
    TurnStarted,
)

Event = dict[str, Any]
_STATUS = {
    FinishReason.STOP: ("completed", None),
    FinishReason.LENGTH: ("incomplete", "max_output_tokens"),
    FinishReason.DEADLINE: ("incomplete", "max_output_tokens"),
    FinishReason.CANCELLED: ("cancelled", "client_cancelled"),
}


@dataclass
class RealtimeResponse:
    """Follow one response; its events are those of its text and of its calls, in order.

    Args:
        metadata: of the request, echoed.
        max_output_tokens: of the request, echoed.
        is_apart: whether the response is not added to the conversation.
    """

    metadata: dict[str, str] | None = None
    max_output_tokens: int | str = "inf"
    is_apart: bool = False
    is_running: bool = True
    id: str = field(default_factory=lambda: f"resp_{uuid4().hex}")
    conversation_id: str | None = None
    _output: list[dict[str, Any]] = field(default_factory=list)
    _answer_id: str = ""
    _text_at: int | None = None
    _calls_at: dict[int, int] = field(default_factory=dict)
    _status: tuple[str, str | None] = ("in_progress", None)

    def created(self) -> Event:
        """Return the first event."""
        return {"type": "response.created", "response": self.as_json()}

    def events(self, event: TurnEvent) -> Iterator[Event]:
        """Yield the events that an event of the turn is."""
        if isinstance(event, TurnStarted):
            self.conversation_id = None if self.is_apart else event.view.session_id or None
            self._answer_id = event.answer_id
        elif isinstance(event, TextDelta):
            if event.text and not event.is_reasoning and event.sample == 0:
                yield from self._text(event.text)
        elif isinstance(event, ToolCallDelta):
            yield from self._call(event)
        elif isinstance(event, SampleEnded):
            self._status = _STATUS.get(event.reason, ("failed", None))
            yield from self._close(event)
        elif isinstance(event, TurnEnded):
            self.is_running = False
            yield {"type": "response.done", "response": self._done(event)}

    def failed(self, error: dict[str, Any]) -> Event:
        """Return the last event of a response that was refused or failed."""
        details = {"type": "failed", "error": {"type": error["type"], "code": error["code"]}}
        return self._ended("failed", details)

    def cancelled(self) -> Event:
        """Return the last event of a response that was cancelled and is not kept."""
        return self._ended("cancelled", {"type": "cancelled", "reason": "client_cancelled"})

    def as_json(self) -> dict[str, Any]:
        """Return the response object."""
        return {
            "object": "realtime.response",
            "id": self.id,
            "status": self._status[0],
            "status_details": None,
            "output": list(self._output),
            "conversation_id": self.conversation_id,
            "output_modalities": ["text"],
            "max_output_tokens": self.max_output_tokens,
            "usage": None,
            "metadata": self.metadata,
        }

    def _ended(self, status: str, details: dict[str, Any]) -> Event:
        self._status, self.is_running = (status, None), False
        return {"type": "response.done", "response": {**self.as_json(), "status_details": details}}

    def _text(self, text: str) -> Iterator[Event]:
        if self._text_at is None:
            self._text_at = len(self._output)
            item: dict[str, Any] = {
                "id": self._answer_id,
                "object": "realtime.item",
                "type": "message",
                "status": "in_progress",
                "role": "assistant",
                "content": [],
            }
            self._output.append(item)
            yield from self._added(self._text_at)
            yield {
                "type": "response.content_part.added",
                **self._place(self._text_at),
                "content_index": 0,
                "part": {"type": "text", "text": ""},
            }
            item["content"] = [{"type": "output_text", "text": ""}]
        self._output[self._text_at]["content"][0]["text"] += text
        yield {
            "type": "response.output_text.delta",
            **self._place(self._text_at),
            "content_index": 0,
            "delta": text,
        }

    def _call(self, event: ToolCallDelta) -> Iterator[Event]:
        if event.is_first:
            at = self._calls_at[event.number] = len(self._output)
            self._output.append(call_item(ToolCall(event.id, event.name, ""), "in_progress"))
            yield from self._added(at)
        at = self._calls_at[event.number]
        if event.arguments:
            self._output[at]["arguments"] += event.arguments
            yield {
                "type": "response.function_call_arguments.delta",
                **self._place(at),
                "call_id": event.id,
                "delta": event.arguments,
            }

    def _close(self, event: SampleEnded) -> Iterator[Event]:
        for at, item in enumerate(self._output):
            item["status"] = "completed" if self._status[0] == "completed" else "incomplete"
            if item["type"] == "message":
                text = item["content"][0]["text"]
                place = {**self._place(at), "content_index": 0}
                yield {"type": "response.output_text.done", **place, "text": text}
                part = {"type": "text", "text": text}
                yield {"type": "response.content_part.done", **place, "part": part}
            else:
                yield {
                    "type": "response.function_call_arguments.done",
                    **self._place(at),
                    "call_id": item["call_id"],
                    "name": item["name"],
                    "arguments": item["arguments"],
                }
            yield {
                "type": "response.output_item.done",
                "response_id": self.id,
                "output_index": at,
                "item": item,
            }
            if not self.is_apart:
                yield {"type": "conversation.item.done", "item": item, "previous_item_id": None}

    def _done(self, event: TurnEnded) -> dict[str, Any]:
        usage = event.usage
        status, reason = self._status
        details = {"type": status} if reason is None else {"type": status, "reason": reason}
        return {
            **self.as_json(),
            "status_details": None if status == "completed" else details,
            "usage": {
                "total_tokens": usage.num_prompt_tokens + usage.num_generated_tokens,
                "input_tokens": usage.num_prompt_tokens,
                "output_tokens": usage.num_generated_tokens,
                "input_token_details": {
                    "text_tokens": usage.num_prompt_tokens,
                    "audio_tokens": 0,
                    "cached_tokens": usage.num_cached_tokens,
                },
                "output_token_details": {
                    "text_tokens": usage.num_generated_tokens,
                    "audio_tokens": 0,
                },
            },
            "streamingllm": view_fields(event.view),
        }

    def _added(self, at: int) -> Iterator[Event]:
        item = dict(self._output[at])
        yield {
            "type": "response.output_item.added",
            "response_id": self.id,
            "output_index": at,
            "item": item,
        }
        if not self.is_apart:
            yield {"type": "conversation.item.added", "item": item, "previous_item_id": None}

    def _place(self, at: int) -> dict[str, Any]:
        return {"response_id": self.id, "item_id": self._output[at]["id"], "output_index": at}
