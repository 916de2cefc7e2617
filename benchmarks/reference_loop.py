"""The paper's rule as a loop: one token at a time, keys kept unrotated and rotated afresh.

It shares no code with the library. Source: the paper's reference implementation
(github.com/mit-han-lab/streaming-llm, `start_size` = n, `recent_size` = m - 1).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel


class ReferenceCache(DynamicCache):
    """Keep n + m - 1 unrotated keys per layer of a half-split rotary model with full attention."""

    def __init__(self, inv_freq: Tensor, num_sink_tokens: int, window_size: int) -> None:
        super().__init__()
        self.inv_freq = inv_freq.double()
        self.num_sinks, self.size = num_sink_tokens, num_sink_tokens + window_size
        self.held: dict[int, tuple[Tensor, Tensor]] = {}

    def _rotated(self, x: Tensor, positions: Tensor) -> Tensor:
        angles = positions.double()[:, None] * self.inv_freq
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        a, b = x.chunk(2, dim=-1)
        return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        place = self.get_seq_length(layer_idx)
        k = self._rotated(key_states, torch.tensor([-place]))
        v = value_states
        if layer_idx in self.held:
            k = torch.cat((self.held[layer_idx][0], k), dim=2)
            v = torch.cat((self.held[layer_idx][1], v), dim=2)
        seen = self._rotated(k, torch.arange(place + 1)), v
        if k.shape[2] == self.size:
            kept = [i for i in range(self.size) if i != self.num_sinks]
            k, v = k[:, :, kept], v[:, :, kept]
        self.held[layer_idx] = (k, v)
        return seen

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.held[layer_idx][0].shape[2] if layer_idx in self.held else 0

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        return self.get_seq_length(layer_idx) + query_length, 0


def reference_logits(
    model: PreTrainedModel, ids: Tensor, num_sink_tokens: int, window_size: int
) -> Iterator[Tensor]:
    """Yield the logits after each token of `ids` [seq], each [vocab]."""
    inv_freq: Tensor = model.get_decoder().rotary_emb.inv_freq
    cache = ReferenceCache(inv_freq, num_sink_tokens, window_size)
    for token in ids:
        position = torch.tensor([[cache.get_seq_length()]])
        with torch.no_grad():
            output = model(token.view(1, 1), position_ids=position, past_key_values=cache)
        yield output.logits[0, 0]
