"""An answer while it is generated: its text, its reasoning, its tool calls."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from streamingllm.engine import StepOutput
from streamingllm.finish_reason import FinishReason
from streamingllm.sessions.answer_parser import (
    AnswerParser,
    AnswerPart,
    CallArguments,
    CallStarted,
    Reasoning,
    Text,
)
from streamingllm.sessions.transcript import ContentPart, Message, ToolCall
from streamingllm.sessions.turn import SampleEnded, TextDelta, ToolCallDelta
from streamingllm.sessions.turn_attempt import new_id


@dataclass
class _Call:
    id: str
    name: str
    arguments: str = ""


@dataclass
class Answer:
    """Collect the step outputs of one sample.

    Args:
        sample: number of the sample.
        parser: splits its text.
        message_id: of the message that it will be.
        prefill: text with which the answer began.
        hidden: name of a tool whose calls are run here, and are no part of the message.
    """

    sample: int
    parser: AnswerParser
    message_id: str
    prefill: str = ""
    hidden: str = ""
    num_tokens: int = 0
    num_reasoning_tokens: int = 0
    reason: FinishReason | None = None
    error: Exception | None = None
    stop_string: str | None = None
    _texts: list[str] = field(default_factory=list)
    _reasonings: list[str] = field(default_factory=list)
    _calls: dict[int, _Call] = field(default_factory=dict)

    def add(self, output: StepOutput) -> list[TextDelta | ToolCallDelta]:
        """Return the events of a step output."""
        self.num_tokens += len(output.token_ids)
        parts = self.parser.feed(output.text) if output.text else []
        if output.finish_reason is not None:
            parts = [*parts, *self.parser.finish()]
            self.reason, self.error = output.finish_reason, output.error
            self.stop_string = output.stop_string
        events = [self._event(part) for part in parts]
        found = [event for event in events if event is not None]
        if any(isinstance(part, Reasoning) for part in parts):
            self.num_reasoning_tokens += len(output.token_ids)
        if output.logprobs:
            for at, event in enumerate(found):
                if isinstance(event, TextDelta):
                    found[at] = TextDelta(
                        event.sample, event.text, output.logprobs, event.is_reasoning
                    )
                    return found
            found.append(TextDelta(self.sample, "", output.logprobs))
        return found

    def flush(self) -> None:
        """Take over what the parser holds back of an answer that is cut off."""
        if self.reason is None:
            for part in self.parser.finish():
                self._event(part)

    def ended(self) -> SampleEnded:
        """Return the event of its end."""
        assert self.reason is not None
        return SampleEnded(
            self.sample,
            self.reason,
            self.message(),
            reasoning="".join(self._reasonings),
            stop_string=self.stop_string,
            num_tokens=self.num_tokens,
            error=self.error,
        )

    def message(self, *, with_prefill: bool = False) -> Message:
        """Return the answer as a message, without its place in the stream."""
        text = (self.prefill if with_prefill else "") + "".join(self._texts)
        return Message(
            "assistant",
            (ContentPart(text),) if text else (),
            tool_calls=self._made(is_hidden=False),
            id=self.message_id,
        )

    def searching(self) -> Message | None:
        """Return the message of an answer that makes hidden calls only; None if it is not one."""
        hidden = self._made(is_hidden=True)
        if not hidden or len(hidden) < len(self._calls):
            return None
        return replace(self.message(with_prefill=True), tool_calls=hidden)

    def going_on(self, parser: AnswerParser) -> Answer:
        """Return the answer that goes on after the results of its hidden calls."""
        return replace(self, parser=parser, reason=None, stop_string=None, _calls={})

    def _made(self, *, is_hidden: bool) -> tuple[ToolCall, ...]:
        return tuple(
            ToolCall(call.id, call.name, call.arguments)
            for call in self._calls.values()
            if bool(self.hidden and call.name == self.hidden) == is_hidden
        )

    def _event(self, part: AnswerPart) -> TextDelta | ToolCallDelta | None:
        if isinstance(part, Text):
            self._texts.append(part.text)
            return TextDelta(self.sample, part.text)
        if isinstance(part, Reasoning):
            self._reasonings.append(part.text)
            return TextDelta(self.sample, part.text, is_reasoning=True)
        if isinstance(part, CallStarted):
            call = self._calls[part.number] = _Call(new_id("call_", 24), part.name)
            if self.hidden and call.name == self.hidden:
                return None
            return ToolCallDelta(self.sample, part.number, call.id, call.name, "", is_first=True)
        if isinstance(part, CallArguments):
            call = self._calls[part.number]
            call.arguments += part.text
            if self.hidden and call.name == self.hidden:
                return None
            return ToolCallDelta(self.sample, part.number, call.id, call.name, part.text)
        return None
