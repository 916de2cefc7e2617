"""Strategies side by side, drawn without touching matplotlib's global state."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from streamingllm.evaluation.perplexity import perplexity_of

BIN_TOKENS = 512
# Okabe and Ito's colours can be told apart by colour-blind readers; the dashes help in grey.
_STYLES = (("#0072B2", "-"), ("#E69F00", "--"), ("#D55E00", "-."), ("#009E73", ":"))


@dataclass(frozen=True, eq=False)
class Curve:
    """One strategy's run through a text.

    Args:
        label: name in the legend.
        nll: negative log-likelihood of each token but the first, [tokens - 1].
        cache_samples: (tokens read, bytes of keys and values held), in order.
    """

    label: str
    nll: NDArray[np.float32]
    cache_samples: Sequence[tuple[int, int]]


def plot_strategies(curves: Sequence[Curve], landmarks: Mapping[str, int], title: str) -> bytes:
    """Draw perplexity and cache size over the position in the text.

    Args:
        curves: at most four strategies.
        landmarks: positions to mark with a vertical line, by name.
        title: above the drawing.

    Returns:
        A PNG image.
    """
    figure = Figure(figsize=(9, 6.5), layout="constrained")
    figure.suptitle(title)
    quality, memory = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    for curve, (color, dashes) in zip(curves, _STYLES, strict=False):
        style = {"color": color, "linestyle": dashes, "label": curve.label}
        quality.plot(*_binned(curve.nll), **style)
        tokens, cache_bytes = zip(*curve.cache_samples, strict=True)
        memory.plot(tokens, np.array(cache_bytes) / 1e6, **style)
    quality.set_yscale("log")
    quality.set_ylabel(f"perplexity of {BIN_TOKENS} tokens")
    quality.legend(loc="upper right")
    memory.set_ylabel("keys and values (MB)")
    memory.set_ylim(bottom=0)
    memory.set_xlabel("position in the text (tokens)")
    for axis in (quality.yaxis, memory.yaxis, memory.xaxis):
        axis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:,.0f}"))
    for axes in (quality, memory):
        axes.grid(alpha=0.3)
    _mark(quality, memory, landmarks)
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=150)
    return png.getvalue()


def _binned(nll: NDArray[np.float32]) -> tuple[list[float], list[float]]:
    """Return the middle and the perplexity of each bin."""
    starts = range(0, len(nll), BIN_TOKENS)
    bins = [nll[start : start + BIN_TOKENS] for start in starts]
    middles = [start + len(part) / 2 for start, part in zip(starts, bins, strict=True)]
    return middles, [perplexity_of(part) for part in bins]


def _mark(quality: Axes, memory: Axes, landmarks: Mapping[str, int]) -> None:
    for name, position in landmarks.items():
        for axes in (quality, memory):
            axes.axvline(position, color="0.4", linewidth=0.8)
        # Beside its line, at the foot: the curves that break leave upwards.
        quality.annotate(
            name,
            (position, 0.02),
            xycoords=("data", "axes fraction"),
            xytext=(3, 0),
            textcoords="offset points",
            fontsize="small",
            color="0.25",
        )
