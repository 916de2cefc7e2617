"""The figures for people: a Markdown table and a plot."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from benchmarks.peers.contestants import CONTESTANTS, OURS

_OURS_COLOR, _PEER_COLOR = "#0072B2", "#999999"
_LABELS = {
    OURS: "streamingllm",
    "llama_cpp": "llama.cpp",
    "openvino": "OpenVINO GenAI",
    "transformers": "transformers",
    "attention_sinks": "attention-sinks",
}
Figures = Mapping[str, Mapping[str, Mapping[str, Any]]]  # size, contestant, what


def table(decode: Figures, reading: Figures) -> str:
    """Return a Markdown table: a row per contestant, two columns per window and prompt."""
    header = ["", "weights", "rule"]
    for window in decode:
        header += [f"{int(window):,}: ms/token (p95)", "ours / it"]
    for length in reading:
        header += [f"reading {int(length):,}: tokens/s", "ours / it"]
    lines = [header, ["---"] * len(header)]
    for contestant in CONTESTANTS:
        cells: list[str] = []
        for figures in decode.values():
            cells += _cells(figures.get(contestant.name), _milliseconds)
        for figures in reading.values():
            cells += _cells(figures.get(contestant.name), _tokens_per_second)
        if any(cells):
            label = _LABELS[contestant.program]
            label = f"**{label}**" if contestant.program == OURS else label
            lines.append([label, contestant.weights, contestant.rule, *cells])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cells(figures: Mapping[str, Any] | None, number: Any) -> list[str]:
    if figures is None:
        return ["", ""]
    ratio = figures["ours_over_it"]
    is_peer = figures["program"] != OURS and ratio is not None
    return [number(figures), f"{ratio:.2f}" if is_peer else ""]


def _milliseconds(figures: Mapping[str, Any]) -> str:
    times = figures["milliseconds_per_token"]
    return f"{times['median']:.2f} ({times['p95']:.2f})"


def _tokens_per_second(figures: Mapping[str, Any]) -> str:
    return f"{figures['tokens_per_second']:,.0f}"


def plot(decode: Figures, title: str) -> bytes:
    """Draw milliseconds per token, a panel per window, as a PNG image."""
    names = [each for each in CONTESTANTS if any(each.name in part for part in decode.values())]
    names.sort(key=lambda each: ("int4", "int8", "bfloat16", "float32").index(each.weights))
    figure = Figure(figsize=(5.5 * len(decode), 0.32 * len(names) + 1.4), layout="constrained")
    figure.suptitle(title)
    panels = figure.subplots(1, len(decode), sharey=True, squeeze=False)[0]
    for axes, (window, figures) in zip(panels, decode.items(), strict=True):
        medians = [_median(figures.get(each.name)) for each in names]
        colors = [_OURS_COLOR if each.program == OURS else _PEER_COLOR for each in names]
        bars = axes.barh(range(len(names)), medians, color=colors)
        axes.bar_label(bars, [f"{value:.1f}" if value else "" for value in medians], padding=2)
        axes.set_xlabel(f"milliseconds per token, cache of {int(window):,} recent tokens")
        axes.set_yticks(range(len(names)), _tick_labels(names))
        axes.margins(x=0.12)
        axes.set_xlim(left=0)
    panels[0].invert_yaxis()
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=150)
    return png.getvalue()


def _median(figures: Mapping[str, Any] | None) -> float:
    return 0.0 if figures is None else float(figures["milliseconds_per_token"]["median"])


def _tick_labels(contestants: Sequence[Any]) -> list[str]:
    return [f"{_LABELS[each.program]}, {each.weights}, {each.rule}" for each in contestants]
