"""Families that compute attention by themselves, and how each is taught to stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor, nn
from transformers import PreTrainedModel

from streamingllm.attention.plan import Chunk
from streamingllm.positions.base import PositionEncoding

Undo = Callable[[], None]


class Adapter(Protocol):
    """One family that bypasses transformers' attention interface."""

    def encodings(self, model: PreTrainedModel, cache_size: int) -> tuple[PositionEncoding, ...]:
        """Return each layer's position encoding."""
        ...

    def position_ids(self, chunk: Chunk) -> Tensor:
        """Return what the model gets as `position_ids`, int64, [rows, seq]."""
        ...

    def install(self, model: PreTrainedModel) -> Undo:
        """Teach the model's attention layers to follow a `ForwardPlan`; return what undoes it."""
        ...


ADAPTERS: dict[str, Adapter] = {}


def override(module: nn.Module, name: str, method: Callable[..., object]) -> Undo:
    """Shadow a method of one module instance; return what takes the shadow away."""
    setattr(module, name, method)
    return lambda: delattr(module, name)
