"""The memory of an engine is what the formula says, from the beginning to the end."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from streamingllm import Engine, GenerationParams, StreamConfig
from streamingllm.errors import CapacityError, ConfigError, InputError
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
        assert engine.max_streams == max_streams
        assert engine.bytes_per_stream == BYTES
        assert engine.nbytes == BYTES * max_streams
        buffers = engine._pool.buffers
        assert sum(t.nbytes for layer in buffers for t in layer if t is not None) == engine.nbytes


def test_an_eight_bit_window_takes_less() -> None:
    config = StreamConfig(3, 13, max_rewind_tokens=6, quantize_cache="int8")
    with Engine(tiny_lm(), config, max_streams=1) as engine:
        sinks, rows = 3 * HEAD_DIM * FLOAT, (13 + 7) * (HEAD_DIM + 4)
        assert engine.bytes_per_stream == 2 * LAYERS * HEADS * (sinks + rows)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory_budget_bytes": BYTES - 1}, f"must be at least {BYTES}"),
        ({"max_streams": 0}, "max_streams=0"),
        ({"max_streams": 1 << 50}, "must be lower"),
        ({"max_waiting": -1}, "max_waiting=-1"),
        ({"max_stall": 0.9}, r"max_stall=0\.9"),
        ({"config": StreamConfig(strategy="dense")}, "strategy='dense'"),
    ],
)
def test_settings_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Engine(tiny_lm(), **({"config": CONFIG} | options))


def test_a_full_engine_refuses() -> None:
    params = GenerationParams(4)
    with Engine(tiny_lm(), CONFIG, max_streams=2, max_waiting=1) as engine:
        streams = [engine.submit("abc", params) for _ in range(3)]
        with pytest.raises(CapacityError, match="max_waiting=1"):
            engine.submit("abc", params)
        with pytest.raises(CapacityError, match="fork"):
            engine.fork(streams[0])
        engine.cancel(streams[0])
        engine.step()
        assert streams[2].state == "reading" or streams[2].num_written_tokens
        engine.submit("abc", params)
        list(engine.run())
        assert engine.streams == []
        engine.submit("abc", params)


def test_nothing_is_left_of_a_stream_when_its_row_goes_to_another() -> None:
    with Engine(tiny_lm(), CONFIG, max_streams=1) as engine:
        texts = []
        for prompt in ("abc", "x" * 80, "abc"):
            engine.submit(prompt, GenerationParams(30, ignore_eos=True))
            texts.append([event.token for event in engine.run()])
    assert texts[0] == texts[2]


def test_memory_is_the_same_at_the_end() -> None:
    with Engine(tiny_lm(), CONFIG, max_streams=3) as engine:
        before = [t.data_ptr() for layer in engine._pool.buffers for t in layer if t is not None]
        for number in range(5):
            stream = engine.submit("abc" * number or "a", GenerationParams(30))
            engine.step()
            engine.fork(stream)
            list(engine.run())
        after = [t.data_ptr() for layer in engine._pool.buffers for t in layer if t is not None]
    assert before == after


def test_a_closed_engine_leaves_the_model_as_it_was() -> None:
    lm = tiny_lm.__wrapped__()  # of its own: streams of other tests may still be attached
    model = lm.model
    assert "forward" not in vars(model.get_decoder())
    engine = Engine(lm, CONFIG, max_streams=2)
    stream = engine.submit("abc")
    assert "forward" in vars(model.get_decoder())
    engine.close()
    assert "forward" not in vars(model.get_decoder())
    assert stream.state == "finished"
    with torch.no_grad():
        model(torch.ones(1, 3, dtype=torch.int64))
    with pytest.raises(InputError, match="closed"):
        engine.submit("abc")
    with pytest.raises(InputError, match="closed"):
        engine.step()
    engine.close()
