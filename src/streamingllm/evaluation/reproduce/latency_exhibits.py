"""Make figure 10: milliseconds per token of re-computation and of sinks."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

from streamingllm.evaluation.bootstrap import Estimate, estimate, sums_of
from streamingllm.evaluation.caches import parse_cache
from streamingllm.evaluation.reproduce import paper
from streamingllm.evaluation.reproduce.context import Context
from streamingllm.evaluation.reproduce.exhibit import Claim, Exhibit
from streamingllm.stream import Stream


def figure_10(context: Context) -> Exhibit:
    """Time decode steps at several cache sizes."""
    sizes = context.sizes.cache_sizes
    sinks = [_step_times(context, f"4+{size - 4}", size) for size in sizes]
    recompute = [_step_times(context, f"recompute:{size}", size) for size in sizes]
    fast, slow = ([statistics.median(times) for times in row] for row in (sinks, recompute))
    claims = [
        Claim(
            "Re-computation is slower at every size.",
            all(a < b for a, b in zip(fast, slow, strict=True)),
            f"speedups {', '.join(f'{b / a:.3g}' for a, b in zip(fast, slow, strict=True))}",
        ),
        Claim(
            "The speedup grows with the size of the cache.",
            slow[-1] / fast[-1] > slow[0] / fast[0],
            f"{slow[0] / fast[0]:.3g} at {sizes[0]}, {slow[-1] / fast[-1]:.3g} at {sizes[-1]}",
        ),
    ]
    return Exhibit(
        [str(size) for size in sizes],
        {"recompute, ms": _means(recompute, context), "sinks, ms": _means(sinks, context)},
        paper.FIGURE_10,
        f"Milliseconds per greedy token, mean of {context.sizes.decode_steps} uncompiled steps, "
        "one stream; intervals resample steps.",
        claims,
        {"milliseconds": {"sizes": list(sizes), "sinks": sinks, "recompute": recompute}},
    )


def _step_times(context: Context, label: str, size: int) -> list[float]:
    """Return milliseconds of each step of a stream whose cache is full."""
    stream = Stream(context.lm.model, parse_cache(label).config)
    stream.feed(context.texts[0].ids[: size + 1], logits="last")
    steps = stream.generate_batch(context.sizes.decode_steps + 2)
    times: list[float] = []
    while True:
        start = time.perf_counter()
        if next(steps, None) is None:
            return times[2:]  # the first steps warm up
        times.append((time.perf_counter() - start) * 1e3)


def _means(rows: Sequence[Sequence[float]], context: Context) -> list[Estimate | None]:
    return [estimate(sums_of([(t, 1.0) for t in row]), seed=context.seed) for row in rows]
