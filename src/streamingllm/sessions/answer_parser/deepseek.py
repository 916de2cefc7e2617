"""Calls between DeepSeek's marks."""

from __future__ import annotations

from streamingllm.sessions.answer_parser.call_format import CallFrame, Schemas
from streamingllm.sessions.answer_parser.json_text import read_arguments
from streamingllm.sessions.answer_parser.reader import AnswerReader, MalformedError, Steps

_CALLS, _END_OF_CALLS = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
_CALL, _END_OF_CALL, _SEPARATOR = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>"
_FENCE, _END_OF_FENCE = "\n```json\n", "\n```"


class DeepSeekFormat:
    """Read the calls of DeepSeek V3 and R1, with a fence, and of V3.1, without; a `CallFormat`."""

    name = "deepseek"
    marks: tuple[str, ...] = (_CALLS, _CALL)
    starts: tuple[str, ...] = ()
    other_marks: tuple[str, ...] = (_SEPARATOR, _END_OF_CALL, _END_OF_CALLS)
    stop_marks: tuple[str, ...] = ()

    def reason(self, template: str) -> str:
        """Return why a chat template speaks this format; "" if it does not."""
        return f"the chat template writes {_CALLS}" if _CALLS in template else ""

    def read(self, reader: AnswerReader, mark: str, schemas: Schemas) -> Steps[None]:
        """Read what follows a mark."""
        if (yield from reader.attempt(mark, _read_call(reader, mark, schemas))):
            yield from reader.skip("```")
            yield from reader.skip(_END_OF_CALL)
            yield from reader.skip(_END_OF_CALLS)

    def frame(self, template: str) -> CallFrame:
        """Return how calls are written."""
        is_fenced = "```json" in template
        return CallFrame(
            f"{_CALL}function{_SEPARATOR}" if is_fenced else _CALL,
            _FENCE if is_fenced else _SEPARATOR,
            f"{_END_OF_FENCE}{_END_OF_CALL}" if is_fenced else _END_OF_CALL,
            opening=_CALLS,
            separator="\n" if is_fenced else "",
            closing=_END_OF_CALLS,
        )


def _read_call(reader: AnswerReader, mark: str, schemas: Schemas) -> Steps[None]:
    if mark == _CALLS:
        yield from reader.expect(_CALL)
    name, _ = yield from reader.until((_SEPARATOR,))
    if name.strip() not in schemas or (yield from reader.peek_after_spaces()) != "{":
        if name.strip() != "function":
            raise MalformedError
        name, _ = yield from reader.until(("```json",))
    yield from read_arguments(reader, name.strip())
    reader.end_call()
