"""Balance of hashes, and first tokens under rising load."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.scale.calibration import Calibration
from benchmarks.scale.crowd import Crowd
from benchmarks.scale.draws import Purpose, uniform
from benchmarks.scale.murmur import Hashes
from benchmarks.scale.placement import Placement, Rendezvous, Ring
from benchmarks.scale.scenarios import PLACEMENTS, SCENARIOS, Size, outcome, prepared

VIRTUAL_NODES = (1, 10, 100, 1000)
LOADS = (0.6, 0.7, 0.8)
_RENDEZVOUS_SESSIONS = 1_000_000  # its cost is sessions times replicas
_SWEEP_SECONDS, _SWEEP_FROM_SECONDS = 600.0, 400.0


def balance(size: Size, hashes: Hashes) -> dict[str, Any]:
    """Return how unevenly hashes spread all sessions over the replicas."""
    members = dict.fromkeys(range(size.replicas), 0)
    found = {}
    for virtual_nodes in VIRTUAL_NODES:
        ring = Ring(hashes, virtual_nodes)
        ring.set_members(members)
        expected = np.sqrt(1 / virtual_nodes + size.replicas / size.sessions)
        found[f"ring, {virtual_nodes}"] = _spread(ring, len(hashes), size, float(expected))
    some = min(_RENDEZVOUS_SESSIONS, size.sessions)
    rendezvous = Rendezvous(hashes[:some])
    rendezvous.set_members(members)
    expected = np.sqrt(size.replicas / some)
    found["rendezvous"] = _spread(rendezvous, some, size, float(expected))
    return found


def _spread(placement: Placement, sessions: int, size: Size, expected: float) -> dict[str, float]:
    load = np.zeros(size.replicas, dtype=np.int64)
    for begin in range(0, sessions, 1 << 18):
        some = np.arange(begin, min(sessions, begin + (1 << 18)))
        load += np.bincount(placement.place(some, load), minlength=size.replicas)
    mean = load.mean()
    return {
        "sessions": sessions,
        "deviation": float(load.std() / mean),
        "deviation_by_theory": expected,
        "most_over_mean": float(load.max() / mean),
        "least_over_mean": float(load.min() / mean),
    }


def loads(size: Size, measured: Calibration, hashes: Hashes) -> Iterator[dict[str, Any]]:
    """Yield each placement under each load, which is a share of what full batches do."""
    replica = measured.replica()
    one = Crowd(size.sessions)
    tokens = one.answer_tokens + 0.5 + replica.prompt_weight * one.prompt_tokens
    full = size.replicas * replica.tokens_per_second / tokens
    for load in LOADS:
        for name in PLACEMENTS:
            scenario = replace(
                SCENARIOS["steady, ring"], placement=name, seconds=_SWEEP_SECONDS,
                event_seconds=_SWEEP_FROM_SECONDS,
                turns_a_day=one.turns_a_day * load * full / one.turns_per_second,
            )  # fmt: skip
            simulation = prepared(scenario, size, measured, hashes)
            simulation.run()
            found = outcome(simulation, scenario)
            del found["timeline"]
            yield {"placement": name, "load": load, **found}


def store_load(
    crowd: Crowd, turns_per_second: float, held_states: float, measured: Calibration
) -> dict[str, Any]:
    """Return what the store must bear, by what a turn writes.

    Args:
        crowd: that talks.
        turns_per_second: found by a simulation.
        held_states: of all replicas, found by a simulation.
        measured: figures of a replica and of a store.
    """
    state = measured.state_bytes.value
    entries = 1_024
    tokens = crowd.prompt_tokens + crowd.answer_tokens
    everyone = np.arange(min(crowd.sessions, 1_000_000))
    pauses = crowd.pause_seconds(0, everyone, np.ones_like(everyone))
    ends_visit = uniform(0, Purpose.STAYS, everyone, np.ones_like(everyone)) < (
        1 / crowd.turns_of_a_visit
    )
    written = {
        "whole state, each turn": state,
        "whole state in 8 bits, each turn": state / 2,
        "whole state, once idle for 10 s": state * float((pauses > 10).mean()),
        "whole state, at the end of a visit": state * float(ends_visit.mean()),
        "new entries, each turn": min(1.0, tokens / entries) * state,
        "ids and text, each turn": tokens * measured.text_bytes_per_token.value,
    }
    commits = {
        "epoch compared in the commit": turns_per_second,
        "epoch read before each turn as well": 2 * turns_per_second,
        "lease of each held session renewed every 10 s": 2 * turns_per_second + held_states / 10,
    }
    return {
        "turns_per_second": turns_per_second,
        "bytes_written_per_second": {
            name: nbytes * turns_per_second for name, nbytes in written.items()
        },
        "transactions_per_second": commits,
        "stores_of_measured_speed": {
            name: number / measured.commits_per_second.value for name, number in commits.items()
        },
        "share_of_pauses_over_10_seconds": float((pauses > 10).mean()),
    }
