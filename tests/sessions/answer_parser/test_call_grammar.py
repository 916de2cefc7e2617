"""Forced calls: real models write them, and they follow the schemas."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from streamingllm import Engine, Grammar, LanguageModel, SamplingParams, StreamConfig
from streamingllm.engine.grammar import GrammarCompiler
from streamingllm.errors import InputError
from streamingllm.sessions import ChatTemplate
from streamingllm.sessions.answer_parser import call_grammar, parser_for
from tests.engine.driver import run, start, text_of
from tests.sessions.answer_parser.test_formats import joined
from tests.sessions.families import FAMILIES, Family, generating_lm

Schema = Mapping[str, Any]
DAYS = ["monday", "sunday"]
NUMBERS = {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 3}
SCHEMAS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "day": {"type": "object", "properties": {"day": {"enum": DAYS}}, "required": ["day"]},
    "flags": {
        "type": "object",
        "properties": {"on": {"type": "boolean"}, "off": {"type": "boolean"}},
        "required": ["on", "off"],
    },
    "number": {
        "type": "object",
        "properties": {"n": {"type": "integer", "minimum": 1, "maximum": 9, "format": "int64"}},
        "required": ["n"],
    },
    "numbers": {"type": "object", "properties": {"all": NUMBERS}, "required": ["all"]},
    "short": {
        "type": "object",
        "properties": {"word": {"type": "string", "minLength": 1, "maxLength": 8}},
        "required": ["word"],
    },
    "pattern": {
        "type": "object",
        "properties": {"code": {"type": "string", "pattern": "^[A-Z]{3}-[0-9]{2}$"}},
        "required": ["code"],
    },
    "nested": {
        "type": "object",
        "properties": {
            "place": {
                "type": "object",
                "properties": {"city": {"enum": ["Rome", "Bern"]}, "zip": {"type": "integer"}},
                "required": ["city"],
                "additionalProperties": False,
            }
        },
        "required": ["place"],
    },
    "choice": {
        "type": "object",
        "properties": {"value": {"anyOf": [{"type": "null"}, {"enum": [1, "two"]}]}},
        "required": ["value"],
    },
    "shared": {
        "type": "object",
        "$defs": {"day": {"enum": DAYS}},
        "properties": {"from": {"$ref": "#/$defs/day"}, "to": {"$ref": "#/$defs/day"}},
        "required": ["from", "to"],
        "additionalProperties": False,
    },
}
TOOLS: list[dict[str, Any]] = [
    {"type": "function", "function": {"name": name, "parameters": schema}}
    for name, schema in SCHEMAS.items()
]
TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "null": type(None),
}


def is_valid(value: Any, schema: Schema, root: Schema) -> bool:
    """Tell whether a value follows a schema; it knows the keywords above only."""
    if "$ref" in schema:
        return is_valid(value, root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    if "anyOf" in schema:
        return any(is_valid(value, one, root) for one in schema["anyOf"])
    if "enum" in schema:
        return value in schema["enum"]
    if not isinstance(value, TYPES[schema.get("type", "object")]):
        return False
    if isinstance(value, dict):
        known: Schema = schema.get("properties", {})
        return (
            {*schema.get("required", ())} <= {*value} <= {*known}
            and [*value] == [key for key in known if key in value]
            and all(is_valid(value[key], known[key], root) for key in value)
        )
    if isinstance(value, list):
        is_long = schema["minItems"] <= len(value) <= schema["maxItems"]
        return is_long and all(is_valid(item, schema["items"], root) for item in value)
    if isinstance(value, str) and "pattern" in schema:
        return re.fullmatch(schema["pattern"], value) is not None
    if isinstance(value, str):
        return bool(schema["minLength"] <= len(value) <= schema["maxLength"])
    if isinstance(value, int) and not isinstance(value, bool) and "minimum" in schema:
        return bool(schema["minimum"] <= value <= schema["maximum"])
    return True


@pytest.fixture(scope="module")
def engine(default_model: LanguageModel) -> Iterator[Engine]:
    config = StreamConfig(num_sink_tokens=4, window_size=508, chunk_size=128)
    with Engine(default_model, config, max_streams=1) as engine:
        yield engine


def answer(engine: Engine, lm: LanguageModel, said: str, grammar: Grammar, seed: int) -> str:
    """What a model answers at temperature 1."""
    chat = ChatTemplate(lm)
    params = SamplingParams(1.0, max_new_tokens=200, seed=seed, grammar=grammar)
    stream_id = start(engine, chat.opening_ids() + chat.first_turn_ids(said), params)
    outputs = list(run(engine))
    assert outputs[-1].finish_reason == "stop"
    return text_of(outputs, stream_id)


def calls_of(
    lm: LanguageModel, text: str, tools: Sequence[Mapping[str, Any]] = TOOLS
) -> list[tuple[str, Any]]:
    """The calls of an answer that is nothing else."""
    parser = parser_for(lm, tools)
    found, _, calls = joined([*parser.feed(text), *parser.finish()])
    assert found == ""
    return [(name, json.loads(arguments)) for name, arguments, _ in calls]


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_named_call_of_the_default_model_follows_its_schema(
    engine: Engine, default_model: LanguageModel, name: str
) -> None:
    grammar = call_grammar(default_model, TOOLS, name=name, tool_format="prompt", parallel=True)
    for seed in range(2):
        text = answer(engine, default_model, f"Call {name}.", grammar, seed)
        ((called, arguments),) = calls_of(default_model, text)
        assert called == name
        assert is_valid(arguments, SCHEMAS[name], SCHEMAS[name]), arguments


def test_any_tool_may_be_called(engine: Engine, default_model: LanguageModel) -> None:
    grammar = call_grammar(default_model, TOOLS, tool_format="prompt")
    for seed in range(4):
        text = answer(engine, default_model, "Write a day.", grammar, seed)
        ((called, arguments),) = calls_of(default_model, text)
        assert is_valid(arguments, SCHEMAS[called], SCHEMAS[called]), arguments


DAY = TOOLS[1]
STRICT = {"type": "function", "function": {**DAY["function"], "strict": True}}
NO_THOUGHT = {"enable_thinking": False}
WITH_TOOLS = [family for family in FAMILIES if family.name != "gpt-oss"]
each_family = pytest.mark.parametrize("family", WITH_TOOLS, ids=lambda family: family.name)


def forced_answer(lm: LanguageModel, **options: Any) -> tuple[str, bool]:
    """What a random model writes when it must call, without a thought; whether it ended."""
    grammar = call_grammar(lm, [DAY], variables=NO_THOUGHT, **options)
    grammar = replace(grammar, definition=grammar.definition.replace("/(.|\\n)*/ ", ""))
    shown = [i for i, token in lm.tokenizer.added_tokens_decoder.items() if token.special]
    params = SamplingParams(
        1.0, max_new_tokens=1000, seed=1, grammar=grammar, shown_token_ids=shown
    )
    with Engine(lm, StreamConfig(4, 60), max_streams=1) as engine:
        stream_id = start(engine, "Hi", params)
        outputs = list(run(engine))
    return text_of(outputs, stream_id), outputs[-1].finish_reason == "stop"


@each_family
@pytest.mark.parametrize("parallel", [False, True])
def test_a_call_in_the_form_of_each_family(family: Family, parallel: bool) -> None:
    lm = family.lm(generating_lm())
    text, has_ended = forced_answer(lm, parallel=parallel)
    parser = parser_for(lm, [DAY], variables=NO_THOUGHT)
    found, _, calls = joined([*parser.feed(text), *parser.finish()])
    assert calls
    assert len(calls) == 1 or parallel
    assert has_ended or parallel
    if has_ended:
        assert found == ""
        assert [(name, ended) for name, _, ended in calls] == [("day", True)] * len(calls)
        assert all(json.loads(arguments)["day"] in DAYS for _, arguments, _ in calls)


def num_allowed(lm: LanguageModel, grammar: Grammar, text: str) -> tuple[int, int, bool]:
    """How many tokens of a text are allowed, of how many, and whether it may end there."""
    compiler = GrammarCompiler(lm, lm.model.config.vocab_size)
    matcher, ids = compiler.matcher(grammar), lm.encode(text, add_special_tokens=False).tolist()
    end = max(lm.eos_token_ids)
    for number, token in enumerate(ids):
        if matcher.is_finished or not matcher.allowed()[0, token]:
            return number, len(ids), False
        matcher.append(token)
    return len(ids), len(ids), matcher.is_finished or bool(matcher.allowed()[0, end])


CALL = '<tool_call>\n{"name": "day", "arguments": {"day": "sunday"}}\n</tool_call>'
WRONG = '<tool_call>\n{"name": "day", "arguments": {"day": "friday"}}\n</tool_call>'


@pytest.mark.parametrize(
    ("text", "is_allowed"),
    [
        ("It is sunday.", True),
        (f"I look. {CALL}", True),
        (f"{CALL}\n{CALL}", True),
        (f"I look. {WRONG}", False),
        (f"{CALL}\n{WRONG}", False),
        ("a <tool_call> is a mark", False),
    ],
)
def test_a_strict_function_allows_text_and_right_calls(
    default_model: LanguageModel, text: str, is_allowed: bool
) -> None:
    grammar = call_grammar(
        default_model, [STRICT], parallel=True, tool_format="prompt", must_call=False
    )
    num, of, may_end = num_allowed(default_model, grammar, text)
    assert (num == of and may_end) == is_allowed


@each_family
def test_a_strict_function_in_the_form_of_each_family(family: Family) -> None:
    lm = family.lm(generating_lm())
    free = call_grammar(lm, [STRICT], variables=NO_THOUGHT, must_call=False)
    text, _ = forced_answer(lm)
    num, of, may_end = num_allowed(lm, free, text)
    assert (num, may_end) == (of, True)
    num, of, _ = num_allowed(lm, free, re.sub("sunday|monday", "friday", text))
    assert num < of
    thought = text.partition("</think>")[1]
    assert num_allowed(lm, free, f"{thought}It is friday.")[2]


def test_what_cannot_be_called_is_refused(default_model: LanguageModel) -> None:
    with pytest.raises(InputError, match="tools is empty"):
        call_grammar(default_model, [])
    with pytest.raises(InputError, match="'night' is none of the tools"):
        call_grammar(default_model, TOOLS, name="night")
    text = {"type": "function", "function": {"name": "say", "parameters": {"type": "string"}}}
    with pytest.raises(InputError, match="'say' have type='string'"):
        call_grammar(default_model, [text])


def test_a_keyword_that_cannot_be_followed_is_refused_if_strict(
    default_model: LanguageModel,
) -> None:
    compiler = GrammarCompiler(default_model, default_model.model.config.vocab_size)
    schema = {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}}
    function = {"name": "all", "parameters": schema}
    compiler.matcher(call_grammar(default_model, [{"function": function}]))
    strict = call_grammar(default_model, [{"function": {**function, "strict": True}}])
    with pytest.raises(InputError, match="uniqueItems"):
        compiler.matcher(strict)
