"""Whole texts for lists of prompts."""

from __future__ import annotations

import pytest

from streamingllm import Engine, SamplingParams, StreamConfig
from streamingllm.errors import CapacityError, InputError
from tests.engine.driver import free, run, start, tokens_of
from tests.reference.tiny_lm import tiny_lm

CONFIG = StreamConfig(num_sink_tokens=4, window_size=28, chunk_size=64)


def test_texts_of_a_list_of_prompts() -> None:
    lm = tiny_lm()
    with Engine(lm, CONFIG, max_streams=2, max_waiting=3) as engine:
        other = start(engine, "another stream", free(50))
        prompts = [f"prompt {i} " * (i + 1) for i in range(5)]
        completions = engine.generate(prompts, free(7))
        assert [c.prompt for c in completions] == prompts
        for prompt, completion in zip(prompts, completions, strict=True):
            assert completion.finish_reason == "length"
            assert completion.usage.num_generated_tokens == 7
            assert completion.text == lm.decode(completion.token_ids)
            ids = tuple(lm.encode(prompt).tolist())
            (again,) = engine.generate([ids], free(7))
            assert (again.prompt, again.token_ids) == (ids, completion.token_ids)
        (single,) = engine.generate(prompts[0], [free(3)])
        assert single.token_ids == completions[0].token_ids[:3]
        samples = engine.generate(prompts[0], free(4, temperature=1.0, seed=1, n=3))
        assert [s.sample_index for s in samples] == [0, 1, 2]
        assert engine.stream_ids == [other]
        # Outputs of the other stream were set aside and come with the next steps.
        assert len(tokens_of(list(run(engine)), other)) == 50


def test_prompts_that_cannot_run_are_refused() -> None:
    with Engine(tiny_lm(), CONFIG, max_streams=1, max_waiting=1) as engine:
        with pytest.raises(InputError, match=r"prompts\[1\] is empty"):
            engine.generate(["a", ""])
        with pytest.raises(InputError, match="params has 1 entries for 2 prompts"):
            engine.generate(["a", "b"], [SamplingParams()])
        engine.open_stream()
        for _ in range(2):
            with pytest.raises(CapacityError, match="slots"):
                engine.generate("a", free(1))
        assert len(engine.stream_ids) == 1
