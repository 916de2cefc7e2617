"""Calls as tags, as Qwen3-Coder writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from streamingllm.sessions.answer_parser.call_format import CallFrame, Schemas
from streamingllm.sessions.answer_parser.hermes import HermesFormat
from streamingllm.sessions.answer_parser.reader import AnswerReader, Steps

_FUNCTION, _PARAMETER = "<function=", "<parameter="
_END_OF_FUNCTION, _END_OF_PARAMETER = "</function>", "</parameter>"
_OPENING, _CLOSING = "<tool_call>", "</tool_call>"


class QwenCoderFormat:
    """Read `<function=name><parameter=key>value</parameter></function>`; a `CallFormat`.

    Values are text; the function's schema says which of them are JSON.
    """

    name = "qwen-coder"
    marks: tuple[str, ...] = (_OPENING, _FUNCTION)
    starts: tuple[str, ...] = ()
    other_marks: tuple[str, ...] = (_CLOSING, _PARAMETER, _END_OF_FUNCTION, _END_OF_PARAMETER)
    stop_marks: tuple[str, ...] = ()

    def reason(self, template: str) -> str:
        """Return why a chat template speaks this format; "" if it does not."""
        is_coder = _FUNCTION in template and _PARAMETER in template
        return f"the chat template writes {_PARAMETER}" if is_coder else ""

    def read(self, reader: AnswerReader, mark: str, schemas: Schemas) -> Steps[None]:
        """Read what follows a mark."""
        if mark == _OPENING and (yield from reader.peek_after_spaces()) in ("{", "["):
            yield from HermesFormat().read(reader, mark, schemas)
        elif (yield from reader.attempt(mark, _read_call(reader, mark, schemas))):
            yield from reader.skip(_END_OF_FUNCTION)
            yield from reader.skip(_CLOSING)

    def frame(self, template: str) -> CallFrame:
        """Return how calls are written; JSON is read as well and can be constrained."""
        return HermesFormat().frame(template)


def _read_call(reader: AnswerReader, mark: str, schemas: Schemas) -> Steps[None]:
    if mark == _OPENING:
        yield from reader.expect(_FUNCTION)
    name, _ = yield from reader.until((">",))
    name = name.strip()
    reader.start_call(name)
    properties = schemas[name].get("properties", {})
    reader.arguments("{")
    separator = ""
    try:
        while (yield from reader.peek_after_spaces()) == "<":
            yield from reader.next_after_spaces()
            reader.put_back("<")
            if not (yield from reader.has(_PARAMETER)):
                break
            key, _ = yield from reader.until((">",))
            value = yield from _read_value(reader, properties.get(key.strip(), {}))
            reader.arguments(f"{separator}{json.dumps(key.strip(), ensure_ascii=False)}: {value}")
            separator = ", "
    finally:
        reader.arguments("}")
    reader.end_call()


def _read_value(reader: AnswerReader, schema: Any) -> Steps[str]:
    ends = (_END_OF_PARAMETER, _END_OF_FUNCTION, _CLOSING, f"\n{_PARAMETER}")
    text, end = yield from reader.until(ends)
    if end != _END_OF_PARAMETER:
        reader.put_back(end)
    text = text.removeprefix("\n").removesuffix("\n")
    if isinstance(schema, Mapping) and schema.get("type") == "string":
        return json.dumps(text, ensure_ascii=False)
    try:
        return json.dumps(json.loads(text), ensure_ascii=False, allow_nan=False)
    except (ValueError, RecursionError):
        return json.dumps(text, ensure_ascii=False)
