"""Two independent derivations of a hybrid stream's logits; nothing here imports streamingllm.

`banded_logits` is one dense pass: attention by an explicit matrix of distances inside the cache,
recurrences in their parallel form. `looped_logits` feeds token by token: attention over unrotated
keys that are rotated afresh, recurrences in transformers' own states.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import CacheLayerMixin

from tests.reference.layer_facts import LayerFacts, distance_matrix, reaches
from tests.reference.oracles import UnrotatedCache, _see_everything, attention, repeated
from tests.reference.replaced_attention import name_attention


def banded_logits(
    model: PreTrainedModel, layers: Sequence[LayerFacts], ids: Tensor, n: int, m: int
) -> Tensor:
    """Return the logits of every token, [batch, seq, vocab], from one dense forward pass.

    Args:
        model: a hybrid model.
        layers: facts of its layers that attend, in order.
        ids: int64, [batch, seq].
        n, m: sinks and window.
    """
    turns = _in_order(layers, reaches(layers, n, m), ids.shape[1])

    def attend(
        module: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        attention_mask: None,
        scaling: float | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, None]:
        facts, distance = next(turns)
        k, v = repeated(k, q.shape[1]), repeated(v, q.shape[1])
        scale = q.shape[-1] ** -0.5 if scaling is None else scaling
        scores = scale * facts.dot_products(q, k, distance)
        out = attention(scores.masked_fill(distance < 0, -torch.inf), v, None)
        return out.transpose(1, 2).contiguous(), None

    with torch.no_grad(), ExitStack() as undo:
        name_attention(model, attend, undo)
        logits: Tensor = model(ids, use_cache=False, position_ids=torch.zeros_like(ids)).logits
    assert next(turns, None) is None, "each layer attends once"
    return logits


def _in_order(
    layers: Sequence[LayerFacts], shares: Sequence[tuple[int, int]], num_tokens: int
) -> Iterator[tuple[LayerFacts, Tensor]]:
    """Yield each layer's facts and distances; modules that layers share have no number."""
    for facts, (sinks, window) in zip(layers, shares, strict=True):
        yield facts, distance_matrix(num_tokens, range(sinks), window)


class _LoopCache(UnrotatedCache):
    """Unrotated keys of the layers that attend, and transformers' own states of all others."""

    def __init__(
        self, model: PreTrainedModel, layers: Sequence[LayerFacts], n: int, m: int
    ) -> None:
        super().__init__(layers, n, m, range(n), None)
        self.layers = DynamicCache(config=model.config).layers
        self._attending = [
            index for index, layer in enumerate(self.layers) if isinstance(layer, CacheLayerMixin)
        ]

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        number = self._attending.index(layer_idx)
        return super().update(key_states, value_states, number, *args, **kwargs)


def looped_logits(
    model: PreTrainedModel, layers: Sequence[LayerFacts], ids: Tensor, n: int, m: int
) -> Tensor:
    """Return the logits of every token, [batch, seq, vocab], fed one at a time."""
    cache, logits = _LoopCache(model, layers, n, m), []
    with torch.no_grad(), ExitStack() as undo:
        name_attention(model, _see_everything, undo)
        for t in range(ids.shape[1]):
            cache.t = t
            place = torch.full((ids.shape[0], 1), cache.place)
            token = ids[:, t : t + 1]
            out = model(token, past_key_values=cache, use_cache=True, position_ids=place)
            logits.append(out.logits)
    return torch.cat(logits, dim=1)
