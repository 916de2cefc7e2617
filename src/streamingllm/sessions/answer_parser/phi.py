"""Calls after `functools`, as Phi-4 writes them."""

from __future__ import annotations

from streamingllm.sessions.answer_parser.call_format import CallFrame, Schemas
from streamingllm.sessions.answer_parser.json_text import read_list_of_calls
from streamingllm.sessions.answer_parser.reader import AnswerReader, Steps

_FUNCTOOLS, _CALL, _END_OF_CALL = "functools[", "<|tool_call|>", "<|/tool_call|>"


class PhiFormat:
    """Read `functools[{...}]` and Phi-4-mini's `<|tool_call|>[{...}]`; a `CallFormat`."""

    name = "phi"
    marks: tuple[str, ...] = (_FUNCTOOLS, _CALL)
    starts: tuple[str, ...] = ()
    other_marks: tuple[str, ...] = (_END_OF_CALL,)
    stop_marks: tuple[str, ...] = ()

    def reason(self, template: str) -> str:
        """Return why a chat template speaks this format; "" if it does not."""
        for mark in ("<|im_sep|>", _CALL, "<|tool|>", "functools"):
            if mark in template:
                return f"the chat template writes {mark}"
        return ""

    def read(self, reader: AnswerReader, mark: str, schemas: Schemas) -> Steps[None]:
        """Read what follows a mark."""
        del schemas
        is_list_open = mark == _FUNCTOOLS
        if (yield from read_list_of_calls(reader, mark, is_open=is_list_open)):
            yield from reader.skip(_END_OF_CALL)

    def frame(self, template: str) -> CallFrame:
        """Return how calls are written."""
        is_mini = "<|tool|>" in template or _CALL in template
        return CallFrame(
            '{"name": "',
            '", "arguments": ',
            "}",
            opening=f"{_CALL}[" if is_mini else _FUNCTOOLS,
            separator=", ",
            closing=f"]{_END_OF_CALL}" if is_mini else "]",
        )
