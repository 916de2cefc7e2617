"""Baselines that evict by stream position, the same entries in all layers and heads."""

from __future__ import annotations

from abc import abstractmethod
from typing import Self

import torch
from torch import Tensor
from transformers import PreTrainedModel

from streamingllm.config import StreamConfig
from streamingllm.strategies.evicting import EvictingStrategy

CASCADE_LEVELS = 4


class PositionEvictingStrategy(EvictingStrategy):
    """Hold the stream position of each entry, and evict by it."""

    def __init__(self, model: PreTrainedModel, config: StreamConfig) -> None:
        super().__init__(model, config)
        self.positions: list[int] = []
        self._kept: list[int] = []

    @abstractmethod
    def kept_positions(self, num_kept: int) -> list[int]:
        """Choose positions that stay, in rising order; the first n are among them."""

    def kept_entries(self, keys: Tensor, num_kept: int) -> Tensor:
        """Return the same entries for all heads; see `EvictingStrategy.kept_entries`."""
        index = {position: i for i, position in enumerate(self.positions)}
        kept = torch.tensor([index[position] for position in self._kept], device=keys.device)
        return kept.expand(*keys.shape[:2], num_kept)

    def fork(self) -> Self:
        """Return an independent copy."""
        other = super().fork()
        other.positions = list(self.positions)
        return other

    def _note(self, num_tokens: int) -> None:
        self.positions += range(self._num_seen_tokens, self._num_seen_tokens + num_tokens)
        super()._note(num_tokens)

    def _evict(self) -> None:
        self._kept = self.kept_positions(self.num_cached_tokens - self.block_size)
        super()._evict()
        self.positions = self._kept


class RandomStrategy(PositionEvictingStrategy):
    """Evict random entries after the first n: the control of every rule of eviction."""

    name = "random"

    def __init__(self, model: PreTrainedModel, config: StreamConfig) -> None:
        super().__init__(model, config)
        self._generator = torch.Generator().manual_seed(0)

    def kept_positions(self, num_kept: int) -> list[int]:
        """Choose at random among the entries after the first n."""
        n = self.config.num_sink_tokens
        order = torch.randperm(len(self.positions) - n, generator=self._generator)
        chosen = sorted(order[: num_kept - n].tolist())
        return [*self.positions[:n], *(self.positions[n + i] for i in chosen)]

    def fork(self) -> Self:
        """Return an independent copy, which evicts the same entries from here on."""
        other = super().fork()
        other._generator.set_state(self._generator.get_state())
        return other


class CascadeStrategy(PositionEvictingStrategy):
    """Keep the first n, and windows behind one another that thin out by two.

    The newest m / 4 tokens are all kept, of those before every second, then every fourth, then
    every eighth. A window of m entries reaches almost four times as far back.

    Source: Willette et al., "Training-Free Exascale Context with Cascading KV Cache" (arXiv
    2406.17808), section 3. Deviation: a token passes from one window to the next by its position
    alone; the paper compares attention scores where a window takes none.
    """

    name = "cascade"

    def kept_positions(self, num_kept: int) -> list[int]:
        """Evict what its window does not take, oldest first, then the oldest."""
        n = self.config.num_sink_tokens
        later = self.positions[n:]
        thinned = _outside_of_windows(later, max(1, self.config.window_size // CASCADE_LEVELS))
        taken = [position for position in later if position not in thinned]
        num_evicted = len(self.positions) - num_kept
        evicted = {*[*sorted(thinned), *taken][:num_evicted]}
        return [p for p in self.positions if p not in evicted]


def _outside_of_windows(positions: list[int], window_size: int) -> set[int]:
    """Return the positions that no window takes, seen from the newest."""
    outside = set()
    level = count = 0
    for position in reversed(positions):
        if count == window_size and level < CASCADE_LEVELS - 1:
            level, count = level + 1, 0
        if position % 2**level:
            outside.add(position)
        else:
            count += 1
    return outside
