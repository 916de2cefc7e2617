from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from streamingllm.config import StreamConfig
from streamingllm.errors import CapacityError, ConfigError, UnsupportedModelError
from streamingllm.evaluation.capacity.calibration import measure_speed
from streamingllm.evaluation.capacity.forecast import METHODS, Machine, forecast
from streamingllm.evaluation.capacity.model_costs import ModelCosts, costs_of
from streamingllm.evaluation.capacity.speed import HARDWARE, Speed, speed_of
from streamingllm.evaluation.capacity.workload import Workload
from streamingllm.evaluation.inspection import inspect_model
from streamingllm.evaluation.model_facts import ModelFacts
from tests.reference.tiny_lm import tiny_lm

RESULTS = Path(__file__).parents[3] / "benchmarks/results"
COSTS = ModelCosts(
    weight_bytes=1e6,
    operations_per_token=1e6,
    operations_per_entry=100.0,
    bytes_per_entry=1000,
    cache_bytes=100_000,
    cache_size=100,
    trained_length=512,
)
# Round seconds: a step of 1, a token of 0.1, an entry of 0.001, a prompt of 2 and 0.01 a token.
SPEED = Speed(1.0, 0.1, 0.001, 2.0, 0.01, 0.0, 1e6)
WORK = Workload(
    users=50, turns_a_day=86_400 / 50 / 1000, prompt_tokens=10, answer_tokens=20,
    history_tokens=1000, peak_factor=1,
)  # fmt: skip
MACHINE = Machine(memory_bytes=1.45e6, max_streams=8, price_per_hour=2.0)


def test_a_turn_of_sinks_is_the_sum_of_its_parts() -> None:
    found = forecast("sinks", COSTS, SPEED, WORK, MACHINE)
    assert found.device_bytes_per_stream == 100 * 1000
    assert found.slots == 4  # 0.45 MB hold four caches
    step = 1.0 + 4 * (0.1 + 100 * 0.001)
    assert found.tokens_per_second == pytest.approx(1 / step)
    assert found.replay_share == pytest.approx(1 - 4 * found.machines / 50)
    replayed = found.replay_share * (2.0 + 100 * 0.01)
    copied = (1 - found.replay_share) * 2 * 0.1
    assert found.first_token_seconds == pytest.approx(replayed + copied + 2.0 + 10 * 0.01)
    assert found.seconds_per_turn == pytest.approx(found.first_token_seconds + 20 * step / 4)


def test_the_other_methods_by_hand() -> None:
    room = replace(MACHINE, memory_bytes=1e6 + 4 * 1_020_000)
    dense = forecast("dense", COSTS, SPEED, WORK, room)
    assert dense.device_bytes_per_stream == 1020 * 1000
    assert dense.slots == 4
    assert dense.tokens_per_second == pytest.approx(1 / (1.0 + 4 * (0.1 + 1020 * 0.001)))
    resend = forecast("resend", COSTS, SPEED, WORK, room)
    assert (resend.idle_bytes_per_session, resend.replay_share) == (0, 1)
    assert resend.first_token_seconds == pytest.approx(2.0 + 492 * 0.01)  # 512 less the answer
    assert resend.device_bytes_per_stream == 502 * 1000
    unbounded = forecast("resend", replace(COSTS, trained_length=None), SPEED, WORK, room)
    assert unbounded.first_token_seconds == pytest.approx(2.0 + 1010 * 0.01)
    recompute = forecast("recompute", COSTS, SPEED, WORK, MACHINE)
    assert recompute.tokens_per_second == pytest.approx(1 / (4 * (2.0 + 100 * 0.01)))
    assert not dense.is_within_trained_length
    assert resend.is_within_trained_length
    assert recompute.is_within_trained_length


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("disk_bytes", [0, 500_000, 1e9])
def test_the_machines_are_the_least_that_suffice(method: str, disk_bytes: float) -> None:
    work = replace(WORK, turns_a_day=400.0)
    machine = Machine(memory_bytes=9e6, max_streams=4, disk_bytes=disk_bytes, busy_share=0.5)

    def suffices(machines: int) -> bool:
        """Compute the work of each machine without the search."""
        idle = 0.0 if method in ("resend", "recompute") else found.idle_bytes_per_session
        kept = (4 + disk_bytes / idle) * machines if idle else 0.0
        share = max(0.0, 1 - kept / 50)
        window = 100 if method in ("sinks", "recompute") else math.inf
        replay = 2.0 + min(1000, window) * 0.01
        entries = 502 if method == "resend" else min(1020, window)
        step = 1.0 + 4 * (0.1 + entries * 0.001)
        first = share * replay + (1 - share) * 2 * idle / 1e6 + 2.1
        if method == "resend":
            first = 2.0 + 492 * 0.01
        if method == "recompute":
            first = 2.0 + entries * 0.01
            step = 4 * first
        return work.turns_per_second * (first + 20 * step / 4) <= 0.5 * machines

    found = forecast(method, COSTS, SPEED, work, machine)
    assert suffices(found.machines)
    assert found.machines == 1 or not suffices(found.machines - 1)


