"""Make the exhibits of questions: tables 5, 7 and 8; figure 9."""

from __future__ import annotations

from dataclasses import replace

from streamingllm.evaluation.bootstrap import Estimate
from streamingllm.evaluation.evaluation import Evaluation
from streamingllm.evaluation.reproduce import paper
from streamingllm.evaluation.reproduce.context import Context
from streamingllm.evaluation.reproduce.exhibit import Claim, Exhibit, close, higher, lower
from streamingllm.evaluation.score_plot import curve, plot_scores
from streamingllm.evaluation.tasks.arc_stream import ArcStreamTask
from streamingllm.evaluation.tasks.qmsum import QmsumTask
from streamingllm.evaluation.tasks.streameval import StreamEvalTask

ARC_FILES = {"ARC-E": "arc-easy-test.jsonl", "ARC-C": "arc-challenge-test.jsonl"}
QMSUM_FILE = "qmsum-test.jsonl"
_METRICS = ("exact_match", "option_accuracy_per_byte", "gold_nll")


def table_5(context: Context) -> Exhibit:
    """Compare one-shot, window and sinks on ARC as a stream."""
    size = context.sizes.cache_size
    one_shot, window, sinks = f"fresh:{size}", f"0+{size}", f"4+{size - 4}"
    rows: dict[str, list[Estimate | None]] = {}
    reports, claims = {}, []
    for name, file in ARC_FILES.items():
        task = ArcStreamTask(context.data_file(file), context.sizes.questions)
        found = context.evaluate(f"table-5-{name}", task, [one_shot, window, sinks])
        reports[name] = found.report(context.seed)
        for metric in _METRICS:
            scale = 1.0 if metric == "gold_nll" else 100.0
            values = [found.estimate(c, metric, context.seed) for c in (one_shot, window, sinks)]
            rows[f"{name} {metric.replace('_', ' ')}"] = [_scaled(v, scale) for v in values]
        apart = found.difference(sinks, window, "gold_nll", context.seed)
        claims.append(higher(f"{name}: window attention is worse than sinks (NLL).", apart))
        match = found.difference(one_shot, sinks, "exact_match", context.seed)
        claims.append(close(f"{name}: sinks match one-shot (exact match).", match, 0.05))
    return Exhibit(
        ("one-shot", "window", "StreamingLLM"),
        rows,
        paper.TABLE_5,
        f"Per cent right, and NLL of the gold answer in nats a token; cache {size}, up to "
        f"{context.sizes.questions:,} questions of each set. Options are listed; the gold answer "
        "is the text of the right one.",
        claims,
        reports,
    )


def table_7(context: Context) -> Exhibit:
    """Ask StreamEval's questions at many distances under several cache sizes."""
    sizes = [size for size in context.sizes.cache_sizes if size >= context.sizes.cache_size]
    caches = [f"4+{size - 4}" for size in sizes]
    rows: dict[str, list[Estimate | None]] = {cache: [] for cache in caches}
    rows |= {f"{cache} NLL": [] for cache in caches}
    reports, hidden = {}, []
    tokens = []
    for distance in context.sizes.line_distances:
        found = _streameval(context, distance, caches)
        reports[f"{distance} lines"] = found.report(context.seed)
        tokens.append(found.estimate(caches[0], "distance_tokens").value)
        for cache in caches:
            accuracy = found.estimate(cache, "accuracy", context.seed)
            rows[cache].append(_scaled(accuracy, 100.0))
            rows[f"{cache} NLL"].append(found.estimate(cache, "gold_nll", context.seed))
            if not any(p.facts["is_visible"] for s in found.samples[cache] for p in s):
                hidden.append(accuracy.value)
    claim = Claim(
        "Accuracy is 0 once the line asked for has left the window.",
        None if not hidden else max(hidden) == 0,
        f"{len(hidden)} cells beyond the window, highest accuracy {max(hidden, default=0):.3g}",
    )
    distances = ", ".join(f"{mean:.0f}" for mean in tokens)
    return Exhibit(
        [str(distance) for distance in context.sizes.line_distances],
        rows,
        paper.TABLE_7,
        f"Columns are distances in lines ({distances} tokens). Per cent right of "
        f"{context.sizes.queries} queries in each of {context.sizes.records} records, and NLL of "
        "the number in nats a token.",
        [claim],
        reports,
    )


