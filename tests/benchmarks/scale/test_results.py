"""Read measured files, and report a simulation."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.scale.calibration import ASSUMED, RESULTS, Calibration, Figure, calibration
from benchmarks.scale.crowd import Crowd
from benchmarks.scale.murmur import session_hashes
from benchmarks.scale.plots import plot
from benchmarks.scale.records import TURN_FIELDS, first_token_seconds
from benchmarks.scale.scenarios import SCENARIOS, Size, outcome, prepared
from benchmarks.scale.studies import balance, store_load
from benchmarks.scale.summary import WINDOW_SECONDS, recovery_seconds

SIZE = Size(sessions=4_000, replicas=3)


def figures(found: Calibration) -> list[Figure]:
    values = [*vars(found).values(), *found.steps.values()]
    return [value for value in values if isinstance(value, Figure)]


def test_each_figure_is_in_the_file_that_it_names() -> None:
    """Its path leads to a number that the figure is made of."""
    measured = [f for f in figures(calibration()) if not f.source.startswith(ASSUMED)]
    assert len(measured) > 10
    for figure in measured:
        for part in figure.source.replace(" by num_tokens_per_session", "").split(" less "):
            name, _, field = part.partition(": ")
            found = json.loads((RESULTS / name).read_text())
            for key in field.split("/"):
                found = found[key]
            assert found > 0
            if " by " not in figure.source and " less " not in figure.source:
                assert figure.value in (pytest.approx(found), pytest.approx(found / 1000))


def test_the_replica_is_the_measured_one() -> None:
    batch = json.loads((RESULTS / "batch-int4.json").read_text())["batch_sizes"]
    replica = calibration().replica()
    assert replica.state_bytes == batch["1"]["cache_bytes"]
    rate = batch["16"]["tokens_per_second"]
    assert replica.tokens_per_second == pytest.approx(rate, rel=0.01)
    gained = replica.tokens_per_tick(1.0)
    alone = batch["1"]["tokens_per_second"]
    assert gained[1] / 1e6 == pytest.approx(alone, rel=0.01)


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_is_summarised(name: str) -> None:
    """The outcome agrees with what its turns say; events are after these few seconds."""
    scenario = replace(SCENARIOS[name], seconds=120.0, event_seconds=60.0)
    simulation = prepared(scenario, SIZE, calibration(), session_hashes(SIZE.sessions))
    columns = simulation.run().columns()
    found = outcome(simulation, scenario)
    assert set(columns) == set(TURN_FIELDS)
    first = first_token_seconds(columns, simulation.gained, simulation.tick_seconds)
    late = [s for s, at in zip(first, columns["arrived"], strict=True) if at * 0.2 >= 60]
    assert found["turns"] == len(late)
    assert found["first_token_seconds"]["p50"] == pytest.approx(np.median(late))
    line = found["timeline"]
    for at, p95 in zip(line["seconds"], line["p95"], strict=True):
        inside = [
            s for s, t in zip(first, columns["arrived"], strict=True) if t * 0.2 // 10 == at / 10
        ]
        assert sum(s > p95 + 1e-3 for s in inside) <= 0.05 * len(inside)
    assert json.loads(json.dumps(found)) == found


def test_recovery_is_the_last_window_out_of_the_usual() -> None:
    seconds = [WINDOW_SECONDS * k for k in range(40)]
    usual = [1.0] * 20
    line = {"seconds": seconds, "p95": [*usual, 9.0, 1.5, 4.0, *[1.2] * 17]}
    assert recovery_seconds(line, 200.0) == 30.0
    assert recovery_seconds({**line, "p95": [1.0] * 40}, 200.0) == 0.0
    assert recovery_seconds({**line, "p95": [*usual, *[5.0] * 20]}, 200.0) is None


def test_what_the_store_bears_is_counted() -> None:
    measured = replace(
        calibration(), state_bytes=Figure(1_024_000, ""), commits_per_second=Figure(100, ""),
        text_bytes_per_token=Figure(10, ""),
    )  # fmt: skip
    found = store_load(Crowd(50_000), turns_per_second=200, held_states=5_000, measured=measured)
    written = found["bytes_written_per_second"]
    assert written["whole state, each turn"] == 200 * 1_024_000
    assert written["new entries, each turn"] == 200 * 260 * 1_000
    assert written["ids and text, each turn"] == 200 * 260 * 10
    share = written["whole state, at the end of a visit"] / written["whole state, each turn"]
    assert share == pytest.approx(1 / 5, rel=0.05)
    idle = written["whole state, once idle for 10 s"] / written["whole state, each turn"]
    assert idle == found["share_of_pauses_over_10_seconds"]
    lease = found["transactions_per_second"]["lease of each held session renewed every 10 s"]
    assert lease == 2 * 200 + 500
    assert found["stores_of_measured_speed"]["epoch compared in the commit"] == 2.0


def test_results_are_drawn(tmp_path: Path) -> None:
    name = "machine lost"
    scenario = replace(SCENARIOS[name], seconds=60.0, event_seconds=30.0)
    simulation = prepared(scenario, SIZE, calibration(), session_hashes(SIZE.sessions))
    simulation.run()
    row = outcome(simulation, scenario)
    found = {
        "size": vars(SIZE),
        "balance": balance(SIZE, session_hashes(SIZE.sessions)),
        "scenarios": {name: row},
        "loads": [{"placement": "ring", "load": load, **row} for load in (0.5, 0.7)],
        "store": store_load(Crowd(1_000), 10, 100, calibration()),
    }
    plot(found, tmp_path / "scale.png")
    assert (tmp_path / "scale.png").read_bytes().startswith(b"\x89PNG")
    plot({"size": vars(SIZE)}, tmp_path / "empty.png")