def test_entries_held_aside_count_for_sinks_alone() -> None:
    costs = replace(COSTS, rewind_bytes=6_000)
    for method in METHODS:
        found = forecast(method, costs, SPEED, WORK, replace(MACHINE, memory_bytes=9e6))
        before = forecast(method, COSTS, SPEED, WORK, replace(MACHINE, memory_bytes=9e6))
        extra = 6_000 if method == "sinks" else 0
        assert found.device_bytes_per_stream == before.device_bytes_per_stream + extra
        assert found.idle_bytes_per_session == before.idle_bytes_per_session + extra


def test_money_is_machines_times_hours() -> None:
    found = forecast("sinks", COSTS, SPEED, WORK, MACHINE)
    assert found.price_a_month == found.machines * 2.0 * 730
    assert (
        forecast("sinks", COSTS, SPEED, WORK, replace(MACHINE, price_per_hour=None)).to_json()[
            "price_a_month"
        ]
        is None
    )


def test_a_device_without_room_is_refused() -> None:
    with pytest.raises(CapacityError, match="does not hold the weights"):
        forecast("dense", COSTS, SPEED, WORK, MACHINE)


@pytest.mark.parametrize("field", ["users", "answer_tokens", "peak_factor"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_a_workload_out_of_range_is_refused(field: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{field}="):
        replace(WORK, **{field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [("busy_share", 0.0), ("busy_share", 1.5), ("max_streams", 0), ("host_bytes", -1.0)],
)
def test_a_machine_out_of_range_is_refused(field: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{field}="):
        replace(MACHINE, **{field: value})


def test_the_costs_of_a_model_are_its_bytes() -> None:
    config = StreamConfig(4, 28)
    lm = tiny_lm()
    costs = costs_of(inspect_model(lm.model, config), config)
    assert costs.bytes_per_entry == 2 * 2 * 2 * 16 * 4
    assert costs.cache_bytes == 32 * costs.bytes_per_entry
    assert costs.rewind_bytes == 64 * costs.bytes_per_entry
    assert costs.weight_bytes == sum(p.nbytes for p in lm.model.parameters())
    refused = ModelFacts("gpt2", 1, "float32", 32, "gpt2 cannot stream")
    with pytest.raises(UnsupportedModelError, match="cannot stream"):
        costs_of(refused, config)


def test_the_committed_figures_of_many_streams_agree_within_a_fifth() -> None:
    measured = json.loads((RESULTS / "batch-int4.json").read_text())["batch_sizes"]
    costs = ModelCosts(
        weight_bytes=134_515_008 * 5.75 / 8,
        operations_per_token=2 * 134_515_008,
        operations_per_entry=0.0,
        bytes_per_entry=30 * 3 * 128 * 2,
        cache_bytes=1024 * 30 * 3 * 128 * 2,
        cache_size=1024,
        trained_length=8192,
    )
    assert costs.cache_bytes == measured["1"]["cache_bytes"]
    assert costs.weight_bytes + costs.cache_bytes == pytest.approx(
        measured["1"]["bytes_per_token"], rel=0.01
    )
    speed = speed_of(HARDWARE["epyc-2"], costs)
    for streams, found in measured.items():
        seconds = found["milliseconds_per_token"]["median"] / 1e3
        assert speed.decode(int(streams), 1024) == pytest.approx(seconds, rel=0.2), streams


@pytest.mark.parametrize("streams", [1, 64])
def test_the_figures_of_a_gpu_are_those_of_its_run(streams: int) -> None:
    run = json.loads((RESULTS / "gpu.json").read_text())
    measured = run["decode"][f"batch_{streams}"]["sinks"]
    entries = run["num_sink_tokens"] + run["window_size"]
    costs = ModelCosts(
        weight_bytes=run["weight_bytes"],
        operations_per_token=run["weight_bytes"],  # two of each weight, which has two bytes
        operations_per_entry=0.0,
        bytes_per_entry=measured["cache_bytes"] // (streams * entries),
        cache_bytes=measured["cache_bytes"] // streams,
        cache_size=entries,
        trained_length=4096,
    )
    seconds = measured["milliseconds_per_token"]["median"] / 1e3
    found = speed_of(HARDWARE["h200"], costs).decode(streams, entries)
    assert found == pytest.approx(seconds, rel=0.05)


def test_the_speed_of_an_engine_is_measured_with_the_given_clock() -> None:
    ticks = iter(range(10**6))
    speed = measure_speed(
        tiny_lm(), StreamConfig(4, 28), 3, steps=4, clock=lambda: float(next(ticks))
    )
    # Each piece of work takes one tick, whatever it does: a prompt adds none to others' steps.
    assert speed.step_seconds == 1
    assert (speed.token_seconds, speed.entry_seconds, speed.prefill_seconds) == (0, 0, 0)
    assert speed.pass_seconds == 0
    assert speed.copy_bytes_per_second > 0
