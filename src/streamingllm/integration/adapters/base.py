"""Adapter of a family that computes attention outside transformers' attention interface."""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from streamingllm.attention.forward_plan import ForwardPlan
from streamingllm.attention.plan import Chunk
from streamingllm.positions.base import PositionEncoding

Undo = Callable[[], None]


class Adapter(Protocol):
    """One family that bypasses transformers' attention interface."""

    def encodings(self, model: PreTrainedModel, cache_size: int) -> tuple[PositionEncoding, ...]:
        """Return each layer's position encoding for queries that see `cache_size` tokens.

        Raises:
            UnsupportedModelError: this member of the family cannot stream.
        """
        ...

    def position_ids(self, chunk: Chunk) -> Tensor:
        """Return what the model gets as `position_ids`, int64, [rows, seq]."""
        ...

    def install(self, model: PreTrainedModel) -> Undo:
        """Teach the model's attention layers to follow a `ForwardPlan`; return what undoes it."""
        ...


class AttentionAdapter(ABC):
    """Base of the adapters that stand in for each attention module of a model.

    A module runs `attend` when the mask it is called with is a `ForwardPlan`, and its own `forward`
    otherwise.
    """

    @abstractmethod
    def encodings(self, model: PreTrainedModel, cache_size: int) -> tuple[PositionEncoding, ...]:
        """Return each layer's position encoding; see `Adapter.encodings`."""

    @abstractmethod
    def attention_modules(self, decoder: Any) -> Iterable[nn.Module]:
        """Return the attention modules of a decoder, layer by layer."""

    @abstractmethod
    def attend(self, module: Any, plan: ForwardPlan, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Do what `module.forward(*args, **kwargs)` does, seeing what `plan` says."""

    def position_ids(self, chunk: Chunk) -> Tensor:
        """Return zeros: `attend` places queries and keys by the plan."""
        return torch.zeros_like(chunk.positions)

    def install(self, model: PreTrainedModel) -> Undo:
        """Shadow the `forward` of each attention module; return what takes the shadows away."""
        with ExitStack() as undo:
            for module in self.attention_modules(model.get_decoder()):
                undo.callback(override(module, "forward", self._forward_of(module)))
            return undo.pop_all().close

    def _forward_of(self, module: nn.Module) -> Callable[..., object]:
        own_forward = module.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            plan = kwargs.get("attention_mask")
            if not isinstance(plan, ForwardPlan):
                return own_forward(*args, **kwargs)
            return self.attend(module, plan, *args, **kwargs)

        return forward


def override(module: nn.Module, name: str, method: Callable[..., object]) -> Undo:
    """Shadow a method of one module instance; return what takes the shadow away.

    The module is not kept alive.
    """
    hidden = {key: value for key, value in vars(module).items() if key == name}
    setattr(module, name, method)
    shadowed = weakref.ref(module)

    def undo() -> None:
        if (module := shadowed()) is not None:
            delattr(module, name)
            vars(module).update(hidden)

    return undo
