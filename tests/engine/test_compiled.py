"""Compiled steps: streams come and go, and nothing is compiled again."""

from __future__ import annotations

import pytest

from streamingllm import Engine, LanguageModel, StreamConfig
from streamingllm.graphs import decode_step
from tests.engine.driver import free, start
from tests.reference.families import model_of
from tests.reference.tiny_folder import byte_tokenizer
from tests.reference.tiny_lm import tiny_lm

CONFIG = StreamConfig(num_sink_tokens=4, window_size=28, chunk_size=32)


def write(engine: Engine) -> list[list[int]]:
    """Let seven streams join, branch and leave."""
    tokens: dict[str, list[int]] = {}
    waiting = [f"prompt {i} " * (1 + 3 * i) for i in range(6)]
    while waiting or engine.has_work:
        if waiting:
            tokens[start(engine, waiting.pop(), free(25))] = []
        if len(waiting) == 2:
            tokens[engine.fork(engine.stream_ids[0])] = []
        for _ in range(3):
            for output in engine.step():
                tokens[output.stream_id] += output.token_ids
                if output.finish_reason is not None:
                    engine.close_stream(output.stream_id)
    return list(tokens.values())


@pytest.mark.filterwarnings("ignore:No complete tensor found")  # views of joined weights
def test_compiled_steps_write_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    with Engine(tiny_lm(), CONFIG, max_streams=6) as engine:
        expected = write(engine)
        assert engine.compile(wait=True)
        assert engine.stats().is_compiled
        monkeypatch.delattr(decode_step, "load_package")  # nothing more is to be loaded
        assert write(engine) == expected


def test_a_model_without_a_step_says_why() -> None:
    lm = LanguageModel(model_of("bloom"), byte_tokenizer(), "bloom", "test")
    with Engine(lm, CONFIG, max_streams=2) as engine:
        assert "bloom" in str(engine.batching_unsupported_reason)
        assert not engine.compile(wait=True)
        assert not engine.stats().is_compiled
