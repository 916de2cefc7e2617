"""Grammars of answers that call a tool, in the form in which a model writes calls."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal

from streamingllm.errors import InputError, UnsupportedFeatureError
from streamingllm.models import LanguageModel
from streamingllm.sessions.answer_parser.call_format import CallFormat, CallFrame
from streamingllm.sessions.answer_parser.harmony import HarmonyFormat
from streamingllm.sessions.answer_parser.registry import (
    formats_of,
    functions_of,
    reasoning_of,
    schemas_of,
)
from streamingllm.stream.grammar import Grammar

_ONE_LINE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
# With one of these, an object that may have no further members may allow nothing at all.
_OPEN_KEYWORDS = {"additionalProperties", "patternProperties", "unevaluatedProperties", "$ref"} | {
    *("allOf", "anyOf", "oneOf", "not", "if", "minProperties", "dependentSchemas")
}
_ANGLES = re.compile("<.*>", re.DOTALL)


def call_grammar(
    lm: LanguageModel,
    tools: Sequence[Mapping[str, Any]],
    *,
    name: str | None = None,
    parallel: bool = False,
    variables: Mapping[str, Any] | None = None,
    tool_format: Literal["template", "prompt"] = "template",
    end_token_ids: Collection[int] = (),
    must_call: bool = True,
) -> Grammar:
    """Return the grammar of answers that call a tool with arguments of its JSON schema.

    Reasoning may come before the call. An object whose schema does not say whether there may be
    more than its `properties` has no more. A schema's keyword that llguidance does not know is
    refused if the function is `strict`, and has no effect otherwise.

    Args:
        lm: whose answer it is.
        tools: functions that the answer may call.
        name: of the only one that may be called, once; None for any.
        parallel: whether an answer may have more than one call, if its format can.
        variables: further variables of the chat template, such as `enable_thinking`.
        tool_format: of the `ChatTemplate` that describes the tools.
        end_token_ids: tokens that may end the answer, besides the model's eos tokens.
        must_call: whether the answer is a call; otherwise it may be text, or text before a call.

    Raises:
        InputError: there are no tools, none of that name, or its arguments are no object.
        UnsupportedFeatureError: the model's text cannot be told from calls by a grammar.
    """
    template = str(lm.tokenizer.chat_template or "")
    formats, _ = formats_of(template)
    call_format = formats[0] if tool_format == "template" else formats[-1]
    frame = call_format.frame(template)
    names = _names(tools, name)
    rules = [f"call: {' | '.join(f'call_{number}' for number in range(len(names)))}"]
    for number, one in enumerate(names):
        rules.append(_call_rule(lm, frame, number, one, tools))
    is_many = parallel and name is None and frame.separator is not None
    more = f"({_literal(lm, frame.separator or '')} {_literal(lm, frame.before_name)} call)*"
    calls = f"call {more if is_many else ''} {_literal(lm, frame.closing)}"
    if must_call:
        rules.append(f"answer: {_literal(lm, frame.opening + frame.before_name)} {calls}")
    else:
        if isinstance(call_format, HarmonyFormat):
            raise UnsupportedFeatureError(
                f"strict=True is not supported by {lm.name} unless a call is required, because its "
                "text has marks as well; leave out strict"
            )
        rules.append(_text_rules(lm, formats, frame, calls))
    is_open = is_many or not must_call
    thought, thought_rules = _reasoning(lm, template, variables or {})
    rules += thought_rules
    rules.append(f"start: {thought} answer {_end(lm, end_token_ids) if is_open else ''}")
    return Grammar.lark("\n".join(["%llguidance {}", *rules]))


def _names(tools: Sequence[Mapping[str, Any]], name: str | None) -> list[str]:
    names = [*schemas_of(tools)]
    if not names:
        raise InputError("tools is empty, but a call is required; send at least one tool")
    if name is not None and name not in names:
        raise InputError(f"tool_choice={name!r} is none of the tools; choose one of {names}")
    return names if name is None else [name]


def _call_rule(
    lm: LanguageModel,
    frame: CallFrame,
    number: int,
    name: str,
    tools: Sequence[Mapping[str, Any]],
) -> str:
    """Return the rule of a call from the function's name on."""
    is_quoted = frame.before_name.endswith('"')
    text = json.dumps(name, ensure_ascii=False)[1:-1] if is_quoted else name
    function = next(f for f in functions_of(tools) if f.get("name") == name)
    schema = _schema_of(name, schemas_of(tools)[name], is_strict=bool(function.get("strict")))
    before = _literal(lm, text + frame.before_arguments)
    return (
        f"call_{number}: {before} arguments_{number} {_literal(lm, frame.after_arguments)}\n"
        f"arguments_{number}: %json {json.dumps(schema)}"
    )


