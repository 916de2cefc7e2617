"""Protocol of position encodings: attention moves tokens from one position to another."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Shift(Protocol):
    """Change of position, ready to be applied to queries or keys of one forward pass."""

    def queries(self, q: Tensor) -> Tensor:
        """Return queries [batch, num_heads, seq, head_dim] as if they stood further along."""
        ...

    def keys(self, k: Tensor) -> Tensor:
        """Return keys [batch, num_kv_heads, seq, head_dim] as if they stood further along."""
        ...


class PositionEncoding(Protocol):
    """Position encoding of one layer; only differences of positions may matter."""

    @property
    def name(self) -> str:
        """Name the encoding for people."""
        ...

    @property
    def position_limit(self) -> int | None:
        """Largest position this encoding computes exactly, None if any position will do.

        Past it the cache counts from a new origin and moves its keys back.
        """
        ...

    @property
    def has_bias(self) -> bool:
        """Return whether `bias` adds anything to scores."""
        ...

    def place(self, positions: Tensor, like: Tensor) -> Shift | None:
        """Prepare encoding `positions` (int64, [batch, seq]) into tokens that carry none yet."""
        ...

    def shift(self, amount: Tensor, like: Tensor) -> Shift | None:
        """Prepare moving tokens by `amount` positions (int64, [batch, seq]; negative is back).

        `like` gives device and dtype. None means that nothing stored depends on the position.
        """
        ...

    def bias(self, distances: Tensor, dtype: torch.dtype) -> Tensor | None:
        """Return what is added to scaled scores, [batch, num_heads, queries, keys], or None.

        `distances` ([batch, queries, keys], int64) are those inside the cache.
        """
        ...
