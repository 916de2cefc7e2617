"""State of a cache, apart from its model: what is exported, kept and imported again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from streamingllm.config import StreamConfig
from streamingllm.errors import InputError


@dataclass(frozen=True, eq=False)
class CacheState:
    """Hold all that a cache holds, apart from its model.

    Args:
        num_sink_tokens, window_size, quantize_cache: of the cache's config.
        buffers: the parts of the tensors that are in use by name, one per layer.
        positions: what `StreamPositions.to_json` returned.
    """

    num_sink_tokens: int
    window_size: int
    quantize_cache: str
    buffers: dict[str, list[Tensor]]
    positions: dict[str, Any]

    @classmethod
    def of(
        cls, config: StreamConfig, buffers: dict[str, list[Tensor]], positions: dict[str, Any]
    ) -> CacheState:
        """Return the state of a cache of that config."""
        return cls(
            config.num_sink_tokens, config.window_size, config.quantize_cache, buffers, positions
        )

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors."""
        return sum(tensor.nbytes for layers in self.buffers.values() for tensor in layers)

    def cloned(self, device: torch.device | str | None = None) -> CacheState:
        """Return a copy with tensors of its own, on `device` or where they are."""
        buffers = {
            name: [tensor.detach().to(device, copy=True) for tensor in layers]
            for name, layers in self.buffers.items()
        }
        return replace(self, buffers=buffers)

    def check_fits(self, config: StreamConfig) -> None:
        """Refuse a cache of another config.

        Raises:
            InputError: sinks, window or quantisation differ.
        """
        for name in ("num_sink_tokens", "window_size", "quantize_cache"):
            theirs, ours = getattr(self, name), getattr(config, name)
            if theirs != ours:
                raise InputError(f"state: has {name}={theirs!r}; this cache needs {ours!r}")