def figure_9(context: Context) -> Exhibit:
    """Draw StreamEval's accuracy along the stream."""
    size = context.sizes.cache_size
    distance = next(d for d in context.sizes.line_distances if 25 * d < size or d <= 10)
    window, sinks, fresh = f"0+{size}", f"4+{size - 4}", f"fresh:{size}"
    found = _streameval(context, distance, [sinks, window, fresh], name="figure-9")
    metrics = ("accuracy_visible", "gold_nll")
    rows = {
        label: [found.estimate(label, metric, context.seed) for metric in metrics]
        for label in found.samples
    }
    apart = found.difference(sinks, window, "gold_nll", context.seed)
    from_dense = found.difference(fresh, sinks, "accuracy_visible", context.seed)
    _, values = curve(found.samples[sinks], "gold_nll", False)
    half = len(values) // 2
    drift = sum(values[half:]) / len(values[half:]) - sum(values[:half]) / max(1, half)
    claims = [
        higher("Window attention is worse than sinks (NLL).", apart),
        close("Sinks are as accurate as dense attention in the window.", from_dense, 0.05),
        Claim(
            "Accuracy lasts to the end of the stream.",
            drift < 0.1,
            f"NLL of the second half less that of the first {drift:.3g}",
        ),
    ]
    return Exhibit(
        [metric.replace("_", " ") for metric in metrics],
        {label: list(row) for label, row in rows.items()},
        None,
        f"{context.sizes.queries} queries, {distance} lines back; `fresh` is a dense pass over the "
        "text in the window, paired query by query.",
        claims,
        {"figure-9": found.report(context.seed)},
        plot_scores(found, "gold_nll"),
    )


def table_8(context: Context) -> Exhibit:
    """Compare truncation, sinks and a long pinned head on questions about long texts."""
    size = context.sizes.cache_size
    truncation, sinks, pinned = f"fresh:{size}", f"4+{size - 4}", f"{size // 2}+{size - size // 2}"
    task = QmsumTask(context.data_file(QMSUM_FILE), context.sizes.meetings)
    found = context.evaluate("table-8", task, [truncation, sinks, pinned])
    rows: dict[str, list[Estimate | None]] = {
        label: [found.estimate(label, "answer_nll", context.seed)] for label in found.samples
    }
    claims = [
        higher(
            "Four sinks are worse than truncation, because the beginning is lost.",
            found.difference(truncation, sinks, "answer_nll", context.seed),
        ),
        lower(
            "A long pinned head recovers what a window loses.",
            found.difference(sinks, pinned, "answer_nll", context.seed),
        ),
    ]
    return Exhibit(
        ("QMSum answer NLL",),
        rows,
        paper.TABLE_8,
        f"NLL of the gold answer in nats a token, {task.num_samples} questions. The paper's data "
        "sets are not at hand; QMSum, of the same benchmark's kind, takes their place. `fresh` "
        "keeps the first and last half of the prompt.",
        claims,
        {"table-8": found.report(context.seed)},
    )


def _streameval(
    context: Context, distance: int, caches: list[str], name: str | None = None
) -> Evaluation:
    sizes = context.sizes
    task = StreamEvalTask(sizes.records, sizes.queries, distance, seed=context.seed)
    return context.evaluate(name or f"table-7-{distance}", task, caches)


def _scaled(estimate: Estimate, factor: float) -> Estimate:
    return replace(
        estimate,
        value=estimate.value * factor,
        low=estimate.low * factor,
        high=estimate.high * factor,
    )
