"""Baselines that evict by the keys themselves, head by head, without attention scores."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from streamingllm.strategies.evicting import EvictingStrategy

_PROTECTED_SHARE = 4


class KeyEvictingStrategy(EvictingStrategy):
    """Evict the entries with the highest score; the first n and the newest m / 4 are protected."""

    @abstractmethod
    def scores(self, keys: Tensor) -> Tensor:
        """Return scores, the highest evicted first, float32, [batch, num_kv_heads, entries].

        Args:
            keys: [batch, num_kv_heads, entries, head_dim].
        """

    def kept_entries(self, keys: Tensor, num_kept: int) -> Tensor:
        """Return the entries of lowest score; see `EvictingStrategy.kept_entries`."""
        scores = self.scores(keys)
        newest = max(1, self.config.window_size // _PROTECTED_SHARE)
        scores[..., : self.config.num_sink_tokens] = -torch.inf
        scores[..., max(0, keys.shape[2] - newest) :] = -torch.inf
        order = scores.argsort(dim=-1, stable=True)
        kept: Tensor = order[..., :num_kept].sort(dim=-1).values
        return kept


class KeyNormStrategy(KeyEvictingStrategy):
    """Evict the keys of the highest L2 norm, which get little attention.

    Source: Devoto et al., "A Simple and Effective L2 Norm-Based Strategy for KV Cache Compression"
    (arXiv 2406.11430). Deviation: the first n and the newest m / 4 tokens are protected, in all
    layers.
    """

    name = "key-norm"

    def scores(self, keys: Tensor) -> Tensor:
        """Return the norm of each key."""
        norm: Tensor = keys.float().norm(dim=-1)
        return norm


class KeyDiffStrategy(KeyEvictingStrategy):
    """Evict the keys most like the mean direction of all keys.

    Source: Park et al., "KeyDiff" (arXiv 2504.15364). Deviation: the first n and the newest m / 4
    tokens are protected.
    """

    name = "key-diff"

    def scores(self, keys: Tensor) -> Tensor:
        """Return the cosine of each key with the mean of the normalised keys."""
        directions = torch.nn.functional.normalize(keys.float(), dim=-1)
        anchor = directions.mean(dim=2, keepdim=True)
        return torch.nn.functional.cosine_similarity(directions, anchor, dim=-1)
