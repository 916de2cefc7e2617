"""Layers without a position encoding (NoPE)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class NoEncoding:
    """Keys and queries carry no position, so nothing ever moves."""

    name = "none"
    position_limit = None
    has_bias = False

    def place(self, positions: Tensor, like: Tensor) -> None:
        """Return None: tokens carry no position."""

    def shift(self, amount: Tensor, like: Tensor) -> None:
        """Return None: keys and queries never move."""

    def bias(self, distances: Tensor, dtype: torch.dtype) -> None:
        """Return None: scores depend on no position."""
