"""Read calls that are written as Python, `name(key=value)`."""

from __future__ import annotations

import ast
import json
from typing import Any

from streamingllm.sessions.answer_parser.call_format import Schemas
from streamingllm.sessions.answer_parser.reader import AnswerReader, MalformedError, Steps

_MAX_CHARACTERS = 20_000  # Python's parser is not made for deep or endless text


def read_python_calls(reader: AnswerReader, text: str, schemas: Schemas) -> None:
    """Add the calls of a Python expression: one, a list, or one within `print`.

    Raises:
        MalformedError: it is something else, or calls an unknown function.
    """
    calls = [_call(node, schemas) for node in _nodes(text)]
    if not calls:
        raise MalformedError
    for name, arguments in calls:
        reader.whole_call(name, arguments)


def read_parentheses(reader: AnswerReader, opening: str = "") -> Steps[str]:
    """Read up to the bracket that closes the first one; return it all.

    Args:
        reader: of the answer.
        opening: the first bracket, if it has been read already.
    """
    read, depth, quote = opening, len(opening), ""
    while character := (yield from reader.next()):
        read += character
        if quote:
            if character == "\\":
                read += yield from reader.next()
            elif character == quote:
                quote = ""
        elif character in "\"'":
            quote = character
        elif character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
            if depth <= 0:
                return read
    raise MalformedError


def _nodes(text: str) -> list[ast.expr]:
    if len(text) > _MAX_CHARACTERS:
        raise MalformedError
    try:
        body = ast.parse(text.strip()).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise MalformedError from error
    nodes: list[ast.expr] = []
    for statement in body:
        if not isinstance(statement, ast.Expr):
            raise MalformedError
        value = statement.value
        nodes += value.elts if isinstance(value, ast.List) else [value]
    return [_within_print(node) for node in nodes]


def _within_print(node: ast.expr) -> ast.expr:
    if isinstance(node, ast.Call) and len(node.args) == 1 and ast.unparse(node.func) == "print":
        return node.args[0]
    return node


def _call(node: ast.expr, schemas: Schemas) -> tuple[str, str]:
    if not isinstance(node, ast.Call):
        raise MalformedError
    name = ast.unparse(node.func)
    if name not in schemas:
        name = name.removesuffix(".call").rpartition(".")[2]
    if name not in schemas:
        raise MalformedError
    keys = [*schemas[name].get("properties", {})]
    if len(node.args) > len(keys) or any(keyword.arg is None for keyword in node.keywords):
        raise MalformedError
    found = dict(zip(keys, map(_value, node.args), strict=False))
    found |= {str(keyword.arg): _value(keyword.value) for keyword in node.keywords}
    try:
        return name, json.dumps(found, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise MalformedError from error


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Name) and node.id in ("true", "false", "null"):
        return json.loads(node.id)
    try:
        return ast.literal_eval(node)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise MalformedError from error
