"""Draws, calendar, queues, fleets: each against plain code."""

from __future__ import annotations

import heapq

import numpy as np
import pytest

from benchmarks.scale.calendar import Calendar
from benchmarks.scale.crowd import Crowd, Wave
from benchmarks.scale.draws import Purpose, exponential, normal, uniform
from benchmarks.scale.fleet import AutoscaledFleet, Change
from benchmarks.scale.grouping import Queues, ranks
from benchmarks.scale.machines import Replica
from tests.benchmarks.scale.plain import draw


def test_draws_are_those_of_plain_integers() -> None:
    rng = np.random.default_rng(0)
    sessions, turns = rng.integers(0, 10_000_000, (2, 200))
    for purpose in Purpose:
        found = uniform(5, purpose, sessions, turns)
        assert found.tolist() == [
            draw(5, purpose, *pair) for pair in zip(sessions.tolist(), turns.tolist(), strict=True)
        ]


def test_draws_have_their_distributions() -> None:
    everyone = np.arange(200_000)
    numbers = [uniform(1, p, everyone, 0 * everyone) for p in (Purpose.GAP, Purpose.THINK)]
    assert np.histogram(numbers[0], 10, (0, 1))[0] == pytest.approx(20_000, rel=0.03)
    assert abs(np.corrcoef(numbers[0], numbers[1])[0, 1]) < 0.01
    assert abs(np.corrcoef(numbers[0][1:], numbers[0][:-1])[0, 1]) < 0.01
    assert exponential(numbers[0], 3.0).mean() == pytest.approx(3, rel=0.01)
    gaussian = normal(*numbers)
    assert gaussian.mean() == pytest.approx(0, abs=0.01)
    assert gaussian.std() == pytest.approx(1, rel=0.01)


def test_a_crowd_comes_as_often_as_it_says() -> None:
    crowd = Crowd(100_000)
    everyone = np.arange(crowd.sessions)
    pauses = crowd.pause_seconds(0, everyone, everyone % 7 + 1)
    # 1 of 5 turns ends a visit, and the next comes after hours.
    expected = 0.2 * np.exp(-2_000 / crowd.gap_seconds)
    assert (pauses > 2_000).mean() == pytest.approx(expected, rel=0.02)
    thinks = pauses[pauses < 2_000]
    assert np.median(thinks) == pytest.approx(crowd.think_seconds, rel=0.05)
    assert pauses.min() == 1.0
    assert crowd.answers(0, everyone, 0 * everyone).mean() == pytest.approx(200.5, rel=0.01)
    wave = Crowd(100_000, wave=Wave(0.3, 100, 50)).first_seconds(0)
    assert ((wave >= 100) & (wave < 150)).mean() == pytest.approx(0.3, abs=0.02)


def test_the_calendar_is_a_queue_by_time() -> None:
    rng = np.random.default_rng(2)
    horizon = 3_000
    calendar = Calendar(horizon, period_ticks=16)
    heap: list[tuple[int, int]] = []
    dropped = pushed = 0

    def push(now: int, number: int) -> None:
        nonlocal dropped, pushed
        ticks = now + 1 + rng.geometric(0.01, number) * rng.integers(0, 4, number)
        items = np.arange(pushed, pushed + number)
        pushed += number
        calendar.push(ticks, items)
        for tick, item in zip(ticks.tolist(), items.tolist(), strict=True):
            if tick < horizon:
                heapq.heappush(heap, (tick, item))
            else:
                dropped += 1

    push(-1, 500)
    for tick in range(horizon):
        expected = []
        while heap and heap[0][0] == tick:
            expected.append(heapq.heappop(heap)[1])
        assert calendar.pop(tick).tolist() == expected
        push(tick, int(rng.integers(0, 3)))
        assert calendar.num_events == len(heap)
    assert (calendar.num_dropped, len(heap)) == (dropped, 0)


def test_ranks_count_equal_entries_before() -> None:
    groups = np.random.default_rng(3).integers(0, 9, 300)
    assert ranks(groups).tolist() == [
        groups[:k].tolist().count(group) for k, group in enumerate(groups.tolist())
    ]
    assert ranks(groups[:0]).tolist() == []


def test_queues_serve_one_by_one() -> None:
    rng = np.random.default_rng(4)
    queues, free = Queues(5, micros=700), [0] * 5
    for now in range(0, 100_000, 1_000):
        servers = rng.integers(0, 5, rng.integers(0, 12))
        expected = []
        for server in servers.tolist():
            free[server] = max(free[server], now) + 700
            expected.append(free[server])
        assert queues.serve(now, servers).tolist() == expected
        assert queues.backlog(now) == max(0, max(free) - now)


def test_an_autoscaler_adds_after_its_delay_and_start() -> None:
    fleet = AutoscaledFleet((2, 10), 4.0, look_ticks=10, delay_ticks=20, start_ticks=35)
    assert fleet.first == (0, 1)
    found = {t: list(fleet.changes(t, 8 if t < 40 else 21)) for t in range(200)}
    found = {tick: changes for tick, changes in found.items() if changes}
    # More are wanted from tick 40 on, at tick 60 for long enough; they come 35 ticks later.
    assert found == {95: [Change("join", (2, 3, 4, 5))]}


def test_an_autoscaler_forgets_a_short_peak() -> None:
    fleet = AutoscaledFleet((2, 10), 4.0, look_ticks=10, delay_ticks=20, start_ticks=35)
    assert not any(list(fleet.changes(t, 40 if t % 20 < 10 else 1)) for t in range(400))


def test_tokens_of_a_tick_follow_the_measured_steps() -> None:
    replica = Replica(4, {1: 0.01, 4: 0.04}, 100, 1)
    assert replica.tokens_per_tick(0.1).tolist() == [0, 10_000_000, 5_000_000, 3_333_333, 2_500_000]
    assert replica.tokens_per_second == pytest.approx(100)
    assert replica.prompt_weight == pytest.approx(1)
