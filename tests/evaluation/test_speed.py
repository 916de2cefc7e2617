from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from streamingllm import Stream, StreamConfig
from streamingllm.evaluation import speed
from streamingllm.evaluation.process_age import seconds_since_process_start
from streamingllm.evaluation.speed import (
    BandwidthMeter,
    DecodeSpeed,
    Timings,
    measure_decode,
    seconds_of,
    weight_bytes,
)
from streamingllm.models.quantize import install_layers, quantize_layers

HIDDEN, INNER, VOCAB = 64, 96, 48
NORMS = 3 * HIDDEN
LAYER = HIDDEN * (HIDDEN + 32 + 32 + HIDDEN) + 3 * HIDDEN * INNER


@pytest.fixture(autouse=True)
def _small_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "_READ_BYTES", 1 << 20)


def tiny(*, tied: bool) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=HIDDEN,
        intermediate_size=INNER,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=tied,
    )
    return LlamaForCausalLM(config).eval().requires_grad_(False)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_step_reads_all_weights_but_the_table_it_looks_into(
    tied: bool, dtype: torch.dtype
) -> None:
    model = tiny(tied=tied).to(dtype)
    # The table is read once as the head, whether the two are one or not.
    assert weight_bytes(model) == dtype.itemsize * (LAYER + NORMS + VOCAB * HIDDEN)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("quantization", ["int8", "int4"])
def test_packed_weights_count_with_their_scales(tied: bool, quantization: str) -> None:
    model = tiny(tied=tied)
    install_layers(model, quantize_layers(model, quantization))
    # Per group of 32: codes, a scale, and with four bits a minimum; the head has eight bits.
    group = {"int8": 32 + 2, "int4": 16 + 2 + 2}[quantization]
    head = VOCAB * HIDDEN // 32 * (32 + 2)
    assert weight_bytes(model) == LAYER // 32 * group + head + 4 * NORMS


def test_timings() -> None:
    timings = Timings([i / 1000 for i in range(100, 0, -1)])
    assert timings.median == pytest.approx(0.0505)
    assert timings.p95 == pytest.approx(0.096)
    assert timings.in_milliseconds() == pytest.approx({"median": 50.5, "p95": 96.0, "min": 1.0})
    assert Timings([2.0]).p95 == Timings([2.0]).median == 2.0


def test_speed_is_set_beside_the_bandwidth() -> None:
    found = DecodeSpeed(Timings([0.5, 0.25, 1.0]), 1000, bandwidth=4000.0, batch_size=3)
    assert found.bandwidth_share == 0.5
    assert found.tokens_per_second == 6.0


def test_bandwidth_is_the_best_that_was_seen() -> None:
    meter = BandwidthMeter()
    meter.sample()
    first = meter.bytes_per_second
    for _ in range(5):
        meter.sample()
    assert meter.bytes_per_second >= first > 1e6


@pytest.mark.parametrize("batch_size", [1, 2])
def test_steps_are_timed_and_counted(batch_size: int) -> None:
    model = tiny(tied=True)
    stream = Stream(model, StreamConfig(2, 6))
    stream.feed(torch.zeros(batch_size, 10, dtype=torch.int64))
    calls: list[int] = []
    found = measure_decode(stream, 4, on_step=lambda: calls.append(stream.num_seen_tokens))
    assert len(found.steps.seconds) == 4
    assert found.batch_size == batch_size
    assert found.bytes_per_step == weight_bytes(model) + stream.nbytes
    assert calls == list(range(11, 11 + len(calls)))
    assert len(calls) > 4  # a few warm up


def test_clocks() -> None:
    assert seconds_of(lambda: None) >= 0
    first = seconds_since_process_start()
    assert 0 < first <= seconds_since_process_start()
