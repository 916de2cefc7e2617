"""Make the tables and figures of perplexity: 1, 2, 3, 6 and 10; figures 3 and 5."""

from __future__ import annotations

from streamingllm.evaluation.bootstrap import Estimate
from streamingllm.evaluation.evaluation import Evaluation
from streamingllm.evaluation.inspection import trained_length
from streamingllm.evaluation.reproduce import paper
from streamingllm.evaluation.reproduce.context import Context
from streamingllm.evaluation.reproduce.exhibit import Claim, Exhibit, close, higher, lower
from streamingllm.evaluation.score_plot import curve, plot_scores
from streamingllm.evaluation.tasks.perplexity import PerplexityTask, TokenizedText

_MARGIN = 0.02  # of a perplexity, where the paper calls two numbers equal


def table_1(context: Context) -> Exhibit:
    """Compare dense, window, re-computation and sinks on one text."""
    size, tokens = context.sizes.cache_size, context.sizes.tokens
    window, sinks, recompute = f"0+{size}", f"4+{size - 4}", f"recompute:{size}"
    found = context.perplexity("table-1", tokens, ["dense", window, sinks])
    short = context.sizes.recompute_tokens + size
    again = context.perplexity("table-1-recompute", short, [recompute, sinks])
    value = found.estimate(sinks, "perplexity", context.seed)
    slow = again.estimate(recompute, "perplexity", context.seed)
    claims = [
        higher("Window attention breaks.", _difference(found, sinks, window, context)),
        _dense_breaks(found, context),
        close(
            "Sinks match re-computation.",
            _difference(again, recompute, sinks, context),
            _MARGIN * slow.value,
        ),
    ]
    row = [
        found.estimate("dense", "perplexity", context.seed),
        found.estimate(window, "perplexity", context.seed),
        slow,
        value,
    ]
    return Exhibit(
        ("dense", window, "recompute", sinks),
        {"perplexity": row},
        paper.TABLE_1,
        f"{_texts(context, tokens)} Re-computation reads {short:,} tokens of each text, on which "
        f"{sinks} has {again.estimate(sinks, 'perplexity', context.seed).value:.4g}.",
        claims,
        {"table-1": found.report(context.seed), "recompute": again.report(context.seed)},
    )


