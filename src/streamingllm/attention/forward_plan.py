"""The plan of one forward pass through a whole model, and the way it travels there."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from streamingllm.attention import dispatch
from streamingllm.attention.plan import Chunk, WindowPlan
from streamingllm.positions.base import PositionEncoding, Shift


@dataclass
class LayerTurn:
    """Number of the layer that gave its keys to the cache last, and attends next."""

    number: int = 0


@dataclass(frozen=True)
class ForwardPlan:
    """Plan of a pass for every layer; it travels down the model as the attention mask.

    Args:
        chunk: the tokens of this pass.
        windows: the plan of each layer.
        encodings: the position encoding of each layer.
        turn: of a model whose modules and layers of the cache have other numbers; else None.
    """

    chunk: Chunk
    windows: tuple[WindowPlan, ...]
    encodings: tuple[PositionEncoding, ...]
    turn: LayerTurn | None = None
    _placements: dict[tuple[int, torch.dtype], Shift | None] = field(default_factory=dict)

    ndim = 0  # models look at a mask's rank before they decide to edit it

    def with_readers(self, readers: Sequence[int]) -> ForwardPlan:
        """Return a plan for further layers too, each of which reads the keys of an earlier one."""
        if not readers:
            return self
        windows = tuple(self.windows[layer] for layer in readers)
        encodings = tuple(self.encodings[layer] for layer in readers)
        return replace(self, windows=self.windows + windows, encodings=self.encodings + encodings)

    def layer_of(self, module: nn.Module) -> int:
        """Return the number of the layer that an attention module computes now."""
        if self.turn is not None:
            return self.turn.number
        return int(module.layer_idx)  # type: ignore[arg-type]

    def place(self, layer: int, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Encode the positions of this pass into a layer's fresh queries and keys.

        For families that have no rotary module of their own; q [batch, num_heads, seq, head_dim],
        k [batch, num_kv_heads, seq, head_dim].
        """
        encoding = self.encodings[layer]
        key = (id(encoding), q.dtype)
        if key not in self._placements:
            self._placements[key] = encoding.place(self.chunk.model_positions, like=q)
        placement = self._placements[key]
        return (q, k) if placement is None else (placement.queries(q), placement.keys(k))

    def attend(
        self,
        layer: int,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        scale: float,
        softcap: float | None,
        sink_logits: Tensor | None,
    ) -> Tensor:
        """Attend in one layer; see `reference.attend`."""
        return dispatch.attend(
            q,
            k,
            v,
            self.windows[layer],
            self.encodings[layer],
            scale=scale,
            softcap=softcap,
            sink_logits=sink_logits,
        )

    def __getitem__(self, index: Any) -> ForwardPlan:
        """Return itself: models cut heads or tokens out of their masks."""
        return self

    def to(self, *args: Any, **kwargs: Any) -> ForwardPlan:
        """Return itself: models cast their masks."""
        return self


active_plan: ContextVar[ForwardPlan | None] = ContextVar("active_plan", default=None)
