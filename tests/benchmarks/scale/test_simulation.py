"""The simulation: equal to a plain event loop, and no session or turn is lost."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from benchmarks.scale.crowd import Crowd, Wave
from benchmarks.scale.fleet import (
    AutoscaledFleet,
    Change,
    Fleet,
    PlannedFleet,
    loss,
    rolling_restart,
)
from benchmarks.scale.machines import Replica, Store
from benchmarks.scale.murmur import session_hashes
from benchmarks.scale.placement import BoundedRing, Placement, Ring
from benchmarks.scale.records import TURN_FIELDS, held_states
from benchmarks.scale.sessions import RUNNING, WAITING
from benchmarks.scale.simulation import Simulation
from tests.benchmarks.scale.plain import Plain, PlainBoundedRing, PlainRing

SESSIONS, REPLICAS, TICK = 300, 6, 0.1
CROWD = Crowd(SESSIONS, turns_a_day=700, answer_tokens=150, think_seconds=5)
REPLICA = Replica(
    slots=4,
    step_seconds={1: 0.02, 2: 0.03, 4: 0.07},
    prefill_tokens_per_second=200,
    state_bytes=20_000_000,
    idle_seconds=30,
    link_bytes_per_second=1e8,
    restore_seconds=0.03,
    detect_seconds=1.3,
)
STORE = Store(
    read_bytes_per_second=2e8,
    write_bytes_per_second=3e7,
    commits_per_second=5,
    checkpoint_bytes=4_000_000,
)


def lost_and_replaced() -> Fleet:
    return PlannedFleet(REPLICAS, [*loss(300, [1, 4], 13, 200), *loss(610, [0], 13, None)])


def all_lost() -> Fleet:
    return PlannedFleet(REPLICAS, loss(400, range(REPLICAS), 13, 60))


def restarted() -> Fleet:
    return PlannedFleet(REPLICAS, rolling_restart(200, REPLICAS, 2, 100, 40))


def scaled() -> Fleet:
    return AutoscaledFleet((2, REPLICAS), 3.0, look_ticks=10, delay_ticks=20, start_ticks=35)


def drained() -> Fleet:
    away = [(150, Change("leave", (2, 3))), (500, Change("join", (3,)))]
    return PlannedFleet(REPLICAS, away)


CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "steady": (lambda: PlannedFleet(REPLICAS), {}),
    "lost and replaced": (lost_and_replaced, {}),
    "all lost": (all_lost, {}),
    "rolling restart": (restarted, {}),
    "drained": (drained, {}),
    "autoscaled": (scaled, {"crowd": Crowd(SESSIONS, 100, wave=Wave(0.6, 20, 30))}),
    "replayed": (lost_and_replaced, {"store": Store(restore="replay", replay_tokens=64)}),
    "bounded": (lost_and_replaced, {"bounded": True}),
}


def both(
    fleet: Any, *, crowd: Crowd = CROWD, store: Store = STORE, bounded: bool = False
) -> tuple[Simulation, Plain]:
    hashes = session_hashes(SESSIONS)
    ours: Placement = BoundedRing(hashes, 0.1, 3, 5) if bounded else Ring(hashes, 5)
    theirs = PlainBoundedRing(5, 0.1, 3) if bounded else PlainRing(5)
    options = {"max_replicas": REPLICAS, "seconds": 100, "tick_seconds": TICK, "seed": 7}
    return (
        Simulation(crowd, REPLICA, store, ours, fleet(), **options),
        Plain(crowd, REPLICA, store, theirs, fleet(), **options),
    )


@pytest.mark.parametrize("case", CASES)
def test_it_is_equal_to_a_plain_event_loop(case: str) -> None:
    fleet, options = CASES[case]
    ours, theirs = both(fleet, **options)
    log = ours.run()
    theirs.run()
    columns = log.columns()
    found = list(zip(*(columns[name].tolist() for name in TURN_FIELDS), strict=True))
    assert found == theirs.turns
    assert asdict(log.counts) == theirs.counts
    assert log.counts.finished > 100
    assert log.counts.restores > 0


def test_the_cases_meet_what_they_are_about() -> None:
    counts = {
        case: both(fleet, **options)[0].run().counts for case, (fleet, options) in CASES.items()
    }
    assert counts["steady"].cut == counts["steady"].dead_ends == 0
    assert counts["steady"].takeovers == counts["steady"].stale_states == 0
    for case in ("lost and replaced", "all lost", "rolling restart"):
        assert counts[case].cut > 0, case
    assert counts["lost and replaced"].dead_ends > 0
    assert counts["lost and replaced"].wasted_micro_tokens > 0
    assert counts["rolling restart"].takeovers > 0
    assert counts["autoscaled"].takeovers > 0
    assert counts["bounded"].stale_states > 0


@pytest.mark.parametrize("case", CASES)
def test_no_session_and_no_turn_is_lost(case: str) -> None:
    fleet, options = CASES[case]
    simulation, _ = both(fleet, **options)
    for tick in range(simulation.num_ticks):
        simulation.step(tick)
        calendar, counts = simulation.calendar, simulation.log.counts
        inside = len(simulation.waiting) + len(simulation.running)
        assert calendar.num_events + calendar.num_dropped + inside == SESSIONS
        assert simulation.busy.sum() == len(simulation.running)
        assert (simulation.busy <= REPLICA.slots).all()
        assert not simulation.ongoing[~simulation.is_alive].any()
        assert counts.arrivals >= counts.finished
    phases = simulation.sessions.phase
    assert sorted(np.flatnonzero(phases == RUNNING)) == sorted(simulation.running)
    assert sorted(np.flatnonzero(phases == WAITING)) == sorted(simulation.waiting)
    columns = simulation.log.columns()
    # The turns of each session are 1, 2, 3 and so on: none is missing, none comes twice.
    for session in range(SESSIONS):
        turns = columns["turn"][columns["session"] == session]
        assert turns.tolist() == list(range(1, len(turns) + 1))
    assert (simulation.sessions.turn == np.bincount(columns["session"], minlength=SESSIONS)).all()


def test_a_seed_decides_everything() -> None:
    runs = [both(lost_and_replaced)[0].run() for _ in range(2)]
    first, second = (run.columns() for run in runs)
    assert all((first[name] == second[name]).all() for name in TURN_FIELDS)
    assert runs[0].samples == runs[1].samples


def test_placements_meet_the_same_crowd() -> None:
    """A session comes when it comes, wherever its turn runs."""
    firsts = []
    for bounded in (False, True):
        columns = both(lambda: PlannedFleet(REPLICAS), bounded=bounded)[0].run().columns()
        is_first = columns["turn"] == 1
        pairs = zip(columns["session"][is_first], columns["arrived"][is_first], strict=True)
        firsts.append(dict(pairs))
    common = firsts[0].keys() & firsts[1].keys()
    assert len(common) > 50
    assert all(firsts[0][session] == firsts[1][session] for session in common)


def erlang_wait(rate: float, slots: int, seconds: float) -> float:
    """The mean wait of M/M/c, by Erlang's C formula."""
    offered = rate * seconds
    blocked = offered**slots / math.factorial(slots) / (1 - offered / slots)
    others = sum(offered**k / math.factorial(k) for k in range(slots))
    return blocked / (others + blocked) / (slots / seconds - rate)


