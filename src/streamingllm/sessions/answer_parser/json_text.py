"""Read JSON while it is written: each value, and calls that are JSON objects."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from streamingllm.sessions.answer_parser.reader import AnswerReader, MalformedError, Steps

_WORD = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?|true|false|null")
_WORD_CHARACTERS = frozenset("+-.0123456789abcdefghijklmnopqrstuvwxyzE")
_LONGEST_WORD = 400
_ARGUMENTS = ("arguments", "parameters")
Sink = Callable[[str], None]


def read_value(reader: AnswerReader, sink: Sink) -> Steps[None]:
    """Read one JSON value and give its text to a sink; all the sink gets begins a JSON value.

    Raises:
        MalformedError: it is none; what does not belong to it is put back.
    """
    closings: list[str] = []
    while True:
        opening = yield from _next(reader, sink if closings else _ignore)
        if opening in ("{", "["):
            sink(opening)
            closing = "}" if opening == "{" else "]"
            character = yield from _next(reader, sink)
            if character == closing:
                sink(character)
            else:
                reader.put_back(character)
                closings.append(closing)
                yield from _read_key_of(closing, reader, sink)
                continue
        elif opening == '"':
            yield from _read_string(reader, sink)
        else:
            reader.put_back(opening)
            yield from _read_word(reader, sink)
        while closings:
            character = yield from _next(reader, sink)
            if character == ",":
                sink(character)
                yield from _read_key_of(closings[-1], reader, sink)
                break
            if character != closings[-1]:
                reader.put_back(character)
                raise MalformedError
            sink(closings.pop())
        if not closings:
            return


def read_whole_value(reader: AnswerReader) -> Steps[Any]:
    """Read one JSON value and return what it stands for."""
    pieces: list[str] = []
    yield from read_value(reader, pieces.append)
    return parse("".join(pieces))


def parse(text: str) -> Any:
    """Return what JSON stands for.

    Raises:
        MalformedError: it is no JSON, or too deep or too long.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MalformedError from error


def arguments_text(value: Any) -> str:
    """Return arguments as the JSON of an object; some models write that as a string, or null.

    Raises:
        MalformedError: they are something else.
    """
    if isinstance(value, str):
        value = parse(value) if value.strip() else None
    if value is None:
        return "{}"
    if not isinstance(value, dict):
        raise MalformedError
    return json.dumps(value, ensure_ascii=False)


def read_arguments(reader: AnswerReader, name: str) -> Steps[None]:
    """Read the arguments of a call and begin it; an object is streamed."""
    character = yield from reader.next_after_spaces()
    reader.put_back(character)
    if character == "{":
        reader.start_call(name)
        yield from read_value(reader, reader.arguments)
    else:
        text = arguments_text((yield from read_whole_value(reader)))
        reader.start_call(name)
        reader.arguments(text)


def read_object_call(reader: AnswerReader, *, is_open: bool = False) -> Steps[None]:
    """Read a call `{"name": ..., "arguments": ...}`, its members in any order.

    Args:
        reader: of the answer.
        is_open: whether the brace has been read already.
    """
    if not is_open:
        yield from reader.expect("{")
    name: Any = None
    held: Any = None
    is_first = True
    while (yield from _has_member(reader, is_first)):
        is_first = False
        key = yield from _read_key(reader)
        if key in _ARGUMENTS and isinstance(name, str):
            yield from read_arguments(reader, name)
            reader.end_call()
            # The call is complete; what breaks off behind it is text.
            yield from reader.attempt("", _read_rest(reader))
            return
        value = yield from read_whole_value(reader)
        if key in _ARGUMENTS:
            held = value
        elif key == "name":
            name = value
        elif key == "function":
            name, held = (
                (value.get("name"), value.get("arguments"))
                if isinstance(value, dict)
                else (value, held)
            )
    if not isinstance(name, str):
        raise MalformedError
    reader.whole_call(name, arguments_text(held))


def _read_rest(reader: AnswerReader) -> Steps[None]:
    while (yield from _has_member(reader, is_first=False)):
        yield from _read_key(reader)
        yield from read_whole_value(reader)


def _has_member(reader: AnswerReader, is_first: bool) -> Steps[bool]:
    """Read up to an object's next key; return whether there is one."""
    character = yield from reader.next_after_spaces()
    if character == "}":
        return False
    if not is_first:
        if character != ",":
            reader.put_back(character)
            raise MalformedError
        character = yield from reader.next_after_spaces()
    reader.put_back(character)
    if character != '"':
        raise MalformedError
    return True


def _read_key(reader: AnswerReader) -> Steps[Any]:
    key = yield from read_whole_value(reader)
    yield from reader.expect(":")
    return key


def read_list_of_calls(reader: AnswerReader, mark: str, *, is_open: bool = False) -> Steps[bool]:
    """Read the calls of a JSON list after a mark; return whether there was one.

    Args:
        reader: of the answer.
        mark: after which the list comes.
        is_open: whether the mark ends with the list's bracket.
    """

    def first() -> Steps[None]:
        if not is_open:
            yield from reader.expect("[")
        yield from read_object_call(reader)

    def another() -> Steps[None]:
        yield from read_object_call(reader)

    if not (yield from reader.attempt(mark, first())):
        return False
    while True:
        character = yield from reader.next_after_spaces()
        if character == ",":
            if not (yield from reader.attempt(",", another())):
                return True
        else:
            if character != "]":
                reader.put_back(character)
            return True


def _next(reader: AnswerReader, sink: Sink) -> Steps[str]:
    """Return the next character that is no white space; the white space of JSON goes to a sink."""
    while (character := (yield from reader.next())) and character in " \t\r\n":
        sink(character)
    return character


def _ignore(text: str) -> None:
    del text


def _read_key_of(closing: str, reader: AnswerReader, sink: Sink) -> Steps[None]:
    """Read the key of an object's next member and its colon; a list has none."""
    if closing == "]":
        return
    for wanted in ('"', ":"):
        character = yield from _next(reader, sink)
        if character != wanted:
            reader.put_back(character)
            raise MalformedError
        if wanted == '"':
            yield from _read_string(reader, sink)
        else:
            sink(character)


def _read_string(reader: AnswerReader, sink: Sink) -> Steps[None]:
    """Read a string whose opening quote has been read."""
    sink('"')
    while True:
        character = yield from reader.next()
        if character == '"':
            sink(character)
            return
        if not character or ord(character) < 32:
            reader.put_back(character)
            raise MalformedError
        if character == "\\":
            character += yield from _read_escape(reader)
        sink(character)


def _read_escape(reader: AnswerReader) -> Steps[str]:
    kind = yield from reader.next()
    digits = ""
    while kind == "u" and len(digits) < 4:
        digit = yield from reader.next()
        digits += digit
        if digit not in "0123456789abcdefABCDEF" or not digit:
            reader.put_back(f"\\{kind}{digits}")
            raise MalformedError
    if not kind or kind not in '"\\/bfnrtu':
        reader.put_back(f"\\{kind}")
        raise MalformedError
    return kind + digits


def _read_word(reader: AnswerReader, sink: Sink) -> Steps[None]:
    """Read a number, true, false or null; it ends where another character comes."""
    word = ""
    while (character := (yield from reader.next())) and character in _WORD_CHARACTERS:
        word += character
        if len(word) > _LONGEST_WORD:
            break
    else:
        reader.put_back(character)
        if _WORD.fullmatch(word):
            sink(word)
            return
    reader.put_back(word)
    raise MalformedError
