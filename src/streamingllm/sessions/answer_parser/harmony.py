"""Answers in channels, as gpt-oss writes them."""

from __future__ import annotations

import re

from streamingllm.sessions.answer_parser.call_format import CallFrame, Schemas
from streamingllm.sessions.answer_parser.json_text import read_arguments
from streamingllm.sessions.answer_parser.reader import AnswerReader, Steps

_START, _CHANNEL, _MESSAGE = "<|start|>", "<|channel|>", "<|message|>"
_END, _CALL, _RETURN, _CONSTRAIN = "<|end|>", "<|call|>", "<|return|>", "<|constrain|>"
_RECIPIENT = " to=functions."
_ENDS = (_END, _CALL, _RETURN, _START, _CHANNEL)
_MAX_HEADER_CHARACTERS = 200
_CHANNEL_NAME = re.compile(re.escape(_CHANNEL) + r"\s*(\w+)")
_FUNCTION_NAME = re.compile(r"to=functions\.([^\s<]+)")
ANALYSIS = f"{_CHANNEL}analysis{_MESSAGE}"
AFTER_ANALYSIS = f"{_END}{_START}assistant"


class HarmonyFormat:
    """Read messages, each with a header that names its channel; a `CallFormat`.

    The channel "analysis" is reasoning; a message to a function is a call; all else is text.

    Source: https://cookbook.openai.com/articles/openai-harmony
    """

    name = "harmony"
    marks: tuple[str, ...] = (_CHANNEL, _START)
    starts: tuple[str, ...] = (_RECIPIENT,)
    other_marks: tuple[str, ...] = (_MESSAGE, _CONSTRAIN, _END)
    stop_marks: tuple[str, ...] = (_CALL, _RETURN)

    def reason(self, template: str) -> str:
        """Return why a chat template speaks this format; "" if it does not."""
        is_harmony = _CHANNEL in template and _MESSAGE in template
        return f"the chat template writes {_CHANNEL}" if is_harmony else ""

    def read(self, reader: AnswerReader, mark: str, schemas: Schemas) -> Steps[None]:
        """Read a message; what has no header is text."""
        header = yield from _read_header(reader, mark)
        if header is None:
            return
        channel, function = _CHANNEL_NAME.search(header), _FUNCTION_NAME.search(header)
        if function is not None and function[1] in schemas:
            yield from reader.attempt("", _read_call(reader, function[1]))
        is_reasoning = function is None and channel is not None and channel[1] == "analysis"
        yield from _read_body(reader, is_reasoning)

    def frame(self, template: str) -> CallFrame:
        """Return how calls are written."""
        del template
        return CallFrame(f"{_CHANNEL}commentary to=functions.", f" {_CONSTRAIN}json{_MESSAGE}", "")


def _read_header(reader: AnswerReader, mark: str) -> Steps[str | None]:
    """Read up to the message; None if none comes, and then what was read is text."""
    read = mark
    while not read.endswith(_MESSAGE):
        character = yield from reader.next()
        read += character
        if not character:  # a header that breaks off says nothing
            return None
        if len(read) > _MAX_HEADER_CHARACTERS:
            reader.text(read)
            return None
    return read


def _read_call(reader: AnswerReader, name: str) -> Steps[None]:
    yield from read_arguments(reader, name)
    reader.end_call()


def _read_body(reader: AnswerReader, is_reasoning: bool) -> Steps[None]:
    """Read to the mark that ends a message."""
    write = reader.reasoning if is_reasoning else reader.text
    held = ""
    if is_reasoning:
        reader.turn_to()
    while character := (yield from reader.next()):
        held += character
        if held in _ENDS:
            reader.put_back(held if held in (_START, _CHANNEL) else "")
            break
        while held and not any(end.startswith(held) for end in _ENDS):
            write(held[0])
            held = held[1:]
    else:
        write(held)
    if is_reasoning:
        reader.turn_to()
