"""From turns to figures: medians, 95th percentiles, and ratios to ours of the same round."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from itertools import takewhile
from operator import eq
from typing import Any

import numpy as np

from benchmarks.peers.contestants import OURS
from benchmarks.peers.rounds import Record


def decode_summary(records: Sequence[Record]) -> dict[str, dict[str, Any]]:
    """Return the figures of writing by contestant; `ours_over_it` below 1 means ours is faster."""

    def round_median(turn: Any) -> float:
        return float(statistics.median(turn["milliseconds"]))

    summary = {}
    for record in records:
        steps = [step for turn in record.turns for step in turn["milliseconds"]]
        stalls = [turn["stall_milliseconds"] for turn in record.turns if len(turn) > 1]
        summary[record.contestant.name] = {
            **_facts(record, records),
            "milliseconds_per_token": {
                "median": statistics.median(steps),
                "p95": float(np.percentile(steps, 95)),
            },
            "round_medians": [round_median(turn) for turn in record.turns],
            "stall_milliseconds": statistics.median(stalls) if stalls else None,
            "ours_over_it": _ratio(record, records, round_median),
        }
    return summary


def reading_summary(records: Sequence[Record], num_tokens: int) -> dict[str, dict[str, Any]]:
    """Return the figures of reading by contestant; `ours_over_it` is a ratio of seconds."""
    return {
        record.contestant.name: {
            **_facts(record, records),
            "tokens_per_second": num_tokens / statistics.median(record.turns),
            "round_seconds": record.turns,
            "ours_over_it": _ratio(record, records, float),
        }
        for record in records
    }


def _facts(record: Record, records: Sequence[Record]) -> dict[str, Any]:
    return {
        "program": record.contestant.program,
        "weights": record.contestant.weights,
        "rule": record.contestant.rule,
        "versions": record.versions,
        "start_seconds": record.start_seconds,
        "idle_processor_share": record.idle_processor_share,
        "greedy_tokens_as_ours_in_float32": _agreement(record, records),
    }


def _agreement(record: Record, records: Sequence[Record]) -> str | None:
    """Say how many tokens it writes as our float32 model does, until the first difference."""
    truth = _ours(records, "float32")
    if truth is None:
        return None
    same = 0
    for written, expected in zip(record.greedy_tokens, truth.greedy_tokens, strict=True):
        same += len(list(takewhile(bool, map(eq, written, expected))))
    return f"{same}/{sum(map(len, truth.greedy_tokens))}"


def _ratio(record: Record, records: Sequence[Record], cost: Callable[[Any], float]) -> float | None:
    """Return the median over rounds of ours, with the same weights, over this contestant."""
    ours = _ours(records, record.contestant.weights)
    if ours is None:
        return None
    return statistics.median(
        cost(mine) / cost(theirs) for mine, theirs in zip(ours.turns, record.turns, strict=True)
    )


def _ours(records: Sequence[Record], weights: str) -> Record | None:
    for record in records:
        if (record.contestant.program, record.contestant.weights) == (OURS, weights):
            return record
    return None
