from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from streamingllm import Stream, StreamConfig
from streamingllm.evaluation import process_age, speed
from streamingllm.evaluation.process_age import seconds_since_process_start
from streamingllm.evaluation.speed import (
    BandwidthMeter,
    DecodeSpeed,
    Timings,
    measure_decode,
    seconds_of,
    weight_bytes,
)
from streamingllm.models.quantize import install_layers
from streamingllm.models.rounding import Rounding, quantize_layers
from tests.reference.tiny_llama import new_llama

HIDDEN, INNER, VOCAB = 64, 96, 48
NORMS = 3 * HIDDEN
LAYER = HIDDEN * (HIDDEN + 32 + 32 + HIDDEN) + 3 * HIDDEN * INNER


@pytest.fixture(autouse=True)
def _small_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "_READ_BYTES", 1 << 20)


def tiny(*, tied: bool) -> LlamaForCausalLM:
    return new_llama(
        vocab_size=VOCAB,
        hidden_size=HIDDEN,
        intermediate_size=INNER,
        num_hidden_layers=1,
        tie_word_embeddings=tied,
    )


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
    install_layers(model, quantize_layers(model, Rounding(int(quantization[3:]))))
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


class Clock:
    """A clock that goes on only when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 100.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.seconds)

    def advance(self, seconds: float) -> None:
        self.seconds += seconds


def test_seconds_are_those_of_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    assert seconds_of(lambda: clock.advance(3.5)) == 3.5
    assert seconds_of(lambda: None) == 0.0


@pytest.mark.parametrize("order", [(4.0, 0.5, 2.0), (0.5, 4.0, 2.0), (2.0, 4.0, 0.5)])
def test_bandwidth_is_the_best_that_was_seen(
    order: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, meter, left = Clock(monkeypatch), BandwidthMeter(), [*order]

    def read() -> float:
        clock.advance(left.pop(0))
        return 0.0

    monkeypatch.setattr(meter._bytes, "sum", read)
    for _ in order:
        meter.sample()
    assert meter.bytes_per_second == (1 << 20) / 0.5


@pytest.mark.parametrize("batch_size", [1, 2])
def test_steps_are_timed_and_counted(batch_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, model = Clock(monkeypatch), tiny(tied=True)
    monkeypatch.setattr(speed, "seconds_of", lambda work: 2.0)  # samples of the bandwidth
    model.model.layers[0].mlp.register_forward_hook(lambda *args: clock.advance(0.25))
    stream = Stream(model, StreamConfig(2, 6))
    stream.feed(torch.zeros(batch_size, 10, dtype=torch.int64))
    calls: list[int] = []

    def on_step() -> None:
        calls.append(stream.num_seen_tokens)
        clock.advance(7.0)  # no part of a step

    found = measure_decode(stream, 4, on_step=on_step)
    assert found.steps.seconds == [0.25] * 4
    assert found.bandwidth == (1 << 20) / 2.0
    assert found.batch_size == batch_size
    assert found.bytes_per_step == weight_bytes(model) + stream.nbytes
    assert calls == list(range(11, 11 + len(calls)))
    assert len(calls) > 4  # a few warm up


def test_the_age_of_a_process_counts_from_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = os.sysconf("SC_CLK_TCK")
    fields = ["S", *["7"] * 18, str(250 * ticks), "7"]
    stat = f"123 (a (b) c) {' '.join(fields)}"
    monkeypatch.setattr(Path, "read_text", lambda self: stat)
    monkeypatch.setattr(time, "clock_gettime", lambda clock: 1000.0)
    assert seconds_since_process_start() == 750.0


def test_where_the_system_does_not_say_age_counts_from_the_import(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(path: Path) -> str:
        raise FileNotFoundError(path)

    clock = Clock(monkeypatch)
    monkeypatch.setattr(Path, "read_text", fail)
    monkeypatch.setattr(process_age, "_IMPORTED", clock.seconds)
    clock.advance(8.0)
    assert seconds_since_process_start() == 8.0
