"""Figures that the simulation takes from measured results, each with its file and field."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.scale.machines import Replica

RESULTS = Path(__file__).parents[1] / "results"
SLOTS = 16
ASSUMED = "assumed"


@dataclass(frozen=True)
class Figure:
    """Hold a number and where it comes from.

    Args:
        value: of the figure.
        source: a file and its field, or why it is assumed.
    """

    value: float
    source: str


@cache
def _content(name: str) -> Any:
    return json.loads((RESULTS / name).read_text())


def figure(name: str, field: str, scale: float = 1.0) -> Figure:
    """Read a figure.

    Args:
        name: of a file in benchmarks/results/.
        field: its path, with slashes.
        scale: factor of the unit.
    """
    found = _content(name)
    for part in field.split("/"):
        found = found[part]
    return Figure(float(found) * scale, f"{name}: {field}")


@dataclass(frozen=True)
class Calibration:
    """Hold the figures of one replica, of its restores and of the store."""

    steps: dict[int, Figure]
    prefill_tokens_per_second: Figure
    state_bytes: Figure
    cold_start_seconds: Figure
    warm_start_seconds: Figure
    restore_seconds: Figure
    detect_seconds: Figure
    link_bytes_per_second: Figure
    text_bytes_per_token: Figure
    commits_per_second: Figure

    def replica(self) -> Replica:
        """Return the replica that these figures describe."""
        return Replica(
            slots=SLOTS,
            step_seconds={streams: found.value for streams, found in self.steps.items()},
            prefill_tokens_per_second=self.prefill_tokens_per_second.value,
            state_bytes=round(self.state_bytes.value),
            link_bytes_per_second=self.link_bytes_per_second.value,
            restore_seconds=self.restore_seconds.value,
            detect_seconds=self.detect_seconds.value,
        )

    def as_json(self) -> dict[str, Any]:
        """Return all figures with their sources."""
        return asdict(self)


def calibration() -> Calibration:
    """Read the measured figures; those of a cluster are taken once they are there."""
    batch, turns = "batch-int4.json", "turn_of_one_token_after_bringing_back"
    disk = figure("tiers.json", f"{turns}/disk/median_seconds")
    host = figure("tiers.json", f"{turns}/host/median_seconds")
    dormant = figure("dormant-sessions.json", "bytes_per_session")
    return Calibration(
        steps={
            streams: figure(batch, f"batch_sizes/{streams}/milliseconds_per_token/median", 1e-3)
            for streams in (1, 2, 4, 8, SLOTS)
        },
        prefill_tokens_per_second=figure("prefill-int4.json", "tokens_per_second"),
        state_bytes=figure(batch, "batch_sizes/1/cache_bytes"),
        cold_start_seconds=figure(batch, f"batch_sizes/{SLOTS}/startup_seconds"),
        warm_start_seconds=figure(batch, "batch_sizes/1/startup_seconds"),
        restore_seconds=Figure(disk.value - host.value, f"{disk.source} less {host.source}"),
        detect_seconds=_detection(),
        link_bytes_per_second=Figure(1.25e9, f"{ASSUMED}: a network of 10 Gbit/s"),
        text_bytes_per_token=Figure(
            dormant.value / _content("dormant-sessions.json")["num_tokens_per_session"],
            f"{dormant.source} by num_tokens_per_session",
        ),
        commits_per_second=_commits(),
    )


def _detection() -> Figure:
    name = "cluster-kills.json"
    if not (RESULTS / name).exists():
        return Figure(2.0, f"{ASSUMED}: prototypes of Ray Serve were silent for 0.5 to 1.8 s")
    return figure(name, "longest_silence_seconds_of_repeated_turns/p95")


def _commits() -> Figure:
    name = "scale-store.json"
    if not (RESULTS / name).exists():
        return Figure(1000.0, f"{ASSUMED}: {name} is not there")
    return figure(name, "postgresql/commits_per_second")
