"""Measure how much attention each head pays to the first tokens of a text."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import PreTrainedModel

from streamingllm.errors import InputError
from streamingllm.inputs import sink_token_rows
from streamingllm.integration.trained_sinks import plain_implementation

THRESHOLD = 0.3
NUM_TOKENS = 8


def sink_scores(model: PreTrainedModel, ids: Tensor, num_positions: int = NUM_TOKENS) -> Tensor:
    """Return the mean attention that later queries pay to each of the first positions.

    Args:
        model: its attention runs in plain PyTorch for the length of this call.
        ids: int64, [batch, seq], the beginnings of texts, longer than `num_positions`. A model's
            sink token is put before them, and is the first position.
        num_positions: first positions to score.

    Returns:
        float64, [layers, heads, num_positions]; the mean over queries after the position itself.

    Raises:
        InputError: the texts are too short, or the model shows no attention.

    Source: Gu et al., "When Attention Sink Emerges" (arXiv 2410.10781), section 3.
    """
    if ids.ndim != 2 or ids.shape[1] <= num_positions:
        raise InputError(
            f"ids has shape {tuple(ids.shape)}; give texts [batch, seq] of more than "
            f"{num_positions} tokens"
        )
    if (first := sink_token_rows(model, len(ids))) is not None:
        ids = torch.cat((first, ids), dim=1)
    with _eager(model), torch.no_grad():
        shown = model(input_ids=ids, output_attentions=True, use_cache=False).attentions
    if not shown or any(layer is None for layer in shown):
        raise InputError(f"model: {model.config.model_type} shows no attention; choose another one")
    return torch.stack([mean_over_later(layer.double(), num_positions) for layer in shown])


def sink_rates(scores: Tensor, threshold: float = THRESHOLD) -> list[float]:
    """Return the share of heads whose mean attention to each position passes a threshold.

    Args:
        scores: [layers, heads, positions].
        threshold: 0.3 in the source.
    """
    rates: list[float] = (scores > threshold).double().mean(dim=(0, 1)).tolist()
    return rates


def mean_over_later(weights: Tensor, num_positions: int) -> Tensor:
    """Return means of attention [batch, heads, queries, keys] over the queries after each key.

    Returns:
        [heads, num_positions].
    """
    means = [weights[:, :, k + 1 :, k].mean(dim=(0, 2)) for k in range(num_positions)]
    return torch.stack(means, dim=-1)


@contextmanager
def _eager(model: PreTrainedModel) -> Iterator[None]:
    """Run attention in plain PyTorch, whose weights can be seen."""
    before = model.config._attn_implementation
    model.set_attn_implementation(plain_implementation(model))
    try:
        yield
    finally:
        model.set_attn_implementation(before)
