"""A long text read with sinks and a window, by cache or text positions, or by re-computation."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.pretraining.decoder import HIDDEN, Decoder
from benchmarks.pretraining.training import with_sink_token


def cache_distances(num_tokens: int, sinks: int, window: int) -> Tensor:
    """Return distances inside the cache, [queries, keys]; `HIDDEN` where a query sees nothing.

    Once a sink has left the window, its distance is that of its cache position.
    """
    t, j = torch.arange(num_tokens)[:, None], torch.arange(num_tokens)[None]
    is_sink = (j < sinks) & (j <= t)
    in_window = (j <= t) & (j > t - window)
    place = t.clamp(max=sinks + window - 1)  # of the query
    distances = torch.where(in_window, t - j, place - j)
    return torch.where(in_window | is_sink, distances, HIDDEN)


def text_distances(num_tokens: int, sinks: int, window: int) -> Tensor:
    """Return distances in the text for the same keys."""
    t, j = torch.arange(num_tokens)[:, None], torch.arange(num_tokens)[None]
    return torch.where(cache_distances(num_tokens, sinks, window) == HIDDEN, HIDDEN, t - j)


def nll_of(decoder: Decoder, ids: Tensor, distances: Tensor) -> Tensor:
    """Return the negative log-likelihood of each token but the first, [tokens - 1].

    Learned positions go on to the end of their table and stay there.
    """
    inputs = with_sink_token(ids) if decoder.arm.sink == "token" else ids
    with torch.inference_mode():
        logits = decoder(inputs[None], distances.to(ids.device))[0]
    return functional.cross_entropy(logits[-len(ids) : -1], ids[1:], reduction="none")


def recomputed_nll(decoder: Decoder, ids: Tensor, cache_size: int) -> Tensor:
    """Return the same by a pass of its own over the last tokens before each prediction."""
    inputs = with_sink_token(ids) if decoder.arm.sink == "token" else ids
    shift = len(inputs) - len(ids)
    rows = [inputs[max(0, t + 1 - cache_size) : t + 1] for t in range(shift, len(inputs) - 1)]
    found = []
    with torch.inference_mode():
        short = [row for row in rows if len(row) < cache_size]
        found += [decoder(row[None])[0, -1] for row in short]
        whole = torch.stack(rows[len(short) :])
        found += [row[-1] for part in whole.split(128) for row in decoder(part)]
    return functional.cross_entropy(torch.stack(found), ids[1:], reduction="none")