def test_waits_are_those_of_queueing_theory() -> None:
    """Replicas whose streams do not slow each other down are queues M/M/c."""
    slots, seconds, replicas, number, tick = 4, 2.0, 500, 400_000, 0.04
    rate = 0.6 * slots / seconds * replicas / number  # of a session
    crowd = Crowd(number, turns_a_day=1, peak_factor=rate * 86_400, turns_of_a_visit=1,
                  prompt_tokens=0, answer_tokens=1000)  # fmt: skip
    step = seconds / crowd.answer_tokens
    placement = Ring(session_hashes(number), 1000)
    simulation = Simulation(
        crowd, Replica(slots, {1: step, slots: step}, 1e6, 1),
        Store(restore="replay", replay_tokens=0), placement, PlannedFleet(replicas),
        max_replicas=replicas, seconds=300, tick_seconds=tick, seed=3,
    )  # fmt: skip
    columns = simulation.run().columns()
    late = columns["arrived"] * tick > 60
    waits = (columns["started"] - columns["arrived"])[late] * tick
    placed = placement.place(np.arange(number), simulation.ongoing)
    rates = np.bincount(placed, minlength=replicas) * rate
    served = seconds + tick / 2  # a turn ends with a tick
    expected = [erlang_wait(each, slots, served) for each in rates]
    assert len(waits) == pytest.approx(rates.sum() * 240, rel=0.03)
    assert waits.mean() == pytest.approx(np.average(expected, weights=rates), rel=0.1)


def test_held_states_are_those_of_recent_turns() -> None:
    simulation, _ = both(lambda: PlannedFleet(REPLICAS))
    columns = simulation.run().columns()
    idle = round(REPLICA.idle_seconds / TICK)
    found = held_states(columns, 800, idle, REPLICAS)
    expected: list[set[int]] = [set() for _ in range(REPLICAS)]
    for session, replica, finished in zip(
        columns["session"], columns["replica"], columns["finished"], strict=True
    ):
        if 800 - idle < finished <= 800:
            expected[replica].add(session)
    assert found.tolist() == [len(held) for held in expected]