def _dense_breaks(found: Evaluation, context: Context) -> Claim:
    """Compare dense with the sinks in the last quarter of texts longer than the trained length."""
    text = "Dense attention breaks past the trained length."
    trained = trained_length(context.lm.model)
    longest = min(context.sizes.tokens, max(len(text.ids) for text in context.texts))
    if trained is None or longest <= 4 / 3 * trained:
        reason = f"texts of {longest:,} tokens at most, trained length {trained}"
        return Claim(text, None, reason)
    first, second = list(found.samples)[2], "dense"
    ends = {
        label: [sample[-max(1, len(sample) // 4) :] for sample in samples]
        for label, samples in found.samples.items()
    }
    difference = Evaluation(found.task, ends).difference(first, second, "perplexity", context.seed)
    return higher(text, difference)


def table_2(context: Context) -> Exhibit:
    """Compare numbers of sinks at one cache size."""
    size = context.sizes.cache_size
    caches = {str(n): f"{n}+{size - n}" for n in (0, 1, 2, 4, 8)}
    found = context.perplexity("table-2", context.sizes.tokens, list(caches.values()))
    four = found.estimate(caches["4"], "perplexity", context.seed).value
    claims = [
        higher(
            "Without sinks perplexity rises.", _difference(found, caches["4"], caches["0"], context)
        ),
        close(
            "Eight sinks are no better than four.",
            _difference(found, caches["4"], caches["8"], context),
            _MARGIN * four,
        ),
        higher("One sink is not enough.", _difference(found, caches["4"], caches["1"], context)),
    ]
    return Exhibit(
        tuple(caches),
        {f"cache of {size}": _values(found, context)},
        paper.TABLE_2,
        f"Columns are sinks. {_texts(context, context.sizes.tokens)}",
        claims,
        {"table-2": found.report(context.seed)},
    )


def table_3(context: Context) -> Exhibit:
    """Compare 0, 1, 2 and 4 initial tokens; models with trained sinks are not at hand."""
    size = context.sizes.cache_size
    caches = [f"{n}+{size - n}" for n in (0, 1, 2, 4)]
    found = context.perplexity("table-2", context.sizes.tokens, caches_of_table_2(size))
    row = [found.estimate(cache, "perplexity", context.seed) for cache in caches]
    difference = _difference(found, caches[3], caches[1], context)
    claims = [
        higher("A model trained without a sink needs several initial tokens.", difference),
        Claim("A model trained with a sink token needs that token only.", None, "not run"),
    ]
    return Exhibit(
        caches,
        {"vanilla": row},
        paper.TABLE_3,
        f"{_texts(context, context.sizes.tokens)} Only the vanilla row is measured: it takes "
        "models that were pre-trained with a sink to fill the others.",
        claims,
        {"table-2": found.report(context.seed)},
    )


def caches_of_table_2(size: int) -> list[str]:
    """Return the caches of table 2, whose records table 3 shares."""
    return [f"{n}+{size - n}" for n in (0, 1, 2, 4, 8)]


def table_6(context: Context) -> Exhibit:
    """Compare cache sizes."""
    sizes = context.sizes.cache_sizes
    caches = [f"4+{size - 4}" for size in sizes]
    found = context.perplexity("table-6", context.sizes.tokens, caches)
    difference = _difference(found, caches[0], caches[-1], context)
    claims = [lower("The largest cache predicts better than the smallest.", difference)]
    return Exhibit(
        [str(size) for size in sizes],
        {"4 sinks": _values(found, context)},
        paper.TABLE_6,
        f"Columns are cache sizes. {_texts(context, context.sizes.tokens)} The paper finds that "
        "larger caches do not always help.",
        claims,
        {"table-6": found.report(context.seed)},
    )


def figure_3(context: Context) -> Exhibit:
    """Draw perplexity along the text under dense, window and sinks."""
    size, tokens = context.sizes.cache_size, context.sizes.tokens
    window, sinks = f"0+{size}", f"4+{size - 4}"
    found = context.perplexity("table-1", tokens, ["dense", window, sinks])
    columns, rows = _quarters(found, context)
    return Exhibit(
        columns,
        rows,
        None,
        f"Perplexity by quarter of each text. {_texts(context, tokens)}",
        [higher("Window attention breaks.", _difference(found, sinks, window, context))],
        {"table-1": found.report(context.seed)},
        plot_scores(found),
    )


def figure_5(context: Context) -> Exhibit:
    """Read one long text, all of them one after the other."""
    import torch

    sinks = f"4+{context.sizes.cache_size - 4}"
    ids = torch.cat([text.ids for text in context.texts])[: context.sizes.long_tokens]
    name = " + ".join(text.name for text in context.texts)
    task = PerplexityTask([TokenizedText(name, ids)], context.segment_tokens(len(ids)))
    found = context.evaluate("figure-5", task, [sinks])
    columns, rows = _quarters(found, context)
    _, values = curve(found.samples[sinks], "perplexity", True)
    ratio = max(values) / min(values)
    claim = Claim(
        "Perplexity stays flat over millions of tokens.",
        None if len(ids) < 1_000_000 else ratio < 3,
        f"{len(ids):,} tokens; highest over lowest point of the plot {ratio:.3g}",
    )
    return Exhibit(
        columns,
        rows,
        None,
        f"{len(ids):,} tokens of {name} as one stream.",
        [claim],
        {"figure-5": found.report(context.seed)},
        plot_scores(found),
    )


def _quarters(
    found: Evaluation, context: Context
) -> tuple[list[str], dict[str, list[Estimate | None]]]:
    """Return perplexity by quarter of each text."""
    rows: dict[str, list[Estimate | None]] = {label: [] for label in found.samples}
    for quarter in range(4):
        cut = {
            label: [
                sample[len(sample) * quarter // 4 : len(sample) * (quarter + 1) // 4]
                for sample in samples
            ]
            for label, samples in found.samples.items()
        }
        part = Evaluation(found.task, cut)
        for label, row in rows.items():
            row.append(part.estimate(label, "perplexity", context.seed))
    return ["first quarter", "second", "third", "last"], rows


def _values(found: Evaluation, context: Context) -> list[Estimate | None]:
    return [found.estimate(label, "perplexity", context.seed) for label in found.samples]


def _difference(found: Evaluation, first: str, second: str, context: Context) -> Estimate:
    return found.difference(first, second, "perplexity", context.seed)


def _texts(context: Context, tokens: int) -> str:
    names = ", ".join(f"{text.name} ({min(tokens, len(text.ids)):,})" for text in context.texts)
    return f"Perplexity of texts with their tokens: {names}."
