"""Calls between `<tool_call>` marks, as Hermes, Qwen and SmolLM write them."""

from __future__ import annotations

from streamingllm.sessions.answer_parser.call_format import CallFrame, Schemas
from streamingllm.sessions.answer_parser.json_text import read_list_of_calls, read_object_call
from streamingllm.sessions.answer_parser.reader import AnswerReader, Steps

_OPENING, _CLOSING = "<tool_call>", "</tool_call>"


class HermesFormat:
    """Read `<tool_call>{"name": ..., "arguments": ...}</tool_call>`; a `CallFormat`.

    SmolLM2 puts a list of calls between the marks.
    """

    name = "hermes"
    marks: tuple[str, ...] = (_OPENING,)
    starts: tuple[str, ...] = ()
    other_marks: tuple[str, ...] = (_CLOSING,)
    stop_marks: tuple[str, ...] = ()

    def reason(self, template: str) -> str:
        """Return why a chat template speaks this format; "" if it does not."""
        return f"the chat template writes {_OPENING}" if _OPENING in template else ""

    def read(self, reader: AnswerReader, mark: str, schemas: Schemas) -> Steps[None]:
        """Read what follows `<tool_call>`."""
        del schemas
        character = yield from reader.peek_after_spaces()
        if character == "[":
            is_call = yield from read_list_of_calls(reader, mark)
        else:
            is_call = yield from reader.attempt(mark, read_object_call(reader))
        if is_call:
            yield from reader.skip(_CLOSING)

    def frame(self, template: str) -> CallFrame:
        """Return how calls are written."""
        del template
        return CallFrame(
            f'{_OPENING}\n{{"name": "', '", "arguments": ', f"}}\n{_CLOSING}", separator="\n"
        )
