"""Streams of a hybrid model in an engine's slots: a pass each, states in the pool."""

from __future__ import annotations

import pytest
import torch

from streamingllm import Engine, LanguageModel, StreamConfig
from streamingllm.engine import StreamState
from tests.engine.driver import check_alone, free, random_ids, run, start, tokens_of
from tests.reference.family import VOCAB_SIZE
from tests.reference.hybrids import hybrid_model
from tests.reference.tiny_folder import byte_tokenizer

NAMES = ["lfm2", "qwen3_next", "falcon_h1", "jamba"]
CONFIG = StreamConfig(num_sink_tokens=2, window_size=10, max_rewind_tokens=4, chunk_size=16)
PROMPTS = [random_ids(length, seed=length, vocab_size=VOCAB_SIZE) for length in (3, 17, 40)]


def language_model(name: str) -> LanguageModel:
    return LanguageModel(hybrid_model(name), byte_tokenizer(), name, "test")


@pytest.mark.parametrize("name", NAMES)
def test_every_stream_equals_its_run_alone_also_in_a_used_slot(name: str) -> None:
    lm = language_model(name)
    with Engine(lm, CONFIG, max_streams=2) as engine:
        assert engine.batching_unsupported_reason == "its recurrent layers have no decode step"
        for _ in range(2):  # the second time each slot has held another stream
            ids = {start(engine, prompt, free(9)): prompt for prompt in PROMPTS}
            outputs = list(run(engine))
            for stream_id, prompt in ids.items():
                text = prompt + tokens_of(outputs, stream_id)
                assert len(text) == len(prompt) + 9
                made = [False] * len(prompt) + [True] * 9
                check_alone(lm, text, made, CONFIG)


@pytest.mark.parametrize("name", NAMES)
def test_fork_rewind_and_moving_keep_the_states(name: str) -> None:
    lm = language_model(name)
    with Engine(lm, CONFIG, max_streams=4) as engine, Engine(lm, CONFIG, max_streams=2) as other:
        first = start(engine, PROMPTS[2], free(5))
        text = PROMPTS[2] + tokens_of(list(run(engine, close=False)), first)
        fork = engine.fork(first)
        engine.rewind(first, 3)
        data = engine.export_state(first).to_bytes()
        moved = other.open_stream(state=StreamState.from_bytes(data))
        more = random_ids(6, seed=8, vocab_size=VOCAB_SIZE)
        for owner, stream_id, kept in (
            (engine, fork, text),
            (engine, first, text[:-3]),
            (other, moved, text[:-3]),
        ):
            owner.submit(stream_id, more, free(7))
            made = tokens_of(list(run(owner)), stream_id)
            whole = kept + more + made
            check_alone(lm, whole, [False] * (len(kept) + 6) + [True] * 7, CONFIG)


@pytest.mark.parametrize("name", NAMES)
def test_the_pool_counts_states_and_checkpoints(name: str) -> None:
    lm = language_model(name)
    with Engine(lm, CONFIG, max_streams=3) as engine:
        pool = engine._pool
        tensors = [buffer for store in pool.whole.stores for buffer in store.buffers.values()]
        assert {len(buffer) for buffer in tensors} == {3}
        assert pool.nbytes == sum(buffer.nbytes for buffer in tensors)
        states = pool.whole.states
        assert states is not None
        held = states.nbytes + states.rewind_nbytes
        assert held > 0
        addresses = {buffer.data_ptr() for buffer in tensors}
        list(run(engine))
        start(engine, PROMPTS[1], free(4))
        list(run(engine))
        after = {b.data_ptr() for store in pool.whole.stores for b in store.buffers.values()}
        assert after == addresses


def test_a_failed_pass_wipes_states_that_are_not_finite() -> None:
    lm = language_model("qwen3_next")
    with Engine(lm, CONFIG, max_streams=1) as engine:
        pool = engine._pool
        slot = pool.open()
        assert slot is not None
        for store in pool.whole.stores:
            for buffer in store.buffers.values():
                buffer.fill_(torch.nan)
        slot.close(wipe=True)
        stream_id = start(engine, PROMPTS[1], free(5))
        text = PROMPTS[1] + tokens_of(list(run(engine)), stream_id)
        check_alone(lm, text, [False] * 17 + [True] * 5, CONFIG)
