"""Calls after `[TOOL_CALLS]`, as Mistral's models write them."""

from __future__ import annotations

from streamingllm.sessions.answer_parser.call_format import CallFrame, Schemas
from streamingllm.sessions.answer_parser.json_text import read_arguments, read_list_of_calls
from streamingllm.sessions.answer_parser.reader import AnswerReader, Steps

_CALLS, _ID, _ARGUMENTS = "[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"


class MistralFormat:
    """Read `[TOOL_CALLS][{...}]` and the later `[TOOL_CALLS]name[ARGS]{...}`; a `CallFormat`."""

    name = "mistral"
    marks: tuple[str, ...] = (_CALLS,)
    starts: tuple[str, ...] = ()
    other_marks: tuple[str, ...] = (_ID, _ARGUMENTS)
    stop_marks: tuple[str, ...] = ()

    def reason(self, template: str) -> str:
        """Return why a chat template speaks this format; "" if it does not."""
        return f"the chat template writes {_CALLS}" if _CALLS in template else ""

    def read(self, reader: AnswerReader, mark: str, schemas: Schemas) -> Steps[None]:
        """Read what follows `[TOOL_CALLS]`."""
        del schemas
        if (yield from reader.peek_after_spaces()) == "[":
            yield from read_list_of_calls(reader, mark)
        else:
            yield from reader.attempt(mark, _read_named(reader))

    def frame(self, template: str) -> CallFrame:
        """Return how calls are written."""
        if _ID in template:
            # The id is a number of the call's own; a result names it.
            return CallFrame(_CALLS, f"{_ID}call00000{_ARGUMENTS}", "", separator="")
        if _ARGUMENTS in template:
            return CallFrame(_CALLS, _ARGUMENTS, "", separator="")
        space = " " if f"{_CALLS} [" in template else ""
        return CallFrame(
            '{"name": "',
            '", "arguments": ',
            "}",
            opening=f"{_CALLS}{space}[",
            separator=", ",
            closing="]",
        )


def _read_named(reader: AnswerReader) -> Steps[None]:
    name, end = yield from reader.until((_ID, _ARGUMENTS, "{"))
    if end == _ID:
        yield from reader.until((_ARGUMENTS,))
    elif end == "{":
        reader.put_back(end)
    yield from read_arguments(reader, name.strip())
    reader.end_call()
