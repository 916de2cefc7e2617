"""Calls as tags, as Qwen3-Coder writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from streamingllm.sessions.answer_parser.call_format import CallFrame, Schemas
from streamingllm.sessions.answer_parser.hermes import HermesFormat
from streamingllm.sessions.answer_parser.reader import AnswerReader, MalformedError, Steps

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
    """Read a call; the arguments of one that breaks off stay open, as those of JSON do."""
    if mark == _OPENING:
        yield from reader.expect(_FUNCTION)
    name, _ = yield from reader.until((">",))
    name = name.strip()
    reader.start_call(name)
    properties = schemas[name].get("properties", {})
    reader.arguments("{")
    separator = ""
    while character := (yield from reader.peek_after_spaces()):
        if character != "<":
            break
        yield from reader.next_after_spaces()
        reader.put_back("<")
        if not (yield from reader.has(_PARAMETER)):
            break
        try:
            key, _ = yield from reader.until((">",))
        except MalformedError:
            reader.put_back(_PARAMETER)
            raise
        reader.arguments(f"{separator}{_json(key.strip())}: ")
        reader.arguments((yield from _read_value(reader, properties.get(key.strip(), {}))))
        separator = ", "
    else:
        raise MalformedError
    reader.arguments("}")
    reader.end_call()


def _read_value(reader: AnswerReader, schema: Any) -> Steps[str]:
    ends = (_END_OF_PARAMETER, _END_OF_FUNCTION, _CLOSING, f"\n{_PARAMETER}")
    try:
        text, end = yield from reader.until(ends)
    except MalformedError:
        text = yield from reader.rest()
        return _json(text.removeprefix("\n"))[:-1]
    if end != _END_OF_PARAMETER:
        reader.put_back(end)
    text = text.removeprefix("\n").removesuffix("\n")
    if isinstance(schema, Mapping) and schema.get("type") == "string":
        return _json(text)
    try:
        return json.dumps(json.loads(text), ensure_ascii=False, allow_nan=False)
    except (ValueError, RecursionError):
        return _json(text)


def _json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
