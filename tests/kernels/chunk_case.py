"""Random arguments of `windowed_attention` for Triton's kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True)
class Chunk:
    """A chunk of tokens that follow `num_old` others of a stream."""

    seq: int = 37
    num_old: int = 20
    window_size: int = 21
    num_sinks: int = 4
    dtype: torch.dtype = torch.float32
    group_size: int = 2
    key_dim: int = 64
    value_dim: int = 64
    softcap: float = 0.0
    has_sink_logits: bool = False
    shortens: bool = False

    def arguments(self) -> dict[str, Any]:
        """Random arguments of `windowed_attention`; the first query sees no sink yet."""
        generator = torch.Generator().manual_seed(0)

        def numbers(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator).to(DEVICE, self.dtype)

        heads, columns = 2 * self.group_size, self.num_sinks + self.num_old + self.seq
        seen = torch.arange(self.seq, device=DEVICE).clamp(max=self.num_sinks)
        return {
            "q": numbers(2, heads, self.seq, self.key_dim),
            "q_for_sinks": numbers(2, heads, self.seq, self.key_dim),
            "k": numbers(2, 2, columns, self.key_dim),
            "v": numbers(2, 2, columns, self.value_dim),
            "sinks_seen": seen,
            "window_lengths": self.lengths().to(DEVICE),
            "num_sinks": self.num_sinks,
            "scale": self.key_dim**-0.5,
            "softcap": self.softcap,
            "sink_logits": numbers(heads) if self.has_sink_logits else None,
        }

    def lengths(self) -> Tensor:
        """Tokens that each query sees; every third query sees half of its window."""
        whole = (torch.arange(1, self.seq + 1) + self.num_old).clamp(max=self.window_size)
        is_short = (torch.arange(self.seq) % 3 == 2) & torch.tensor(self.shortens)
        return torch.where(is_short, (whole + 1) // 2, whole)
