"""Calls that are JSON objects without marks, as Llama 3 writes them."""

from __future__ import annotations

from streamingllm.sessions.answer_parser.call_format import CallFrame, Schemas
from streamingllm.sessions.answer_parser.json_text import read_arguments, read_object_call
from streamingllm.sessions.answer_parser.python_call import read_parentheses, read_python_calls
from streamingllm.sessions.answer_parser.reader import AnswerReader, Steps

_PYTHON, _FUNCTION, _END_OF_FUNCTION = "<|python_tag|>", "<function=", "</function>"


class LlamaFormat:
    """Read an answer that is `{"name": ..., "parameters": ...}`; a `CallFormat`.

    Calls after `<|python_tag|>` are JSON or Python. `<function=name>{...}</function>` is the form
    of Llama 3.1's custom functions.
    """

    name = "llama"
    marks: tuple[str, ...] = (_PYTHON, _FUNCTION)
    starts: tuple[str, ...] = ("{",)
    other_marks: tuple[str, ...] = ()
    stop_marks: tuple[str, ...] = ("<|eom_id|>", "<|eot_id|>")

    def reason(self, template: str) -> str:
        """Return why a chat template speaks this format; "" if it does not."""
        is_llama = "<|start_header_id|>" in template and '"parameters"' in template
        return "the chat template writes calls as JSON with parameters" if is_llama else ""

    def read(self, reader: AnswerReader, mark: str, schemas: Schemas) -> Steps[None]:
        """Read what follows a mark."""
        if mark == _FUNCTION:
            if (yield from reader.attempt(mark, _read_function(reader))):
                yield from reader.skip(_END_OF_FUNCTION)
            return
        if mark == "{":
            is_call = yield from reader.attempt(mark, read_object_call(reader, is_open=True))
        elif (yield from reader.peek_after_spaces()) == "{":
            is_call = yield from reader.attempt(mark, read_object_call(reader))
        else:
            is_call = yield from reader.attempt(mark, _read_python(reader, schemas))
        if is_call:
            yield from reader.skip(";")

    def frame(self, template: str) -> CallFrame:
        """Return how calls are written."""
        del template
        return CallFrame('{"name": "', '", "parameters": ', "}")


def _read_function(reader: AnswerReader) -> Steps[None]:
    name, _ = yield from reader.until((">",))
    yield from read_arguments(reader, name.strip())
    reader.end_call()


def _read_python(reader: AnswerReader, schemas: Schemas) -> Steps[None]:
    text = yield from read_parentheses(reader)
    read_python_calls(reader, text, schemas)
