"""The memory of an engine is what the formula says, from the beginning to the end."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from streamingllm import Engine, SamplingParams, StreamConfig
from streamingllm.errors import CapacityError, ConfigError, InputError
from tests.engine.driver import free, run, start, tokens_of
from tests.reference.tiny_lm import tiny_lm

CONFIG = StreamConfig(num_sink_tokens=3, window_size=13, max_rewind_tokens=6)
LAYERS, HEADS, HEAD_DIM, FLOAT = 2, 2, 16, 4
BYTES = 2 * LAYERS * HEADS * HEAD_DIM * (3 + 13 + 6 + 1) * FLOAT


@pytest.mark.parametrize(
    ("limits", "max_streams"),
    [
        ({}, 8),
        ({"max_streams": 3}, 3),
        ({"memory_budget_bytes": 5 * BYTES + 1}, 5),
        ({"memory_budget_bytes": 5 * BYTES - 1}, 4),
        ({"memory_budget_bytes": 5 * BYTES, "max_streams": 2}, 2),
    ],
)
def test_how_many_streams_fit(limits: dict[str, int], max_streams: int) -> None:
    with Engine(tiny_lm(), CONFIG, **limits) as engine:
        stats = engine.stats()
        assert stats.num_slots == stats.num_free_slots == max_streams
        assert stats.bytes_per_stream == BYTES
        assert stats.nbytes == BYTES * max_streams
        buffers = engine._pool.buffers
        assert sum(t.nbytes for layer in buffers for t in layer if t is not None) == stats.nbytes


def test_an_eight_bit_window_takes_less() -> None:
    config = StreamConfig(3, 13, max_rewind_tokens=6, quantize_cache="int8")
    with Engine(tiny_lm(), config, max_streams=1) as engine:
        sinks, rows = 3 * HEAD_DIM * FLOAT, (13 + 7) * (HEAD_DIM + 4)
        assert engine.stats().bytes_per_stream == 2 * LAYERS * HEADS * (sinks + rows)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory_budget_bytes": BYTES - 1}, f"is less than the {BYTES} bytes of one stream"),
        ({"max_streams": 0}, "max_streams=0"),
        ({"max_streams": 1 << 50}, "choose a lower number"),
        ({"max_waiting": -1}, "max_waiting=-1"),
        ({"max_stall": 0.9}, r"max_stall=0\.9"),
        ({"config": StreamConfig(strategy="dense")}, "strategy='dense'"),
    ],
)
def test_settings_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Engine(tiny_lm(), **({"config": CONFIG} | options))


def test_a_full_engine_refuses() -> None:
    params = SamplingParams(max_new_tokens=4)
    with Engine(tiny_lm(), CONFIG, max_streams=2, max_waiting=1) as engine:
        ids = [start(engine, "abc", params) for _ in range(3)]
        message = "max_waiting=1 streams wait for 2 slots; retry later or raise max_waiting"
        with pytest.raises(CapacityError, match=message):
            engine.open_stream()
        with pytest.raises(CapacityError, match="fork"):
            engine.fork(ids[0])
        engine.close_stream(ids[0])
        engine.step()
        assert engine.state(ids[2]) in ("prefilling", "decoding")
        start(engine, "abc", params)
        list(run(engine))
        assert engine.stream_ids == []
        start(engine, "abc", params)


def test_nothing_is_left_of_a_stream_when_its_slot_goes_to_another() -> None:
    with Engine(tiny_lm(), CONFIG, max_streams=1) as engine:
        texts = []
        for prompt in ("abc", "x" * 80, "abc"):
            stream_id = start(engine, prompt, free(30))
            texts.append(tokens_of(list(run(engine)), stream_id))
    assert texts[0] == texts[2]


def test_memory_is_the_same_at_the_end() -> None:
    with Engine(tiny_lm(), CONFIG, max_streams=3) as engine:
        before = [t.data_ptr() for layer in engine._pool.buffers for t in layer if t is not None]
        for number in range(5):
            stream_id = start(engine, "abc" * number or "a", free(30))
            engine.step()
            engine.fork(stream_id)
            list(run(engine))
        after = [t.data_ptr() for layer in engine._pool.buffers for t in layer if t is not None]
    assert before == after


def test_a_closed_engine_leaves_the_model_as_it_was() -> None:
    lm = tiny_lm.__wrapped__()  # of its own: streams of other tests may still be attached
    model = lm.model
    assert "forward" not in vars(model.get_decoder())
    engine = Engine(lm, CONFIG, max_streams=2)
    stream_id = start(engine, "abc")
    assert "forward" in vars(model.get_decoder())
    (last,) = engine.close()
    assert "forward" not in vars(model.get_decoder())
    assert (last.stream_id, last.finish_reason) == (stream_id, "cancelled")
    with torch.no_grad():
        model(torch.ones(1, 3, dtype=torch.int64))
    with pytest.raises(InputError, match="closed"):
        engine.open_stream()
    with pytest.raises(InputError, match="closed"):
        engine.step()
    assert engine.close() == []
