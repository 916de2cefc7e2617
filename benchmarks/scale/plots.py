"""Four plots of the simulation in one image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_COLORS = {"ring": "tab:red", "bounded ring": "tab:orange", "rendezvous": "tab:blue"}
_EVENTS = ("machine lost", "zone lost", "rolling restart", "all lost", "flash crowd")


def plot(found: dict[str, Any], path: str | Path) -> None:
    """Draw balance, load, events and the store; parts without results stay empty.

    Args:
        found: results, as `python -m benchmarks.scale` writes them.
        path: of the image.
    """
    figure = Figure(figsize=(13, 9), layout="constrained")
    axes = figure.subplots(2, 2)
    _draw_balance(axes[0, 0], found.get("balance", {}))
    _draw_loads(axes[0, 1], found.get("loads", []))
    _draw_events(axes[1, 0], found.get("scenarios", {}))
    _draw_store(axes[1, 1], found.get("store", {}))
    size = found["size"]
    figure.suptitle(
        f"Simulated: {size['sessions']:,} sessions over {size['replicas']:,} replicas of two cores"
    )
    figure.savefig(path, dpi=110)


def _draw_balance(axes: Axes, found: dict[str, Any]) -> None:
    names = list(found)
    place = [float(at) for at in range(len(names))]
    axes.bar(place, [found[name]["most_over_mean"] for name in names], color="tab:gray")
    axes.axhline(1, color="black", linewidth=0.8)
    for at, name in zip(place, names, strict=True):
        axes.text(at, found[name]["most_over_mean"], f"{found[name]['most_over_mean']:.2f}",
                  ha="center", va="bottom")  # fmt: skip
    axes.set_xticks(place, [name.replace("ring, ", "ring\n") for name in names])
    axes.set_ylabel("sessions of the fullest replica / mean")
    axes.set_title("Balance; numbers: virtual nodes")


def _draw_loads(axes: Axes, found: list[dict[str, Any]]) -> None:
    for placement, color in _COLORS.items():
        rows = [row for row in found if row["placement"] == placement]
        loads = [row["load"] for row in rows]
        for part, dashes in (("p99", "-"), ("p50", ":")):
            seconds = [row["first_token_seconds"][part] for row in rows]
            label = f"{placement}, {part}"
            axes.plot(loads, seconds, dashes, color=color, marker="o", markersize=3, label=label)
    axes.set_yscale("log")
    axes.set_xlabel("load: work over that of full batches")
    axes.set_ylabel("seconds to the first token")
    axes.set_title("First token under load")
    if found:
        axes.legend(fontsize=8)


def _draw_events(axes: Axes, found: dict[str, Any]) -> None:
    for name in _EVENTS:
        if name not in found:
            continue
        line = found[name]["timeline"]
        minutes = (np.array(line["seconds"]) - 1_200) / 60
        shown = (minutes > -3) & (minutes < minutes.max() - 0.5)
        axes.plot(minutes[shown], np.array(line["p95"])[shown], label=name, linewidth=1.2)
    axes.set_yscale("log")
    axes.set_xlabel("minutes after the event began")
    axes.set_ylabel("seconds to the first token, p95 of 10 s")
    axes.set_title("Events, on the ring")
    if found:
        axes.legend(fontsize=8)


def _draw_store(axes: Axes, found: dict[str, Any]) -> None:
    written = found.get("bytes_written_per_second", {})
    names = list(written)[::-1]
    rates = [written[name] / 1e9 for name in names]
    axes.barh(names, rates, color="tab:green")
    for name, rate in zip(names, rates, strict=True):
        axes.text(rate, name, f" {rate:.3g}", va="center")
    axes.set_xscale("log")
    axes.set_xlabel("GB/s to the store")
    axes.set_title("Checkpoints, by what is written")
