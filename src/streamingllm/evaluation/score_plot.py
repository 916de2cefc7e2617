"""Scores along the parts of samples, one curve per cache."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from streamingllm.evaluation.evaluation import Evaluation
from streamingllm.evaluation.tasks.base import Part

# Okabe and Ito's colours can be told apart by colour-blind readers; the dashes help in grey.
_COLORS = ("#0072B2", "#E69F00", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#000000")
_DASHES = ("-", "--", "-.", ":")
_MAX_POINTS = 50


def plot_scores(evaluation: Evaluation, metric: str | None = None) -> bytes:
    """Draw a metric along the parts of the samples, averaged over samples and runs of parts.

    Args:
        evaluation: finished.
        metric: the task's primary one if None.

    Returns:
        A PNG image.
    """
    task = evaluation.task
    metric = metric or task.primary
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for number, (label, samples) in enumerate(evaluation.samples.items()):
        places, values = curve(samples, metric, metric in task.exponential)
        axes.plot(
            places,
            values,
            label=label,
            color=_COLORS[number % len(_COLORS)],
            linestyle=_DASHES[number % len(_DASHES)],
            marker="." if len(places) < _MAX_POINTS else None,
        )
    axes.set_xlabel(f"{task.part_noun} of a {task.sample_noun}")
    axes.set_ylabel(metric.replace("_", " "))
    axes.set_title(task.name)
    axes.grid(alpha=0.3)
    axes.legend()
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=150)
    return png.getvalue()


def curve(
    samples: Sequence[Sequence[Part]], metric: str, is_exponential: bool
) -> tuple[list[float], list[float]]:
    """Return the middle of each run of parts and the metric there, over all samples."""
    longest = max(len(sample) for sample in samples)
    run = max(1, -(-longest // _MAX_POINTS))
    places, values = [], []
    for first in range(0, longest, run):
        parts = [part for sample in samples for part in sample[first : first + run]]
        totals = [part.totals[metric] for part in parts if metric in part.totals]
        count = sum(b for _, b in totals)
        if count:
            mean = sum(a for a, _ in totals) / count
            places.append(first + (run - 1) / 2)
            values.append(float(np.exp(mean)) if is_exponential else mean)
    return places, values
