"""Measures of a trained decoder: its loss under small caches, and how much it attends to sinks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.pretraining.decoder import Decoder
from benchmarks.pretraining.streaming import cache_distances, nll_of
from benchmarks.pretraining.training import sample_loss, with_sink_token
from streamingllm.evaluation.bootstrap import Sums, estimate, paired_difference, sums_of
from streamingllm.evaluation.sink_metric import THRESHOLD, mean_over_later, sink_rates

NUMBERS_OF_SINKS = (0, 1, 2, 4)
NUM_POSITIONS = 4
_BLOCK = 32


def losses_by_column(
    decoder: Decoder, texts: Tensor, cache_size: int, numbers: Sequence[int], seed: int
) -> dict[str, Any]:
    """Return nats a byte past twice the trained length, by number of sinks.

    A trained sink token counts as the first sink: it is the first token of the stream. So `0+W`
    evicts it.

    Args:
        decoder: a trained one.
        texts: int64, [texts, tokens].
        cache_size: entries of every cache.
        numbers: of sinks; differences are taken from the last one.
        seed: of the resampling of blocks of bytes.
    """
    sums = {
        f"{sinks}+{cache_size - sinks}": _block_sums(decoder, texts, sinks, cache_size - sinks)
        for sinks in numbers
    }
    last = list(sums.values())[-1]
    return {
        "nll": {name: estimate(found, seed=seed).to_json() for name, found in sums.items()},
        "above_last": {
            name: paired_difference(last, found, seed=seed).to_json()
            for name, found in sums.items()
        },
    }


def _block_sums(decoder: Decoder, texts: Tensor, sinks: int, window: int) -> Sums:
    size = texts.shape[1] + (decoder.arm.sink == "token")
    distances, skipped = cache_distances(size, sinks, window), 2 * decoder.arm.trained_length
    late = [nll_of(decoder, text, distances)[skipped:] for text in texts]
    blocks = [block for nll in late for block in nll.split(_BLOCK)]
    return sums_of([(float(block.sum()), float(len(block))) for block in blocks])


def attention_to_first(decoder: Decoder, texts: Tensor) -> dict[str, Any]:
    """Return the sink metric of texts of the trained length, and their loss.

    Args:
        decoder: a trained one; its own sink token is the first position.
        texts: int64, [texts, tokens]; the beginning of each is read.

    Source: Gu et al. (arXiv 2410.10781), section 3.
    """
    ids = texts[:, : decoder.arm.trained_length + 1]
    read = with_sink_token(ids[:, :-1]) if decoder.arm.sink == "token" else ids[:, :-1]
    with torch.inference_mode():
        weights = decoder.attention_weights(read)
        scores = torch.stack([mean_over_later(w.double(), NUM_POSITIONS) for w in weights])
        loss = float(sample_loss(decoder, ids))
    return {
        "nll_within_trained_length": loss,
        "threshold": THRESHOLD,
        "sink_rates": sink_rates(scores),
        "mean_attention": scores.mean(dim=(0, 1)).tolist(),
        "highest_attention": scores.amax(dim=(0, 1)).tolist(),
    }
