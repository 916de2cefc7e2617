"""Simulate millions of sessions over a thousand replicas.

Run: `python -m benchmarks.scale --json benchmarks/results/scale.json --plot docs/images/scale.png`

Speeds are measured ones (calibration.py names file and field of each). Everything is drawn by the
seed. The full size takes minutes on one core and about 2 GB. `--only` runs single parts; with
`--keep`, those of an older file stay. The store needs the scenario "steady, ring".
"""

from __future__ import annotations

import json as json_format
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.progress import shown
from benchmarks.scale.calibration import Calibration, calibration
from benchmarks.scale.crowd import Crowd
from benchmarks.scale.murmur import Hashes, session_hashes
from benchmarks.scale.plots import plot
from benchmarks.scale.scenarios import PLACEMENTS, SCENARIOS, Size, outcome, prepared
from benchmarks.scale.studies import LOADS, balance, loads, store_load
from streamingllm.cli.output import write_json
from streamingllm.cli.run_record import run_record


def run_scenario(name: str, size: Size, measured: Calibration, hashes: Hashes) -> dict[str, Any]:
    """Run one scenario, with its progress shown."""
    simulation = prepared(SCENARIOS[name], size, measured, hashes)
    start = time.process_time()
    for tick in shown(range(simulation.num_ticks), name):
        simulation.step(tick)
    found = outcome(simulation, SCENARIOS[name])
    return {**found, "processor_seconds": time.process_time() - start}


def _save(json: str, found: dict[str, Any]) -> None:
    """Write what there is, so that a run that is cut off keeps it."""
    if json != "-":
        write_json(json, found)


def main(
    json: Annotated[str, typer.Option(help="File of the results, - for standard output.")] = "-",
    plot_file: Annotated[str, typer.Option("--plot", help="Image of the results.")] = "",
    sessions: Annotated[int, typer.Option(help="Of the crowd.")] = 10_000_000,
    replicas: Annotated[int, typer.Option(help="Of the fleet.")] = 1_000,
    seed: Annotated[int, typer.Option(help="Of all draws.")] = 0,
    only: Annotated[
        list[str] | None, typer.Option(help="A scenario, balance, loads or store.")
    ] = None,
    keep: Annotated[bool, typer.Option(help="Keep the rest of an older file.")] = False,
) -> None:
    """Run scenarios, the balance of hashes and a sweep of loads.

    Example: `python -m benchmarks.scale --sessions 100000 --replicas 10 --only "machine lost"`
    """
    size, measured = Size(sessions, replicas, seed), calibration()
    hashes = session_hashes(sessions)
    wanted = only or [*SCENARIOS, "balance", "loads", "store"]
    found: dict[str, Any] = {"scenarios": {}}
    if keep and Path(json).exists():
        found = json_format.loads(Path(json).read_text())
    size_json = {"sessions": sessions, "replicas": replicas}
    found |= {"size": size_json, "calibration": measured.as_json(), **run_record(seed=seed)}
    for name in wanted:
        if name == "balance":
            found["balance"] = balance(size, hashes)
        elif name == "loads":
            found["loads"] = []
            total = len(PLACEMENTS) * len(LOADS)
            for row in shown(loads(size, measured, hashes), "loads", total):
                found["loads"].append(row)
                _save(json, found)
        elif name == "store":
            steady = found["scenarios"]["steady, ring"]
            held = steady["held_states"]["mean"] * replicas
            turns = steady["turns_per_second"]
            found["store"] = store_load(Crowd(sessions), turns, held, measured)
        else:
            found["scenarios"][name] = run_scenario(name, size, measured, hashes)
        _save(json, found)
    write_json(json, found)
    if plot_file:
        plot(found, plot_file)


if __name__ == "__main__":
    typer.run(main)
