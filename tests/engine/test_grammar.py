"""Texts that must follow a grammar do."""

from __future__ import annotations

import json
import re
import sys
from typing import Any

import pytest

from streamingllm import Engine, Grammar, LanguageModel, SamplingParams, StreamConfig
from streamingllm.errors import ConfigError, InputError, UnsupportedFeatureError
from tests.engine.driver import free, run, start, text_of, tokens_of
from tests.reference.tiny_lm import tiny_lm

CONFIG = StreamConfig(num_sink_tokens=4, window_size=28, chunk_size=32)


def write(grammar: Grammar, lm: LanguageModel | None = None, **fields: Any) -> str:
    with Engine(lm or tiny_lm(), CONFIG, max_streams=2) as engine:
        other = start(engine, "free", free(5))
        params = SamplingParams(max_new_tokens=200, seed=1, grammar=grammar, **fields)
        stream_id = start(engine, "say", params)
        outputs = list(run(engine))
    reasons = [o.finish_reason for o in outputs if o.stream_id == stream_id]
    assert reasons[-1] == "stop"
    assert len(tokens_of(outputs, other)) == 5
    return text_of(outputs, stream_id)


@pytest.mark.parametrize(
    "fields", [{}, {"temperature": 1.0}, {"temperature": 1.0, "top_k": 3}], ids=str
)
def test_a_regular_expression(fields: dict[str, Any]) -> None:
    assert re.fullmatch("[ab]{5}c|xy?", write(Grammar.regex("[ab]{5}c|xy?"), **fields))


def test_a_context_free_grammar() -> None:
    text = write(Grammar.lark('start: "(" start ")" | "x"'), temperature=1.0)
    assert re.fullmatch(r"\(*x\)*", text)
    assert text.count("(") == text.count(")")


def test_a_json_schema_on_the_default_model(default_model: LanguageModel) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "Rome"]}, "sure": {"type": "boolean"}},
        "required": ["city", "sure"],
        "additionalProperties": False,
    }
    answer = json.loads(write(Grammar.json_schema(schema), default_model))
    assert answer["city"] in ("Paris", "Rome")
    assert isinstance(answer["sure"], bool)


def test_a_fork_goes_its_own_way() -> None:
    with Engine(tiny_lm(), CONFIG, max_streams=2) as engine:
        grammar = Grammar.regex("[a-z]{20}")
        params = SamplingParams(1.0, max_new_tokens=30, seed=2, grammar=grammar)
        stream_id = start(engine, "say", params)
        while engine.usage(stream_id).num_generated_tokens < 8:
            engine.step()
        fork = engine.fork(stream_id)
        outputs = list(run(engine))
    assert text_of(outputs, stream_id) == text_of(outputs, fork)
    assert len(text_of(outputs, fork)) == 12


@pytest.mark.parametrize(
    "grammar",
    [
        Grammar.regex("("),
        Grammar.lark("start: ("),
        Grammar.json_schema("{"),
        Grammar.json_schema({"type": "nothing"}),
    ],
    ids=str,
)
def test_a_wrong_grammar_is_refused_before_anything_else(grammar: Grammar) -> None:
    with Engine(tiny_lm(), CONFIG, max_streams=1) as engine:
        stream_id = engine.open_stream()
        with pytest.raises(InputError, match=f"grammar: is no valid {grammar.syntax}"):
            engine.submit(stream_id, [5], SamplingParams(grammar=grammar))
        assert engine.state(stream_id) == "idle"
        assert not engine.has_work


def test_a_grammar_says_where_a_text_ends() -> None:
    with pytest.raises(ConfigError, match="ignore_eos"):
        SamplingParams(grammar=Grammar.regex("a"), ignore_eos=True)


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance.hf", None)
    with (
        Engine(tiny_lm(), CONFIG, max_streams=1) as engine,
        pytest.raises(UnsupportedFeatureError, match=r"pip install 'streamingllm\[grammar\]'"),
    ):
        engine.submit(engine.open_stream(), [5], SamplingParams(grammar=Grammar.regex("a")))
