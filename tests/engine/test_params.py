"""Each parameter of a stream does what its name says, and touches no other stream."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from streamingllm import Engine, Grammar, SamplingParams, Stream, StreamConfig
from streamingllm.errors import ConfigError, InputError, UnsupportedFeatureError
from streamingllm.finish_reason import FinishReason
from tests.engine.driver import free, run, start, text_of, tokens_of
from tests.reference.tiny_lm import END, tiny_lm

CONFIG = StreamConfig(num_sink_tokens=4, window_size=28, chunk_size=32)
PROMPT = "hello there"


def write(
    params: SamplingParams, *, neighbours: int = 0, prompt: str = PROMPT
) -> tuple[list[int], str, FinishReason | None]:
    """Return the tokens and the text of one stream, and why the text ended."""
    with Engine(tiny_lm(), CONFIG, max_streams=1 + neighbours) as engine:
        for i in range(neighbours):
            start(engine, prompt * (i + 1), SamplingParams(1.0, max_new_tokens=50, seed=i))
        stream_id = start(engine, prompt, params)
        outputs = list(run(engine))
    (reason,) = {o.finish_reason for o in outputs if o.stream_id == stream_id} - {None}
    return tokens_of(outputs, stream_id), text_of(outputs, stream_id), reason


def params(**fields: Any) -> SamplingParams:
    """Forty tokens, whatever they are."""
    return free(**({"max_new_tokens": 40} | fields))


GREEDY_TOKENS = write(params())[0]


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.8, "top_p": 0.9, "top_k": 40},
        {"temperature": 1.5, "min_p": 0.05},
        {"repetition_penalty": 1.3},
        {"frequency_penalty": 0.5, "presence_penalty": 0.7},
        {"temperature": 1.0, "logit_bias": {65: 3.0, 70: -5.0}},
    ],
    ids=str,
)
def test_sampling_equals_that_of_a_stream_alone(options: dict[str, Any]) -> None:
    lm, sampling = tiny_lm(), SamplingParams(**options)
    alone = Stream(lm.model, CONFIG)
    alone.feed(lm.encode(PROMPT))
    generator = torch.Generator().manual_seed(5)
    expected = list(alone.generate(40, sampling=sampling, generator=generator))
    assert write(params(**options, seed=5), neighbours=2)[0] == expected
    assert expected != GREEDY_TOKENS


def test_a_seed_repeats_and_neighbours_do_not_matter() -> None:
    alone = write(params(temperature=1.0, seed=7))[0]
    assert write(params(temperature=1.0, seed=7), neighbours=3)[0] == alone
    assert write(params(temperature=1.0, seed=8))[0] != alone
    assert write(params(temperature=1.0))[0] != write(params(temperature=1.0))[0]


def test_bias_forces_and_forbids() -> None:
    assert write(params(logit_bias={42: 1e4}))[0] == [42] * 40
    assert GREEDY_TOKENS[0] not in write(params(logit_bias={GREEDY_TOKENS[0]: -1e4}))[0]


def test_a_frequency_penalty_looks_at_what_was_written_not_at_the_prompt() -> None:
    bias = dict.fromkeys(tiny_lm().encode(PROMPT).tolist(), 1000.0)
    strong = params(presence_penalty=10.0, logit_bias=bias, max_new_tokens=7)
    tokens = write(strong)[0]
    assert set(tokens) <= set(bias)
    assert len(set(tokens)) == 7  # each of the prompt's seven letters before any comes again


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_stop_string_across_tokens(cut: int) -> None:
    stop = "abcdef"[cut : cut + 3]
    spelled = SamplingParams(grammar=Grammar.regex("abcdef"), stop_strings=["zz", stop])
    tokens, text, reason = write(spelled)
    assert text == "abcdef"[:cut]
    assert len(tokens) == cut + 3
    assert reason == "stop"


def test_a_stop_string_that_only_begins_is_written() -> None:
    spelled = SamplingParams(max_new_tokens=3, grammar=Grammar.regex("abcde"), stop_strings=["bcd"])
    _, text, reason = write(spelled)
    assert text == "abc"
    assert reason == "length"


def test_stop_tokens() -> None:
    at = next(
        i for i, token in enumerate(GREEDY_TOKENS) if i > 3 and token not in GREEDY_TOKENS[:i]
    )
    tokens, text, reason = write(params(stop_token_ids=[GREEDY_TOKENS[at]]))
    assert tokens == GREEDY_TOKENS[: at + 1]
    assert text == tiny_lm().decode(GREEDY_TOKENS[:at])
    assert reason == "stop"


def test_the_models_end_token_ends_a_text_unless_ignored() -> None:
    end = int(tiny_lm().encode(END)[0])
    forced = {"logit_bias": {end: 1e4}, "max_new_tokens": 5}
    tokens, text, reason = write(SamplingParams(**forced))
    assert (tokens, text, reason) == ([end], "", "stop")
    assert write(SamplingParams(**forced, ignore_eos=True))[0] == [end] * 5


def test_text_is_that_of_all_tokens() -> None:
    tokens, text, _ = write(params(temperature=2.0, seed=1))
    assert text == tiny_lm().decode(tokens)


def test_nothing_to_write() -> None:
    tokens, text, reason = write(params(max_new_tokens=0))
    assert (tokens, text, reason) == ([], "", "length")


@pytest.mark.parametrize("n", [1, 2, 5])
def test_samples_of_one_prompt(n: int) -> None:
    warm = params(temperature=1.0, seed=3, n=n)
    with Engine(tiny_lm(), CONFIG, max_streams=2) as engine:
        stream_id = start(engine, "a prompt of several chunks " * 4, warm)
        other = start(engine, PROMPT, params())
        # The other stream keeps its slot, so that the samples share one.
        outputs = list(run(engine, close=False))
        assert engine.state(stream_id) == engine.state(other) == "idle"
        assert engine.stats().num_free_slots == 0
        found = [tokens_of(outputs, stream_id, i) for i in range(n)]
        assert tokens_of(outputs, other) == GREEDY_TOKENS
    assert len({tuple(tokens) for tokens in found}) == n
    for index, tokens in enumerate(found):
        alone = params(temperature=1.0, seed=3 + index)
        assert write(alone, prompt="a prompt of several chunks " * 4)[0] == tokens


@pytest.mark.parametrize("num_top", [0, 1, 5])
def test_logprobs(num_top: int) -> None:
    lm = tiny_lm()
    with Engine(lm, CONFIG, max_streams=1) as engine:
        stream_id = start(engine, PROMPT, params(temperature=0.9, seed=1, logprobs=num_top))
        outputs = list(run(engine))
    tokens = tokens_of(outputs, stream_id)
    found = [entry for output in outputs for entry in output.logprobs]
    assert [entry.token_id for entry in found] == tokens
    ids = torch.cat((lm.encode(PROMPT), torch.tensor(tokens)))
    logits = Stream(lm.model, CONFIG).feed(ids)[-len(tokens) - 1 : -1]
    logprobs = logits.log_softmax(dim=-1)
    for entry, expected in zip(found, logprobs, strict=True):
        assert entry.logprob == pytest.approx(float(expected[entry.token_id]), abs=1e-3)
        best = expected.topk(num_top)
        assert [value for _, value in entry.top] == pytest.approx(best.values.tolist(), abs=1e-3)
        for token, value in entry.top:
            assert value == pytest.approx(float(expected[token]), abs=1e-3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_new_tokens": -1}, "max_new_tokens=-1 is out of range"),
        ({"max_new_tokens": 2.0}, r"max_new_tokens=2\.0 is no integer"),
        ({"max_new_tokens": True}, "max_new_tokens=True is no integer"),
        ({"top_k": 1.5}, r"top_k=1\.5 is no integer"),
        ({"n": 0}, "n=0 is out of range"),
        ({"n": True}, "n=True is no integer"),
        ({"logprobs": 21}, "logprobs=21 is out of range"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 1 << 63}, "seed=9223372036854775808 is out of range"),
        ({"temperature": "hot"}, "temperature='hot' is no number"),
        ({"temperature": float("nan")}, "temperature=nan is out of range"),
        ({"ignore_eos": 1}, "ignore_eos=1"),
        ({"stop_strings": "stop"}, "stop_strings='stop'"),
        ({"stop_strings": ["a", ""]}, "stop_strings="),
        ({"stop_strings": [3]}, "stop_strings="),
        ({"stop_token_ids": [-3]}, "stop_token_ids=-3"),
        ({"stop_token_ids": [3.0]}, r"stop_token_ids=3\.0"),
        ({"logit_bias": {1.0: 2.0}}, r"logit_bias=1\.0 is no integer"),
        ({"logit_bias": {1: float("inf")}}, r"logit_bias\[1\]=inf is out of range"),
    ],
)
def test_bad_values_are_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SamplingParams(**fields)


@pytest.mark.parametrize(
    "bad", [SamplingParams(stop_token_ids=[257]), SamplingParams(logit_bias={257: 1.0})]
)
def test_tokens_out_of_the_vocabulary(bad: SamplingParams) -> None:
    with Engine(tiny_lm(), CONFIG, max_streams=1) as engine:
        stream_id = engine.open_stream()
        with pytest.raises(InputError, match="257, which is out of"):
            engine.submit(stream_id, [1], bad)
        assert engine.state(stream_id) == "idle"


@pytest.mark.parametrize(
    "fields",
    [{"stop_strings": ["x"]}, {"grammar": Grammar.regex("a")}, {"n": 2}, {"logprobs": 0}],
    ids=str,
)
def test_a_stream_of_token_ids_refuses_what_needs_an_engine(fields: dict[str, Any]) -> None:
    lm = tiny_lm()
    stream = Stream(lm.model, CONFIG)
    stream.feed(lm.encode(PROMPT), logits="none")
    with pytest.raises(UnsupportedFeatureError, match=f"^{next(iter(fields))}="):
        stream.generate(3, sampling=SamplingParams(**fields))


def test_parameters_as_json_and_back() -> None:
    odd = SamplingParams(
        0.5,
        logit_bias={3: -1.5},
        max_new_tokens=None,
        stop_strings=["a"],
        stop_token_ids={4, 2},
        grammar=Grammar.regex("a+"),
    )
    again = SamplingParams.from_json(json.loads(json.dumps(odd.to_json())))
    assert again.to_json() == odd.to_json()
    assert hash(again) == hash(odd)
