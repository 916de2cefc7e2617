"""Scenarios of a fleet: steady load, losses, restarts, a flash crowd."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.scale.calibration import Calibration
from benchmarks.scale.crowd import Crowd, Wave
from benchmarks.scale.fleet import AutoscaledFleet, Fleet, PlannedFleet, loss, rolling_restart
from benchmarks.scale.machines import Store
from benchmarks.scale.murmur import Hashes
from benchmarks.scale.placement import BoundedRing, Placement, Rendezvous, Ring
from benchmarks.scale.simulation import Simulation
from benchmarks.scale.summary import recovery_seconds, summarise, timeline

TICK_SECONDS = 0.2
EVENT_SECONDS = 1_200.0
READ_RESERVE = 2.0

PLACEMENTS: dict[str, Callable[[Hashes], Placement]] = {
    "ring": Ring,
    "bounded ring": BoundedRing,
    "rendezvous": Rendezvous,
}


@dataclass(frozen=True)
class Size:
    """Give the size of all scenarios.

    Args:
        sessions: of the crowd.
        replicas: of the fleet.
        seed: of all draws.
    """

    sessions: int
    replicas: int
    seed: int = 0


@dataclass(frozen=True)
class Scenario:
    """Describe one run.

    Args:
        text: for people.
        placement: name in PLACEMENTS.
        plan: the fleet over time.
        seconds: that are simulated.
        event_seconds: end of the warm-up, and time of the event.
        turns_a_day: of a session.
        restore: from snapshots, or by a replay.
        wave: of visits.
    """

    text: str
    plan: Callable[[Size, Calibration], Fleet]
    placement: str = "ring"
    seconds: float = 1_800.0
    event_seconds: float = EVENT_SECONDS
    turns_a_day: float = 7.0
    restore: Any = "snapshot"
    wave: Wave | None = None


def ticks(seconds: float) -> int:
    """Return the ticks of some seconds."""
    return round(seconds / TICK_SECONDS)


def _steady(size: Size, measured: Calibration) -> Fleet:
    return PlannedFleet(size.replicas)


def _lost(share: float) -> Callable[[Size, Calibration], Fleet]:
    def plan(size: Size, measured: Calibration) -> Fleet:
        number = max(1, round(share * size.replicas))
        detect = ticks(measured.detect_seconds.value)
        back = detect + ticks(measured.cold_start_seconds.value)
        return PlannedFleet(size.replicas, loss(ticks(EVENT_SECONDS), range(number), detect, back))

    return plan


def _restarted(size: Size, measured: Calibration) -> Fleet:
    batch = max(1, size.replicas // 100)
    away = 30 + measured.warm_start_seconds.value  # seconds to drain, and to start
    plan = rolling_restart(ticks(EVENT_SECONDS), size.replicas, batch, ticks(12), ticks(away))
    return PlannedFleet(size.replicas, plan)


def _scaled(size: Size, measured: Calibration) -> Fleet:
    return AutoscaledFleet(
        (round(0.7 * size.replicas), size.replicas), 8.0,
        look_ticks=ticks(10), delay_ticks=ticks(30),
        start_ticks=ticks(measured.cold_start_seconds.value),
    )  # fmt: skip


SCENARIOS = {
    "steady, ring": Scenario("no event; Ray's ring", _steady, seconds=1_500),
    "steady, bounded ring": Scenario("no event", _steady, "bounded ring", 1_500),
    "steady, rendezvous": Scenario("no event", _steady, "rendezvous", 1_500),
    "machine lost": Scenario("8 of 1,000 replicas lost, replaced cold", _lost(0.008)),
    "zone lost": Scenario("a tenth lost, replaced cold", _lost(0.1)),
    "zone lost, rendezvous": Scenario("a tenth lost, replaced cold", _lost(0.1), "rendezvous"),
    "zone lost, replay": Scenario(
        "a tenth lost; states are replayed, not read", _lost(0.1), restore="replay"
    ),
    "all lost": Scenario("every replica lost at once, replaced cold", _lost(1.0), seconds=2_100),
    "rolling restart": Scenario("every replica restarted in 20 minutes", _restarted, seconds=2_700),
    "flash crowd": Scenario(
        "visits of 1.5 % of all sessions in 10 minutes; autoscaled from 700 to 1,000",
        _scaled, turns_a_day=5.0, wave=Wave(0.015, EVENT_SECONDS, 600.0), seconds=2_100,
    ),
}  # fmt: skip


def prepared(scenario: Scenario, size: Size, measured: Calibration, hashes: Hashes) -> Simulation:
    """Return the simulation of a scenario, ready to run."""
    crowd = Crowd(size.sessions, turns_a_day=scenario.turns_a_day, wave=scenario.wave)
    replica = measured.replica()
    visits = replace(crowd, turns_a_day=7.0).turns_per_second / crowd.turns_of_a_visit
    store = Store(
        read_bytes_per_second=READ_RESERVE * visits * replica.state_bytes,
        checkpoint_bytes=replica.state_bytes,
        restore=scenario.restore,
    )
    return Simulation(
        crowd, replica, store, PLACEMENTS[scenario.placement](hashes),
        scenario.plan(size, measured), max_replicas=size.replicas,
        seconds=scenario.seconds, tick_seconds=TICK_SECONDS, seed=size.seed,
    )  # fmt: skip


def outcome(simulation: Simulation, scenario: Scenario) -> dict[str, Any]:
    """Return the summary and the timeline of a simulation that has run."""
    line = timeline(simulation)
    found = summarise(simulation, scenario.event_seconds)
    if scenario.seconds > 1_500:
        found["seconds_until_p95_is_usual"] = recovery_seconds(line, scenario.event_seconds)
    return {"text": scenario.text, **found, "timeline": line}
