"""Texts that must follow a grammar do."""

from __future__ import annotations

import json
import re
import sys

import pytest

from streamingllm import Engine, GenerationParams, Grammar, LanguageModel, Sampling, StreamConfig
from streamingllm.errors import ConfigError, InputError, UnsupportedFeatureError
from tests.reference.tiny_lm import tiny_lm

CONFIG = StreamConfig(num_sink_tokens=4, window_size=28, chunk_size=32)
WARM = Sampling(temperature=1.0)


def write(grammar: Grammar, sampling: Sampling = WARM, lm: LanguageModel | None = None) -> str:
    with Engine(lm or tiny_lm(), CONFIG, max_streams=2) as engine:
        free = engine.submit("free", GenerationParams(5, ignore_eos=True))
        stream = engine.submit("say", GenerationParams(200, sampling, seed=1, grammar=grammar))
        events = list(engine.run())
    assert stream.finish_reason == "stop"
    assert sum(event.stream is free and event.token is not None for event in events) == 5
    return "".join(event.text for event in events if event.stream is stream)


@pytest.mark.parametrize("sampling", [Sampling(), WARM, Sampling(temperature=1.0, top_k=3)])
def test_a_regular_expression(sampling: Sampling) -> None:
    assert re.fullmatch("[ab]{5}c|xy?", write(Grammar.regex("[ab]{5}c|xy?"), sampling))


def test_a_context_free_grammar() -> None:
    text = write(Grammar.lark('start: "(" start ")" | "x"'))
    assert re.fullmatch(r"\(*x\)*", text)
    assert text.count("(") == text.count(")")


def test_a_json_schema_on_the_default_model(default_model: LanguageModel) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "Rome"]}, "sure": {"type": "boolean"}},
        "required": ["city", "sure"],
        "additionalProperties": False,
    }
    answer = json.loads(write(Grammar.json_schema(schema), Sampling(), default_model))
    assert answer["city"] in ("Paris", "Rome")
    assert isinstance(answer["sure"], bool)


def test_a_fork_goes_its_own_way() -> None:
    with Engine(tiny_lm(), CONFIG, max_streams=2) as engine:
        params = GenerationParams(30, WARM, seed=2, grammar=Grammar.regex("[a-z]{20}"))
        stream = engine.submit("say", params)
        while stream.num_written_tokens < 8:
            engine.step()
        fork = engine.fork(stream)
        texts = {stream: "", fork: ""}
        for event in engine.run():
            texts[event.stream] += event.text
    assert texts[stream] == texts[fork]
    assert len(texts[fork]) == 12


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
        with pytest.raises(InputError, match=f"grammar: is no valid {grammar.syntax}"):
            engine.submit("say", GenerationParams(grammar=grammar))
        assert engine.streams == []


def test_a_grammar_says_where_a_text_ends() -> None:
    with pytest.raises(ConfigError, match="ignore_eos"):
        GenerationParams(grammar=Grammar.regex("a"), ignore_eos=True)


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance.hf", None)
    with (
        Engine(tiny_lm(), CONFIG, max_streams=1) as engine,
        pytest.raises(UnsupportedFeatureError, match=r"pip install 'streamingllm\[grammar\]'"),
    ):
        engine.submit("say", GenerationParams(grammar=Grammar.regex("a")))
