"""Turn the events of a turn into a response and its events."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from streamingllm.finish_reason import FinishReason
from streamingllm.server.errors import ApiError
from streamingllm.server.forgetting import view_fields
from streamingllm.server.responses.items import call_item
from streamingllm.server.token_texts import TokenTexts
from streamingllm.sessions.transcript import ToolCall
from streamingllm.sessions.turn import (
    SampleEnded,
    SessionView,
    TextDelta,
    ToolCallDelta,
    TurnEnded,
    TurnEvent,
    TurnStarted,
    TurnUsage,
)
from streamingllm.sessions.turn_attempt import new_id, turn_seconds

Event = dict[str, Any]
_ENDS = {
    FinishReason.STOP: ("completed", None),
    FinishReason.LENGTH: ("incomplete", "max_output_tokens"),
    FinishReason.DEADLINE: ("incomplete", "deadline"),
    FinishReason.CANCELLED: ("cancelled", "cancelled"),
}


@dataclass
class ResponseBuilder:
    """Follow one response.

    Args:
        facts: fields of the response that its request decides.
        token_texts: of log probabilities; None if none are asked for.
        id: of the response.
    """

    facts: dict[str, Any]
    token_texts: TokenTexts | None = None
    id: str = field(default_factory=lambda: new_id("resp_"))
    created_at: int = field(default_factory=lambda: int(turn_seconds()))
    status: str = "in_progress"
    view: SessionView | None = None
    answer_id: str | None = None
    _output: list[dict[str, Any]] = field(default_factory=list)
    _open: int | None = None  # the item that goes on
    _calls: dict[int, int] = field(default_factory=dict)
    _incomplete: str | None = None
    _error: dict[str, str] | None = None
    _usage: TurnUsage | None = None
    _number: int = 0

    @property
    def is_ended(self) -> bool:
        """Return whether nothing follows."""
        return self.status not in ("queued", "in_progress")

    def opening(self) -> list[Event]:
        """Return the events before the first item."""
        kinds = ["created", "queued"] if self.status == "queued" else ["created", "in_progress"]
        return [self._response_event(kind) for kind in kinds]

    def events(self, event: TurnEvent) -> Iterator[Event]:
        """Yield the events that an event of the turn is."""
        if isinstance(event, TurnStarted):
            self.view, self.answer_id = event.view, event.answer_id
            if self.status == "queued":
                self.status = "in_progress"
                yield self._response_event("in_progress")
        elif isinstance(event, TextDelta):
            if event.sample == 0:
                yield from self._text(event)
        elif isinstance(event, ToolCallDelta):
            if event.sample == 0:
                yield from self._call(event)
        elif isinstance(event, SampleEnded):
            if event.sample == 0:
                self.status, self._incomplete = _ENDS.get(event.reason, ("failed", None))
                yield from self._close_open()
        elif isinstance(event, TurnEnded):
            self.view, self._usage = event.view, event.usage
            kind = "completed" if self.status == "completed" else "incomplete"
            yield self._response_event(kind)

    def failed(self, error: ApiError) -> Event:
        """Return the last event of a response that failed."""
        self.status = "failed"
        self._error = {"code": error.code or error.type, "message": str(error)}
        return self._response_event("failed")

    def cancelled(self) -> Event:
        """Return the last event of a response that ended before its answer began."""
        self.status, self._incomplete = "cancelled", "cancelled"
        return self._response_event("incomplete")

    def as_json(self) -> dict[str, Any]:
        """Return the response as the specification has it."""
        has_ended = self.is_ended
        reason = None if self._incomplete is None else {"reason": self._incomplete}
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created_at,
            "completed_at": int(time.time()) if self.status == "completed" else None,
            "status": self.status,
            "incomplete_details": reason if has_ended else None,
            "error": self._error,
            "output": [dict(item) for item in self._output],
            "usage": None if self._usage is None else usage_json(self._usage),
            **self.facts,
            **({} if self.view is None else {"streamingllm": view_fields(self.view)}),
        }

    # Items.

    def _text(self, event: TextDelta) -> Iterator[Event]:
        kind = "reasoning" if event.is_reasoning else "message"
        if not event.text and not event.logprobs:
            return
        if self._open is None or self._output[self._open]["type"] != kind:
            yield from self._close_open()
            yield from self._open_text(kind)
        assert self._open is not None
        part = self._output[self._open]["content"][0]
        part["text"] += event.text
        place = {**self._place(self._open), "content_index": 0, "delta": event.text}
        if event.is_reasoning:
            yield self._event("response.reasoning.delta", **place)
            return
        logprobs = self._logprobs(event)
        part["logprobs"] += logprobs
        yield self._event("response.output_text.delta", **place, logprobs=logprobs)

    def _open_text(self, kind: str) -> Iterator[Event]:
        part: dict[str, Any]
        if kind == "reasoning":
            part = {"type": "reasoning_text", "text": ""}
            item = {"type": kind, "id": new_id("rs_"), "summary": [], "content": []}
        else:
            part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
            item = {
                "type": kind,
                "id": self.answer_id or new_id("msg_"),
                "status": "in_progress",
                "role": "assistant",
                "content": [],
            }
        yield from self._add(item)
        assert self._open is not None
        self._output[self._open]["content"] = [part]
        place = {**self._place(self._open), "content_index": 0}
        yield self._event("response.content_part.added", **place, part=_copy(part))

    def _call(self, event: ToolCallDelta) -> Iterator[Event]:
        if event.is_first:
            yield from self._close_open()
            call = ToolCall(event.id, event.name, "")
            yield from self._add(call_item(call, "in_progress"))
            self._calls[event.number] = len(self._output) - 1
        at = self._calls[event.number]
        if event.arguments:
            self._output[at]["arguments"] += event.arguments
            place = self._place(at)
            kind = "response.function_call_arguments.delta"
            yield self._event(kind, **place, delta=event.arguments)

    def _add(self, item: dict[str, Any]) -> Iterator[Event]:
        self._open = len(self._output)
        self._output.append(item)
        yield self._event("response.output_item.added", output_index=self._open, item=dict(item))

    def _close_open(self) -> Iterator[Event]:
        """End the item that goes on, if there is one."""
        if self._open is None:
            return
        at, self._open = self._open, None
        item, place = self._output[at], self._place(at)
        if "status" in item:
            is_whole = self.status in ("in_progress", "completed")
            item["status"] = "completed" if is_whole else "incomplete"
        if item["type"] == "function_call":
            kind = "response.function_call_arguments.done"
            yield self._event(kind, **place, arguments=item["arguments"])
        else:
            part = item["content"][0]
            place["content_index"] = 0
            if item["type"] == "reasoning":
                yield self._event("response.reasoning.done", **place, text=part["text"])
            else:
                yield self._event(
                    "response.output_text.done",
                    **place,
                    text=part["text"],
                    logprobs=part["logprobs"],
                )
            yield self._event("response.content_part.done", **place, part=_copy(part))
        yield self._event("response.output_item.done", output_index=at, item=_copy(item))

    def _logprobs(self, event: TextDelta) -> list[dict[str, Any]]:
        texts = self.token_texts
        if texts is None:
            return []

        def entry(token_id: int, logprob: float) -> dict[str, Any]:
            return {
                "token": texts.text_of(token_id),
                "logprob": logprob,
                "bytes": list(texts.bytes_of(token_id)),
            }

        return [
            {
                **entry(token.token_id, token.logprob),
                "top_logprobs": [entry(token_id, logprob) for token_id, logprob in token.top],
            }
            for token in event.logprobs
        ]

    def _place(self, at: int) -> dict[str, Any]:
        return {"item_id": self._output[at]["id"], "output_index": at}

    def _response_event(self, kind: str) -> Event:
        return self._event(f"response.{kind}", response=self.as_json())

    def _event(self, kind: str, **fields: Any) -> Event:
        event = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        return event


def usage_json(usage: TurnUsage) -> dict[str, Any]:
    """Return the usage of a turn as the specification has it."""
    return {
        "input_tokens": usage.num_prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.num_cached_tokens},
        "output_tokens": usage.num_generated_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.num_reasoning_tokens},
        "total_tokens": usage.num_prompt_tokens + usage.num_generated_tokens,
        "evicted_tokens": usage.num_evicted_tokens,
    }


def _copy(value: dict[str, Any]) -> dict[str, Any]:
    """Return a copy that later text and log probabilities do not change."""
    return {
        key: [dict(part) for part in inner] if isinstance(inner, list) else inner
        for key, inner in value.items()
    }
