"""Layers without a position encoding (NoPE)."""

from __future__ import annotations

from torch import Tensor


class NoEncoding:
    """Keys and queries carry no position, so nothing ever moves."""

    name = "none"
    position_limit = None

    def shift(self, amount: Tensor, like: Tensor) -> None:
        """Nothing to move."""
        return None

    def bias(self, distances: Tensor, like: Tensor) -> None:
        """Nothing to add."""
        return None
