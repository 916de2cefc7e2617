"""Each parameter of a stream does what its name says, and touches no other stream."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from streamingllm import Engine, GenerationParams, Grammar, Sampling, Stream, StreamConfig
from streamingllm.engine import EngineStream
from streamingllm.errors import ConfigError, InputError
from tests.reference.tiny_lm import END, tiny_lm

CONFIG = StreamConfig(num_sink_tokens=4, window_size=28, chunk_size=32)
PROMPT = "hello there"
WARM = Sampling(temperature=1.0)


def write(
    params: GenerationParams, *, neighbours: int = 0, prompt: str = PROMPT
) -> tuple[list[int], str, EngineStream]:
    """Return the tokens and the text of one stream, and the stream."""
    with Engine(tiny_lm(), CONFIG, max_streams=1 + neighbours) as engine:
        for i in range(neighbours):
            engine.submit(prompt * (i + 1), GenerationParams(50, WARM, seed=i))
        stream = engine.submit(prompt, params)
        events = [event for event in engine.run() if event.stream is stream]
    tokens = [event.token for event in events if event.token is not None]
    return tokens, "".join(event.text for event in events), stream


def params(**fields: Any) -> GenerationParams:
    """Forty tokens, whatever they are."""
    return GenerationParams(**({"max_new_tokens": 40, "ignore_eos": True} | fields))


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
    lm, sampling = tiny_lm(), Sampling(**options)
    alone = Stream(lm.model, CONFIG)
    alone.feed(lm.encode(PROMPT))
    generator = torch.Generator().manual_seed(5)
    expected = list(alone.generate(40, sampling=sampling, generator=generator))
    assert write(params(sampling=sampling, seed=5), neighbours=2)[0] == expected
    assert expected != GREEDY_TOKENS


def test_a_seed_repeats_and_neighbours_do_not_matter() -> None:
    alone = write(params(sampling=WARM, seed=7))[0]
    assert write(params(sampling=WARM, seed=7), neighbours=3)[0] == alone
    assert write(params(sampling=WARM, seed=8))[0] != alone
    assert write(params(sampling=WARM))[0] != write(params(sampling=WARM))[0]


def test_bias_forces_and_forbids() -> None:
    assert write(params(sampling=Sampling(logit_bias={42: 1e4})))[0] == [42] * 40
    assert (
        GREEDY_TOKENS[0]
        not in write(params(sampling=Sampling(logit_bias={GREEDY_TOKENS[0]: -1e4})))[0]
    )


def test_a_frequency_penalty_looks_at_what_was_written_not_at_the_prompt() -> None:
    bias = dict.fromkeys(tiny_lm().encode(PROMPT).tolist(), 1000.0)
    strong = Sampling(presence_penalty=10.0, logit_bias=bias)
    tokens = write(params(sampling=strong, max_new_tokens=7))[0]
    assert set(tokens) <= set(bias)
    assert len(set(tokens)) == 7  # each of the prompt's seven letters before any comes again


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_stop_string_across_tokens(cut: int) -> None:
    stop = "abcdef"[cut : cut + 3]
    spelled = GenerationParams(grammar=Grammar.regex("abcdef"), stop_strings=["zz", stop])
    tokens, text, stream = write(spelled)
    assert text == "abcdef"[:cut]
    assert len(tokens) == cut + 3
    assert stream.finish_reason == "stop"


def test_a_stop_string_that_only_begins_is_written() -> None:
    spelled = GenerationParams(3, grammar=Grammar.regex("abcde"), stop_strings=["bcd"])
    _, text, stream = write(spelled)
    assert text == "abc"
    assert stream.finish_reason == "length"


def test_stop_tokens() -> None:
    at = next(
        i for i, token in enumerate(GREEDY_TOKENS) if i > 3 and token not in GREEDY_TOKENS[:i]
    )
    tokens, text, stream = write(params(stop_token_ids=[GREEDY_TOKENS[at]]))
    assert tokens == GREEDY_TOKENS[: at + 1]
    assert text == tiny_lm().decode(GREEDY_TOKENS[:at])
    assert stream.finish_reason == "stop"


def test_the_models_end_token_ends_a_text_unless_ignored() -> None:
    end = int(tiny_lm().encode(END)[0])
    forced = Sampling(logit_bias={end: 1e4})
    tokens, text, stream = write(GenerationParams(5, forced))
    assert (tokens, text, stream.finish_reason) == ([end], "", "stop")
    assert write(GenerationParams(5, forced, ignore_eos=True))[0] == [end] * 5


def test_text_is_that_of_all_tokens() -> None:
    tokens, text, _ = write(params(sampling=Sampling(temperature=2.0), seed=1))
    assert text == tiny_lm().decode(tokens)


def test_nothing_to_write() -> None:
    tokens, text, stream = write(params(max_new_tokens=0))
    assert (tokens, text, stream.finish_reason) == ([], "", "length")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_new_tokens": -1}, "max_new_tokens=-1"),
        ({"seed": -1}, "seed=-1"),
        ({"stop_strings": "stop"}, "stop_strings='stop'"),
        ({"stop_strings": ["a", ""]}, "stop_strings="),
        ({"stop_token_ids": [-3]}, "stop_token_ids="),
    ],
)
def test_bad_values_are_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        GenerationParams(**fields)


@pytest.mark.parametrize(
    "bad",
    [
        GenerationParams(stop_token_ids=[257]),
        GenerationParams(sampling=Sampling(logit_bias={257: 1.0})),
    ],
)
def test_tokens_out_of_the_vocabulary(bad: GenerationParams) -> None:
    with (
        Engine(tiny_lm(), CONFIG, max_streams=1) as engine,
        pytest.raises(InputError, match="257: must be 0 to 256"),
    ):
        engine.submit(PROMPT, bad)
