"""Random arguments of `decode_attention`, for whatever implements it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from streamingllm.kernels.rows import encode_rows

BUFFERS = ("k_cache", "v_cache", "k_undo", "v_undo")


@dataclass(frozen=True)
class Case:
    """One decode step of a few streams.

    `layouts` are the columns of `layout`; without them each token sees the whole window of
    `window_size`, and each of its slot's `num_sinks` sinks that has left the window.
    """

    positions: tuple[int, ...] = (3, 70, 1_000_000)
    dtype: torch.dtype = torch.float32
    num_kv_heads: int = 2
    group_size: int = 2
    key_dim: int = 64
    value_dim: int = 64
    num_sinks: int = 4
    window_size: int = 70
    undo_size: int = 3
    spare_entries: int = 0
    num_slots: int = 4
    is_quantized: bool = False
    writes: bool = True
    softcap: float = 0.0
    has_sink_logits: bool = False
    layouts: tuple[tuple[int, int, int, int], ...] | None = None
    slots: tuple[int, ...] | None = None
    seed: int = 0
    device: str = "cpu"

    def arguments(self) -> dict[str, Any]:
        """Random arguments of `decode_attention`; the cache is full of numbers from the start."""
        generator = torch.Generator().manual_seed(self.seed)

        def numbers(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator).to(self.device, self.dtype)

        batch, heads = len(self.positions), self.num_kv_heads * self.group_size
        first = (self.num_slots, self.num_kv_heads)
        slots = torch.randperm(self.num_slots, generator=generator)[:batch]
        if self.slots is not None:
            slots = torch.tensor(self.slots)
        buffers: dict[str, Tensor | None] = {}
        for name, dim in (("k", self.key_dim), ("v", self.value_dim)):
            sinks = numbers(*first, self.num_sinks, dim)
            ring = numbers(*first, self.window_size + self.spare_entries, dim)
            buffers[name] = numbers(batch, self.num_kv_heads, dim) if self.writes else None
            buffers[f"{name}_sinks"] = sinks if self.is_quantized else None
            whole = encode_rows(ring) if self.is_quantized else torch.cat((sinks, ring), dim=2)
            buffers[f"{name}_cache"] = whole
            buffers[f"{name}_undo"] = whole.new_zeros(*first, self.undo_size, whole.shape[3])
        return {
            "q": numbers(batch, heads, self.key_dim),
            "q_for_sinks": numbers(batch, heads, self.key_dim),
            **buffers,
            "slots": slots.to(self.device),
            "positions": torch.tensor(self.positions, device=self.device),
            "layout": torch.tensor(self.columns(), device=self.device).T.contiguous(),
            "scale": self.key_dim**-0.5,
            "softcap": self.softcap,
            "sink_logits": numbers(heads) if self.has_sink_logits else None,
        }

    def columns(self) -> list[tuple[int, int, int, int]]:
        """What each token's column of `layout` is."""
        if self.layouts is not None:
            return list(self.layouts)
        n, m = self.num_sinks, self.window_size
        return [(n, m, min(n, max(0, t - m + 1)), min(t + 1, m)) for t in self.positions]
