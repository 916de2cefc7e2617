"""Answers of all formats, cut into pieces in every way."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamingllm.sessions.answer_parser import (
    AnswerPart,
    CallArguments,
    CallEnded,
    CallStarted,
    Reasoning,
    Text,
)
from streamingllm.sessions.answer_parser.call_format import (
    CallFormat,
    MarkedParser,
    ReasoningMarks,
)
from streamingllm.sessions.answer_parser.deepseek import DeepSeekFormat
from streamingllm.sessions.answer_parser.gemma import GemmaFormat
from streamingllm.sessions.answer_parser.hermes import HermesFormat
from streamingllm.sessions.answer_parser.llama import LlamaFormat
from streamingllm.sessions.answer_parser.mistral import MistralFormat
from streamingllm.sessions.answer_parser.phi import PhiFormat
from streamingllm.sessions.answer_parser.qwen_coder import QwenCoderFormat

SCHEMAS = {"add": {"properties": {"a": {"type": "number"}, "b": {"type": "string"}}}, "stop": {}}
FORMATS: list[CallFormat] = [
    HermesFormat(),
    QwenCoderFormat(),
    LlamaFormat(),
    MistralFormat(),
    DeepSeekFormat(),
    PhiFormat(),
    GemmaFormat(),
]
ADD = '{"name": "add", "arguments": {"a": 1}}'
THINK = ReasoningMarks("<think>", "</think>")


def parse(pieces: Sequence[str], call_format: CallFormat) -> list[AnswerPart]:
    parser = MarkedParser([call_format], SCHEMAS, THINK, "a test")
    return [part for piece in pieces for part in parser.feed(piece)] + parser.finish()


def joined(parts: Sequence[AnswerPart]) -> tuple[str, str, list[tuple[str, str, bool]]]:
    """Text, reasoning, and the calls with their names, arguments and whether they ended."""
    calls: list[tuple[str, str, bool]] = []
    for part in parts:
        if isinstance(part, CallStarted):
            assert part.number == len(calls)
            calls.append((part.name, "", False))
        elif isinstance(part, CallArguments):
            assert part.number == len(calls) - 1
            name, arguments, has_ended = calls[-1]
            assert not has_ended
            calls[-1] = (name, arguments + part.text, False)
        elif isinstance(part, CallEnded):
            calls[-1] = (*calls[-1][:2], True)
    text = "".join(part.text for part in parts if isinstance(part, Text))
    reasoning = "".join(part.text for part in parts if isinstance(part, Reasoning))
    return text, reasoning, calls


@pytest.mark.parametrize(
    ("call_format", "answer"),
    [
        (HermesFormat(), f"<tool_call>\n{ADD}\n</tool_call>"),
        (HermesFormat(), f"<tool_call>[{ADD}]</tool_call>"),
        (HermesFormat(), '<tool_call>{"arguments": {"a": 1}, "name": "add"}</tool_call>'),
        (HermesFormat(), '<tool_call>{"name": "add", "arguments": "{\\"a\\": 1}"}</tool_call>'),
        (HermesFormat(), f"<tool_call>{ADD}"),
        (QwenCoderFormat(), f"<tool_call>\n{ADD}\n</tool_call>"),
        (
            QwenCoderFormat(),
            "<tool_call>\n<function=add>\n<parameter=a>\n1\n</parameter>\n</function>\n</tool_call>",
        ),
        (LlamaFormat(), '{"name": "add", "parameters": {"a": 1}}'),
        (LlamaFormat(), '<|python_tag|>{"name": "add", "parameters": {"a": 1}}'),
        (LlamaFormat(), "<|python_tag|>add.call(a=1)"),
        (LlamaFormat(), '<function=add>{"a": 1}</function>'),
        (MistralFormat(), f"[TOOL_CALLS] [{ADD}]"),
        (MistralFormat(), '[TOOL_CALLS]add[ARGS]{"a": 1}'),
        (MistralFormat(), '[TOOL_CALLS]add[CALL_ID]abcdefghi[ARGS]{"a": 1}'),
        (MistralFormat(), '[TOOL_CALLS]add{"a": 1}'),
        (
            DeepSeekFormat(),
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>add<｜tool▁sep｜>"
            '{"a": 1}<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
        ),
        (
            DeepSeekFormat(),
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>add\n```json\n"
            '{"a": 1}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
        ),
        (PhiFormat(), f"functools[{ADD}]"),
        (PhiFormat(), f"<|tool_call|>[{ADD}]<|/tool_call|>"),
        (GemmaFormat(), "```tool_code\nprint(add(a=1))\n```"),
        (GemmaFormat(), "[add(a=1)]"),
        (GemmaFormat(), f"```json\n{ADD}\n```"),
    ],
)
@pytest.mark.parametrize("before", ["", "<think>\nWhy?\n</think>\n\n"])
def test_a_call_is_found_however_it_is_cut(
    call_format: CallFormat, answer: str, before: str
) -> None:
    whole = before + answer
    for pieces in ([whole], list(whole), [whole[:7], whole[7:]]):
        text, reasoning, calls = joined(parse(pieces, call_format))
        assert (text, reasoning) == ("", "Why?" if before else "")
        assert [(name, json.loads(found), ended) for name, found, ended in calls] == [
            ("add", {"a": 1}, True)
        ]


def test_arguments_are_streamed_as_they_are_written() -> None:
    parser = MarkedParser([HermesFormat()], SCHEMAS, None, "a test")
    assert parser.feed('Well.\n<tool_call>{"name": "add"') == [Text("Well.")]
    assert parser.feed(', "arguments": {"b": "x') == [
        CallStarted(0, "add"),
        CallArguments(0, '{"b": "x'),
    ]
    assert parser.feed("y") == [CallArguments(0, "y")]
    # What is streamed already is closed as it is.
    assert parser.finish() == [CallEnded(0)]


@pytest.mark.parametrize(
    "answer",
    [
        "<tool_call>no JSON</tool_call>",
        '<tool_call>{"name": "unknown", "arguments": {"a": 1}}</tool_call>',
        '<tool_call>{"name": "add", "arguments": oops}</tool_call>',
        '<tool_call>{"name": "add", "argu',
        "<tool_call>",
        "a < b <tool_",
        " \n",
    ],
)
def test_what_is_no_call_is_text_as_it_was_written(answer: str) -> None:
    assert joined(parse(list(answer), HermesFormat())) == (answer, "", [])


def test_a_call_after_what_is_none() -> None:
    text, _, calls = joined(parse([f"<tool_call>oops<tool_call>{ADD}</tool_call>"], HermesFormat()))
    assert text == "<tool_call>oops"
    assert [name for name, *_ in calls] == ["add"]


@pytest.mark.parametrize(
    ("answer", "arguments", "text"),
    [
        ("<parameter=b>\nso far", '{"b": "so far', ""),
        ("<parameter=a>1</parameter><parameter=b>x\ny", '{"a": 1, "b": "x\\ny', ""),
        ("<parameter=a>1</parameter>\n<parameter=", '{"a": 1', "<parameter="),
        ("<parameter=a>1</parameter>", '{"a": 1', ""),
        ("<parameter=a>1</parameter> but", '{"a": 1}', " but"),
    ],
)
def test_a_call_of_tags_that_breaks_off_stays_open(answer: str, arguments: str, text: str) -> None:
    whole = f"<tool_call>\n<function=add>\n{answer}"
    assert joined(parse(list(whole), QwenCoderFormat())) == (text, "", [("add", arguments, True)])


PIECES = st.sampled_from(
    [
        *{mark for f in FORMATS for mark in (*f.marks, *f.starts, *f.other_marks)},
        *('{"name": "add", "arguments": ', '{"a": 1}', "}", "]", "add", "stop", ADD, '"', "\\"),
        *("<think>", "</think>", "\n", "x", ",", "(a=1)", "</tool_call>", "<function=add>"),
    ]
)


@pytest.mark.parametrize("call_format", FORMATS, ids=lambda f: f.name)
@given(pieces=st.lists(PIECES | st.text(max_size=5), max_size=12), data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_text_is_parsed_alike_however_it_is_cut(
    call_format: CallFormat, pieces: list[str], data: st.DataObject
) -> None:
    whole = "".join(pieces)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    cut = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    parts = parse(cut, call_format)
    assert joined(parts) == joined(parse([whole], call_format))
    text, reasoning, calls = joined(parts)
    assert all(ended for *_, ended in calls)
    if not calls and not reasoning and "think>" not in whole:
        assert text == whole


WORDS = [f"word{number}" for number in range(10, 22)]
MARKS = st.sampled_from(
    [
        # What stands after [CALL_ID] is the call's own number, which the server does not keep.
        *{m for f in FORMATS for m in (*f.marks, *f.starts, *f.other_marks) if m != "[CALL_ID]"},
        *('{"name": "add", "arguments": ', '{"a": 1', '{"b": "', "}", "]", "add", "function", ADD),
        *(
            "<think>",
            "</think>",
            "\n",
            ",",
            "(a=1)",
            "<function=add>",
            "<parameter=b>",
            "```json\n",
        ),
        *("</parameter>", "</function>", "<tool_call>", '"', "```json\n"),
    ]
)


@pytest.mark.parametrize("call_format", FORMATS, ids=lambda f: f.name)
@given(marks=st.lists(st.lists(MARKS, max_size=4), min_size=1, max_size=len(WORDS)))
@settings(max_examples=150, deadline=None)
def test_no_text_is_lost_between_marks(call_format: CallFormat, marks: list[list[str]]) -> None:
    used = WORDS[: len(marks)]
    whole = "".join("".join(some) + word for some, word in zip(marks, used, strict=True))
    text, reasoning, calls = joined(parse([whole], call_format))
    found = " ".join([text, reasoning, *(name + arguments for name, arguments, _ in calls)])
    assert [word for word in used if word not in found] == []