def _schema_of(name: str, schema: Mapping[str, Any], *, is_strict: bool) -> dict[str, Any]:
    """Return the schema of arguments, which are an object."""
    kind = schema.get("type", "object")
    if kind != "object" and not (isinstance(kind, list) and "object" in kind):
        raise InputError(
            f"parameters of the tool {name!r} have type={kind!r}; describe an object, because "
            "arguments have names"
        )
    properties = schema.get("properties", None if schema else {})
    closes = properties is not None and not _OPEN_KEYWORDS & {*schema}
    if closes and {*schema.get("required", ())} <= {*(properties or {})}:
        schema = {**schema, "properties": properties, "additionalProperties": False}
    return {**schema, "type": "object", "x-guidance": {**_ONE_LINE, "lenient": not is_strict}}


def _text_rules(
    lm: LanguageModel, formats: Sequence[CallFormat], frame: CallFrame, calls: str
) -> str:
    """Return the rules of an answer that is text, or text before calls.

    No mark of a call occurs in text, so that all calls follow the grammar.
    """
    head = frame.opening + frame.before_name
    starts = "|".join(re.escape(mark) for f in formats for mark in f.starts)
    marks = [mark for f in formats for mark in f.marks]
    inner = "|".join(re.escape(mark) for mark in marks)
    text = [r"/(.|\n)*/", rf"~/(.|\n)*({_slashed(inner)})(.|\n)*/"]
    if starts:
        text.append(rf"~/\s*({_slashed(starts)})(.|\n)*/")
    trigger = max((mark for mark in marks if head.startswith(mark)), key=len, default="")
    first = _literal(lm, trigger)
    is_token = first.startswith("<[")
    before = f"TEXT? {first}" if is_token else "trigger" if trigger else r"/\s*/"
    rules = [
        f"answer: TEXT? | {before} {_literal(lm, head.removeprefix(trigger))} {calls}",
        f"TEXT: {' & '.join(text)}",
    ]
    if trigger and not is_token:
        rules.append(f"trigger[lazy]: TEXT {first}")
    return "\n".join(rules)


def _slashed(pattern: str) -> str:
    return pattern.replace("/", r"\/")


def _reasoning(
    lm: LanguageModel, template: str, variables: Mapping[str, Any]
) -> tuple[str, list[str]]:
    """Return the part of a rule that stands for reasoning, and the rules behind it."""
    marks = reasoning_of(lm, template, variables)
    if marks is None or marks.is_closed:
        return "", []
    opening, closing = _literal(lm, marks.opening), _literal(lm, marks.closing)
    is_token = closing.startswith("<[")
    rules = [
        f"thought: {'' if marks.is_open else 'opening'} thinking /\\s*/",
        rf"thinking{'' if is_token else '[lazy]'}: /(.|\n)*/ {closing}",
    ]
    if not marks.is_open:
        # Lazy, so that it is no text even where text may begin likewise.
        rules.append(f"opening{'' if opening.startswith('<[') else '[lazy]'}: {opening}")
    return "thought" if marks.is_open else "thought?", rules


def _end(lm: LanguageModel, end_token_ids: Iterable[int]) -> str:
    ends = [f"<[{i}]>" for i in sorted({*end_token_ids} - lm.eos_token_ids)]
    return f"({' | '.join(ends)})?" if ends else ""


def _literal(lm: LanguageModel, text: str) -> str:
    """Return a text as a grammar writes it; special tokens are tokens, not text."""
    added = lm.tokenizer.added_tokens_decoder.items()
    ids = {
        token.content: i
        for i, token in added
        # llguidance takes each added token of the form <...> for a special one.
        if (token.special or _ANGLES.fullmatch(token.content)) and token.content in text
    }
    if not ids:
        return json.dumps(text, ensure_ascii=False)
    longest_first = sorted(ids, key=len, reverse=True)
    parts = re.split(f"({'|'.join(map(re.escape, longest_first))})", text)
    return " ".join(
        f"<[{ids[part]}]>" if part in ids else json.dumps(part, ensure_ascii=False)
        for part in parts
        if part
    )
