"""Answers in channels: parsed, and generated through an engine by a model with these marks."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamingllm import Engine, Grammar, LanguageModel, SamplingParams, StreamConfig
from streamingllm.engine import StreamState
from streamingllm.errors import UnsupportedFeatureError
from streamingllm.sessions import ChatTemplate, Message, ToolCall
from streamingllm.sessions.answer_parser import call_grammar, parser_for
from streamingllm.sessions.turn_input import TurnEncoder
from tests.engine.driver import run, start, text_of
from tests.sessions.answer_parser.test_call_grammar import num_allowed
from tests.sessions.answer_parser.test_formats import joined
from tests.sessions.families import FAMILIES, generating_lm
from tests.sessions.test_families import TOOL, rendered

FAMILY = next(family for family in FAMILIES if family.name == "gpt-oss")
THOUGHT = "<|channel|>analysis<|message|>Why?\n<|end|>"
NEXT = "<|start|>assistant"
CALL = '{"a": 1}'


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return FAMILY.lm(generating_lm())


def parse(lm: LanguageModel, pieces: Any, tools: Any = (TOOL,)) -> Any:
    parser = parser_for(lm, tools)
    return joined([part for piece in pieces for part in parser.feed(piece)] + parser.finish())


@pytest.mark.parametrize(
    ("answer", "text", "reasoning", "calls"),
    [
        ("<|channel|>final<|message|>Fine.", "Fine.", "", []),
        (f"{THOUGHT}{NEXT}<|channel|>final<|message|>Fine.", "Fine.", "Why?", []),
        ("<|channel|>commentary<|message|>I look.", "I look.", "", []),
        (
            f"{THOUGHT}{NEXT}<|channel|>commentary to=functions.add <|constrain|>json"
            f"<|message|>{CALL}<|call|>",
            "",
            "Why?",
            [("add", CALL, True)],
        ),
        (
            f" to=functions.add<|channel|>commentary json<|message|>{CALL}",
            "",
            "",
            [("add", CALL, True)],
        ),
        (
            f"<|channel|>commentary<|message|>I look.<|end|>{NEXT} to=functions.add"
            f"<|channel|>commentary<|message|>{CALL}",
            "I look.",
            "",
            [("add", CALL, True)],
        ),
        (f"{NEXT} to=functions.other<|channel|>commentary<|message|>{CALL}", CALL, "", []),
        ("<|channel|>analysis<|message|>Why", "", "Why", []),
        ("<|channel|>ana", "", "", []),
        ("No channel.", "No channel.", "", []),
        (f" to=functions.add<|channel|>c<|message|>{CALL[:6]}", "", "", [("add", '{"a": ', True)]),
    ],
)
def test_channels_are_told_apart_however_they_are_cut(
    lm: LanguageModel, answer: str, text: str, reasoning: str, calls: list[Any]
) -> None:
    for pieces in ([answer], list(answer), [answer[:9], answer[9:]]):
        assert parse(lm, pieces) == (text, reasoning, calls)


def test_channels_are_read_without_tools(lm: LanguageModel) -> None:
    answer = f"{THOUGHT}{NEXT}<|channel|>final<|message|>Fine."
    assert parse(lm, answer, tools=())[:2] == ("Fine.", "Why?")


def literal(lm: LanguageModel, text: str) -> str:
    """A text in a grammar, each mark a token."""
    ids = {token.content: i for i, token in lm.tokenizer.added_tokens_decoder.items()}
    parts = re.split(r"(<\|\w+\|>)", text)
    return " ".join(f"<[{ids[p]}]>" if p in ids else json.dumps(p) for p in parts if p)


def test_shown_marks_pass_through_the_engine_and_a_restored_state(lm: LanguageModel) -> None:
    said = f"{THOUGHT}{NEXT} to=functions.add<|channel|>commentary json<|message|>{CALL}<|call|>"
    parser = parser_for(lm, [TOOL])
    params = SamplingParams(
        1.0,
        max_new_tokens=200,
        seed=1,
        grammar=Grammar.lark(f"start: {literal(lm, said)}"),
        shown_token_ids=parser.shown_token_ids,
        stop_token_ids=parser.stop_token_ids,
    )
    config = StreamConfig(4, 60)
    with Engine(lm, config, max_streams=1) as engine:
        stream_id = start(engine, "Hi", params)
        texts: list[str] = []
        while "<|message|>" not in "".join(texts):
            texts += [output.text for output in engine.step()]
        state = engine.export_state(stream_id)
    with Engine(lm, config, max_streams=1) as other:
        stream_id = other.open_stream(state=StreamState.from_bytes(state.to_bytes()))
        outputs = list(run(other))
    texts.append(text_of(outputs, stream_id))
    assert outputs[-1].finish_reason == "stop"
    assert "".join(texts) == said.removesuffix("<|call|>")
    assert parse(lm, texts) == ("", "Why?", [("add", CALL, True)])


def test_a_forced_call_is_parsed_and_followed_by_its_result(lm: LanguageModel) -> None:
    tool: dict[str, Any] = {
        "type": "function",
        "function": {
            "name": "add",
            "description": "Add one.",
            "parameters": {"type": "object", "properties": {"a": {"enum": [1, 2]}}},
        },
    }
    grammar = call_grammar(lm, [tool])
    matched = Grammar.lark(grammar.definition.replace("thought?", ""))
    parser = parser_for(lm, [tool])
    params = SamplingParams(
        1.0,
        max_new_tokens=300,
        seed=1,
        grammar=matched,
        shown_token_ids=parser.shown_token_ids,
    )
    with Engine(lm, StreamConfig(4, 60), max_streams=1) as engine:
        stream_id = start(engine, "Hi", params)
        text = text_of(list(run(engine)), stream_id)
    found, _, ((name, arguments, has_ended),) = parse(lm, [text], [tool])
    assert (found, name, has_ended) == ("", "add", True)
    assert json.loads(arguments).get("a", 1) in (1, 2)
    chat = ChatTemplate(lm, tools=[tool])
    asked = Message("assistant", tool_calls=(ToolCall("call_1", name, arguments),))
    result = Message.of_text("tool", "42")
    assert chat.next_turn([result], asked).startswith("<|call|><|start|>functions.add to=assistant")


@pytest.mark.parametrize("thought", ["", f"{THOUGHT}{NEXT}"])
def test_a_forced_call_may_follow_a_thought(lm: LanguageModel, thought: str) -> None:
    grammar = call_grammar(lm, [TOOL])
    said = f'{thought}<|channel|>commentary to=functions.add <|constrain|>json<|message|>{{"a": 1'
    num, of, _ = num_allowed(lm, grammar, said)
    assert num == of
    num, of, _ = num_allowed(lm, grammar, f"{thought}<|channel|>final<|message|>Fine.")
    assert num < of


BODIES = [f"body{number}" for number in range(10, 16)]
HEADERS = st.sampled_from(
    [
        *("<|channel|>analysis<|message|>", "<|channel|>final<|message|>", "<|end|>", "<|start|>"),
        " to=functions.add<|channel|>commentary<|message|>",
        f" to=functions.add<|channel|>commentary<|message|>{CALL}",
        '{"a": "',
        "<|start|>assistant<|channel|>final<|message|>",
    ]
)


@given(headers=st.lists(HEADERS, min_size=1, max_size=len(BODIES)), data=st.data())
@settings(max_examples=200, deadline=None)
def test_any_text_is_parsed_alike_and_kept(headers: list[str], data: st.DataObject) -> None:
    lm, used = FAMILY.lm(generating_lm()), BODIES[: len(headers)]
    whole = "".join(header + body for header, body in zip(headers, used, strict=True))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    cut = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    text, reasoning, calls = parse(lm, cut)
    assert (text, reasoning, calls) == parse(lm, [whole])
    if "<|start|>body" not in whole:  # a word within a header, which is no text
        found = " ".join([text, reasoning, *(arguments for _, arguments, _ in calls)])
        assert [body for body in used if body not in found] == []


def test_answers_of_a_history_are_fed_with_their_channel(lm: LanguageModel) -> None:
    chat = ChatTemplate(lm, "Be kind.")
    said = [("user", "Hi"), ("assistant", "Hello."), ("user", "Bye"), ("assistant", "So")]
    encoder = TurnEncoder(lm, chat, past=False, answer=None, last_token_id=None, first=0)
    told = encoder.encode([Message.of_text(*one) for one in said])
    messages = [{"role": role, "content": text} for role, text in said[:3]]
    whole = rendered(lm, [{"role": "system", "content": "Be kind."}, *messages])
    fed = str(lm.tokenizer.decode(list(told.ids)))
    assert chat.opening + fed == f"{whole}<|channel|>final<|message|>So"
    # What goes on after "So" is text, because the channel was fed.
    assert parse(lm, [" it is."]) == (" it is.", "", [])


def test_strict_functions_need_a_required_call(lm: LanguageModel) -> None:
    with pytest.raises(UnsupportedFeatureError, match=r"strict=True .* leave out strict"):
        call_grammar(lm, [TOOL], must_call=False)
