"""Streams with pinned prefixes of different length step together, each as it would alone."""

from __future__ import annotations

import pytest
import torch

from streamingllm import Engine, LanguageModel, Stream, StreamConfig
from streamingllm.errors import ConfigError, InputError
from tests.engine.driver import Record, config_alone, free, random_ids, run, tokens_of
from tests.reference.families import model_of
from tests.reference.tiny_folder import byte_tokenizer
from tests.reference.tiny_lm import tiny_lm

CONFIG = StreamConfig(num_sink_tokens=3, window_size=29, max_rewind_tokens=6, chunk_size=40)


@pytest.mark.parametrize("cache", ["none", "int8"])
@pytest.mark.parametrize("name", ["tiny", "gemma3", "gpt-oss", "gptj", "bloom"])
def test_each_stream_equals_its_run_alone(cache: str, name: str) -> None:
    lm = tiny_lm()
    if name != "tiny":
        lm = LanguageModel(model_of(name), byte_tokenizer(), name, "test")
    config = StreamConfig(3, 29, quantize_cache=cache, chunk_size=16)
    with Engine(lm, config, max_streams=4, max_pinned_tokens=20) as engine:
        record = Record(engine)
        for seed, num_pinned in enumerate((0, 1, 9, 20)):
            pinned = random_ids(num_pinned, seed, 60)
            stream_id = engine.open_stream(pinned=pinned)
            prompt = random_ids(4 + 30 * seed, seed + 10, 60)
            engine.submit(stream_id, prompt, free(40))
            record.read(stream_id, pinned + prompt)
            record.pinned[stream_id] = num_pinned
        record.run()
        record.check()


def test_greedy_tokens_are_those_of_a_stream_alone() -> None:
    lm = tiny_lm()
    pinned, prompt = random_ids(17, 1), random_ids(60, 2)
    alone = Stream(lm.model, config_alone(CONFIG, 17))
    alone.feed(torch.tensor(pinned + prompt), logits="none")
    with Engine(lm, CONFIG, max_streams=2, max_pinned_tokens=17) as engine:
        stream_id = engine.open_stream(pinned=pinned)
        engine.submit(stream_id, prompt, free(40))
        outputs = list(run(engine))
    assert tokens_of(outputs, stream_id) == list(alone.generate(40))
    assert outputs[-1].usage.num_prompt_tokens == 77


def test_a_prefix_that_is_too_long_is_refused() -> None:
    with Engine(tiny_lm(), CONFIG, max_streams=1, max_pinned_tokens=5) as engine:
        with pytest.raises(InputError, match="max_pinned_tokens=5"):
            engine.open_stream(pinned=[1] * 6)
        with pytest.raises(InputError, match="pinned contains 257"):
            engine.open_stream(pinned=[257])
        assert engine.stream_ids == []
        assert engine.stats().num_free_slots == 1
    with pytest.raises(ConfigError, match="max_pinned_tokens=32"):
        Engine(tiny_lm(), CONFIG, max_streams=1, max_pinned_tokens=32)


@pytest.mark.parametrize("num_streams", [1, 3])
def test_windows_that_begin_with_a_turn(num_streams: int) -> None:
    lm = tiny_lm()
    config = StreamConfig(3, 29, eviction="turn", chunk_size=40)
    turns = [random_ids(11, seed) for seed in range(8)]
    alone = Stream(lm.model, config)
    expected = []
    for turn in turns:
        alone.begin_turn()
        alone.feed(torch.tensor(turn), logits="none")
        expected += list(alone.generate(3))
    with Engine(lm, config, max_streams=num_streams) as engine:
        neighbours = [engine.open_stream() for _ in range(num_streams - 1)]
        for neighbour in neighbours:
            engine.submit(neighbour, [5, 6], free(None))
        stream_id = engine.open_stream()
        found: list[int] = []
        for turn in turns:
            engine.mark_turn(stream_id)
            engine.submit(stream_id, turn, free(3))
            while engine.state(stream_id) != "idle":
                found += tokens_of(engine.step(), stream_id)
    assert found == expected
