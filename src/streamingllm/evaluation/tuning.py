"""Find the best sinks for a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from streamingllm.checks import check_integer
from streamingllm.config import StreamConfig
from streamingllm.errors import InputError
from streamingllm.evaluation.bootstrap import Estimate
from streamingllm.evaluation.caches import CacheChoice
from streamingllm.evaluation.evaluation import Evaluation, evaluate
from streamingllm.evaluation.sink_metric import NUM_TOKENS, sink_rates, sink_scores
from streamingllm.evaluation.tasks.base import Job
from streamingllm.evaluation.tasks.perplexity import PerplexityTask, TokenizedText

if TYPE_CHECKING:
    from torch import Tensor

    from streamingllm.evaluation.records import Records
    from streamingllm.models import LanguageModel

NUMBERS_OF_SINKS = (0, 1, 2, 4, 8, 16)
MARGIN = 0.005  # of the perplexity; a smaller gain is not worth a token of the window
_METRIC_TOKENS = 256
_EXTRA_SINKS = 4


@dataclass(frozen=True)
class Tuning:
    """Hold what was found about a model's sinks.

    Args:
        rates: share of heads that hold each of the first tokens for a sink.
        scores: mean attention to the first token, [layers][heads].
        evaluation: perplexity under each cache.
        recommended: the cache with the fewest sinks that is as good as the best.
        margin: how far its perplexity lies above the best one, paired.
    """

    rates: Sequence[float]
    scores: Sequence[Sequence[float]]
    evaluation: Evaluation
    recommended: CacheChoice
    margin: Estimate

    def report(self, seed: int) -> dict[str, Any]:
        """Return everything, JSON-able."""
        config = self.recommended.config
        return {
            **self.evaluation.report(seed),
            "sink_rates": list(self.rates),
            "first_token_attention": [list(row) for row in self.scores],
            "recommended": {
                "cache": self.recommended.label,
                "num_sink_tokens": config.num_sink_tokens,
                "window_size": config.window_size,
                "above_best": self.margin.to_json(),
            },
        }


def tuning_caches(cache_size: int, extra: Sequence[int]) -> list[CacheChoice]:
    """Return the caches to compare, all of one size.

    Args:
        cache_size: entries of each.
        extra: positions of later tokens with high sink scores, kept in addition to the first four.

    Raises:
        ConfigError: the cache has no room for the sinks.
    """
    check_integer("cache_size", cache_size, 2 * max(NUMBERS_OF_SINKS))
    caches = [
        CacheChoice(f"{n}+{cache_size - n}", StreamConfig(n, cache_size - n))
        for n in NUMBERS_OF_SINKS
    ]
    sinks = (*range(4), *sorted(extra))
    window = cache_size - len(sinks)
    config = StreamConfig(len(sinks), window, sink_positions=sinks)
    return [*caches, CacheChoice(f"4 first, {len(extra)} later+{window}", config)]


def tune(
    lm: LanguageModel,
    texts: Sequence[TokenizedText],
    cache_size: int,
    *,
    segment_tokens: int = 512,
    seed: int = 0,
    records: Records | None = None,
    on_part: Callable[[Job], None] = lambda job: None,
) -> Tuning:
    """Measure sinks by attention, and perplexity under caches with 0 to 16 sinks.

    Args:
        lm: model and tokenizer.
        texts: read under every cache; longer than the cache.
        cache_size: entries of every cache.
        segment_tokens: tokens that the intervals resample.
        seed: of the intervals.
        records: finished samples; see `evaluate`.
        on_part: called after each segment.

    Raises:
        ConfigError: the cache is too small.
        InputError: a text is no longer than the cache.
    """
    short = next((text for text in texts if len(text.ids) <= cache_size), None)
    if short is not None:
        raise InputError(
            f"text={short.name!r} has {len(short.ids)} tokens, no more than cache_size="
            f"{cache_size}; give longer texts"
        )
    scores = _scores(lm, texts, cache_size)
    caches = tuning_caches(cache_size, _later_sinks(scores.mean(dim=(0, 1)).tolist()))
    task = PerplexityTask(texts, segment_tokens)
    evaluation = evaluate(task, lm, caches, records=records, on_part=on_part)
    recommended, margin = recommend(evaluation, caches[: len(NUMBERS_OF_SINKS)], seed)
    first = scores[:, :, :NUM_TOKENS]
    return Tuning(sink_rates(first), first[:, :, 0].tolist(), evaluation, recommended, margin)


def recommend(
    evaluation: Evaluation, caches: Sequence[CacheChoice], seed: int
) -> tuple[CacheChoice, Estimate]:
    """Return the first cache that is as good as the best, and its distance from the best.

    Args:
        evaluation: of perplexity.
        caches: fewest sinks first.
        seed: of the intervals.
    """
    values = {c.label: evaluation.estimate(c.label, "perplexity", seed).value for c in caches}
    best = min(values, key=lambda label: values[label])
    for cache in caches:
        margin = evaluation.difference(best, cache.label, "perplexity", seed)
        if cache.label == best or margin.high < MARGIN * values[best]:
            return cache, margin
    raise AssertionError("the best cache is among them")


def _scores(lm: LanguageModel, texts: Sequence[TokenizedText], cache_size: int) -> Tensor:
    """Return sink scores of the beginning of the first text, [layers, heads, positions]."""
    ids = texts[0].ids
    length = min(_METRIC_TOKENS, cache_size, len(ids) - 1)
    return sink_scores(lm.model, ids[None, :length], length - NUM_TOKENS)


def _later_sinks(means: Sequence[float]) -> list[int]:
    """Return the positions after the first four that get the most attention."""
    later = sorted(range(4, len(means)), key=lambda k: means[k], reverse=True)
    return sorted(later[:_EXTRA_SINKS])
