"""ALiBi: a penalty on scores that grows with distance (Press et al., arXiv 2108.12409)."""

from __future__ import annotations

import torch
from torch import Tensor


class AlibiEncoding:
    """Subtract slope x distance from each score; nothing stored depends on a position.

    Args:
        slopes: one per query head, [num_heads], in units of the scaled score.
    """

    name = "alibi"
    position_limit = None
    has_bias = True

    def __init__(self, slopes: Tensor) -> None:
        self.slopes = slopes.double()

    def place(self, positions: Tensor, like: Tensor) -> None:
        """Keys are stored without a position."""

    def shift(self, amount: Tensor, like: Tensor) -> None:
        """Keys are stored without a position."""

    def bias(self, distances: Tensor, dtype: torch.dtype) -> Tensor:
        """Return -slope x distance, [batch, num_heads, queries, keys]."""
        slopes = self.slopes.to(device=distances.device, dtype=dtype)[:, None, None]
        return -slopes * distances[:, None]
