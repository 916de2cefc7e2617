"""Summarise a simulation in numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.scale.draws import Floats, Integers
from benchmarks.scale.records import first_token_seconds, held_states
from benchmarks.scale.simulation import SAMPLE_TICKS, Simulation

WINDOW_SECONDS = 10.0


def percentiles(seconds: Floats) -> dict[str, float]:
    """Return p50, p95, p99 and the longest of some times."""
    if not len(seconds):
        return {}
    found = np.percentile(seconds, [50, 95, 99, 100])
    return dict(zip(("p50", "p95", "p99", "most"), found.tolist(), strict=True))


def summarise(simulation: Simulation, from_seconds: float) -> dict[str, Any]:
    """Summarise the turns that arrived after a warm-up.

    Args:
        simulation: that has run.
        from_seconds: end of the warm-up, and time of what the scenario is about.
    """
    columns = simulation.log.columns()
    tick = simulation.tick_seconds
    first = first_token_seconds(columns, simulation.gained, tick)
    arrived = columns["arrived"] * tick
    is_late = arrived >= from_seconds
    seconds = simulation.num_ticks * tick - from_seconds
    samples = simulation.log.samples
    before = next(found for found in samples if found["seconds"] >= from_seconds)
    last = samples[-1]
    length = last["seconds"] - before["seconds"]
    replicas = len(simulation.is_alive)
    share = _share(columns, columns["finished"] * tick >= from_seconds, replicas)
    idle_ticks = round(simulation.replica.idle_seconds / tick)
    held = held_states(columns, simulation.num_ticks - 1, idle_ticks, replicas)
    counts = simulation.log.counts
    return {
        "first_token_seconds": percentiles(first[is_late]),
        "turns_per_second": (last["finished"] - before["finished"]) / length,
        "restores_per_second": (last["restores"] - before["restores"]) / length,
        "turns": int(is_late.sum()),
        "seconds": seconds,
        "busy_share": _busy_share(simulation, columns, from_seconds),
        "turns_of_the_busiest_replica_over_mean": float(share.max() / share.mean()),
        "held_states": {"mean": float(held.mean()), "most": int(held.max())},
        "tokens_a_turn": _tokens_a_turn(simulation),
        "counts": {name: int(count) for name, count in vars(counts).items()},
        "most_backlog_seconds": {
            name: max(found[f"{name}_backlog_seconds"] for found in samples)
            for name in ("read", "link", "write", "commit")
        },
    }


def _share(columns: dict[str, Integers], chosen: Any, replicas: int) -> Integers:
    return np.bincount(columns["replica"][chosen], minlength=replicas)


def _tokens_a_turn(simulation: Simulation) -> float:
    return simulation.crowd.prompt_tokens + simulation.crowd.answer_tokens + 0.5


def _busy_share(simulation: Simulation, columns: dict[str, Integers], since: float) -> float:
    """Return the work of all turns over what full batches of all replicas would do."""
    is_late = columns["finished"] * simulation.tick_seconds >= since
    seconds = simulation.num_ticks * simulation.tick_seconds - since
    prompt = columns["prompt_micro"][is_late].sum() / 1e6
    tokens = prompt + is_late.sum() * (simulation.crowd.answer_tokens + 0.5)
    members = np.mean(
        [found["members"] for found in simulation.log.samples if found["seconds"] >= since]
    )
    return float(tokens / seconds / members / simulation.replica.tokens_per_second)


def timeline(simulation: Simulation) -> dict[str, list[float]]:
    """Return percentiles of the first token by the time of arrival, and rates, every 10 seconds."""
    columns = simulation.log.columns()
    tick = simulation.tick_seconds
    first = first_token_seconds(columns, simulation.gained, tick)
    window = (columns["arrived"] * tick // WINDOW_SECONDS).astype(np.int64)
    order = np.lexsort((first, window))
    first, window = first[order], window[order]
    numbers, begins, sizes = np.unique(window, return_index=True, return_counts=True)
    found: dict[str, list[float]] = {"seconds": (numbers * WINDOW_SECONDS).tolist()}
    for name, part in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
        index = begins + np.minimum(sizes - 1, (part * sizes).astype(np.int64))
        found[name] = [round(value, 3) for value in first[index].tolist()]
    samples = simulation.log.samples[:: max(1, round(WINDOW_SECONDS / tick / SAMPLE_TICKS))]
    for name in ("members", "ongoing", "read_backlog_seconds"):
        found[name] = [round(sample[name], 3) for sample in samples]
    restores = [sample["restores"] for sample in samples]
    found["restores_per_second"] = (np.diff([0, *restores]) / WINDOW_SECONDS).tolist()
    return found


def recovery_seconds(line: dict[str, list[float]], event_seconds: float) -> float | None:
    """Return the time from an event to the last window whose p95 is twice that before it.

    Turns that arrive near the end may not have finished; their windows are left out.
    """
    pairs = list(zip(line["seconds"], line["p95"], strict=True))[:-3]
    usual = np.median([p95 for seconds, p95 in pairs if seconds < event_seconds][-12:])
    late = [seconds for seconds, p95 in pairs if seconds >= event_seconds and p95 > 2 * usual]
    if not late:
        return 0.0
    if late[-1] >= pairs[-1][0]:
        return None
    return late[-1] + WINDOW_SECONDS - event_seconds
