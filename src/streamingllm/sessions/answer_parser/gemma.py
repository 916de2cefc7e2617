"""Calls in fences of code, as Gemma writes them."""

from __future__ import annotations

from streamingllm.sessions.answer_parser.call_format import CallFrame, Schemas
from streamingllm.sessions.answer_parser.json_text import read_list_of_calls, read_object_call
from streamingllm.sessions.answer_parser.python_call import read_parentheses, read_python_calls
from streamingllm.sessions.answer_parser.reader import AnswerReader, Steps

_FENCE = "```"
_CODE, _JSON = f"{_FENCE}tool_code", f"{_FENCE}json"


class GemmaFormat:
    """Read Python calls in a fence of `tool_code`, or JSON calls in one of `json`; a `CallFormat`.

    A list of Python calls may also be the whole answer.
    """

    name = "gemma"
    marks: tuple[str, ...] = (_CODE, _JSON)
    starts: tuple[str, ...] = ("[",)
    other_marks: tuple[str, ...] = ()
    stop_marks: tuple[str, ...] = ()

    def reason(self, template: str) -> str:
        """Return why a chat template speaks this format; "" if it does not."""
        mark = "<start_of_turn>"
        return f"the chat template writes {mark}" if mark in template else ""

    def read(self, reader: AnswerReader, mark: str, schemas: Schemas) -> Steps[None]:
        """Read what follows a mark."""
        if mark == "[":
            yield from reader.attempt(mark, _read_list(reader, schemas))
            return
        if mark == _CODE:
            is_call = yield from reader.attempt(mark, _read_code(reader, schemas))
        elif (yield from reader.peek_after_spaces()) == "[":
            is_call = yield from read_list_of_calls(reader, mark)
        else:
            is_call = yield from reader.attempt(mark, read_object_call(reader))
        if is_call:
            yield from reader.skip(_FENCE)

    def frame(self, template: str) -> CallFrame:
        """Return how calls are written."""
        del template
        return CallFrame(
            f'{_JSON}\n{{"name": "', '", "arguments": ', f"}}\n{_FENCE}", separator="\n"
        )


def _read_list(reader: AnswerReader, schemas: Schemas) -> Steps[None]:
    text = yield from read_parentheses(reader, "[")
    read_python_calls(reader, text, schemas)


def _read_code(reader: AnswerReader, schemas: Schemas) -> Steps[None]:
    text, _ = yield from reader.until((_FENCE,))
    read_python_calls(reader, text, schemas)
    reader.put_back(_FENCE)
