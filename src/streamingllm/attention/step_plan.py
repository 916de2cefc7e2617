"""The plan of a decode step: one token per slot, written and attended to by one operator."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from streamingllm.attention.forward_plan import ForwardPlan
from streamingllm.kernels.operators import decode_attention
from streamingllm.positions.base import Shift


class RingBuffers(NamedTuple):
    """One layer's tensors as `kernels.reference.decode_attention` takes them.

    `k_sinks` and `v_sinks` are None unless the ring is quantised.
    """

    k_cache: Tensor
    v_cache: Tensor
    k_undo: Tensor
    v_undo: Tensor
    k_sinks: Tensor | None
    v_sinks: Tensor | None


class StepLayout(NamedTuple):
    """Layout of what one token of a decode step sees in the layers of one geometry.

    The first four are a column of `layout`, as `kernels.reference.decode_attention` takes it.

    Args:
        num_sink_tokens: sinks of the token's slot (n).
        window_size: ring entries of the slot (m).
        num_visible_sinks: sinks that have left the window.
        window_length: tokens in the window, the token itself included.
        sink_shift: positions that the query moves to where the sinks see it.
    """

    num_sink_tokens: int
    window_size: int
    num_visible_sinks: int
    window_length: int
    sink_shift: int


@dataclass(frozen=True)
class StepPlan(ForwardPlan):
    """Plan of a decode step for every layer; all of it tensors, so that a compiler can follow.

    Args:
        buffers: of each layer.
        slots: slot of each token in the buffers, int64, [batch].
        positions: stream position of each token, int64, [batch].
        geometry_of: for each layer, the entry of the next two that is its own.
        layouts: int64, [4, batch], per geometry; see `StepLayout`.
        sink_shifts: positions that queries move to where the sinks see them, int64, [batch], per
            geometry.
        written_layers: layers whose rings have the step's tokens; appended to while the step runs.
    """

    buffers: tuple[RingBuffers, ...] = ()
    slots: Tensor = field(default_factory=lambda: torch.empty(0))
    positions: Tensor = field(default_factory=lambda: torch.empty(0))
    geometry_of: tuple[int, ...] = ()
    layouts: tuple[Tensor, ...] = ()
    sink_shifts: tuple[Tensor, ...] = ()
    written_layers: list[int] = field(default_factory=list)
    _shifts: dict[tuple[int, int, torch.dtype], Shift | None] = field(default_factory=dict)

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
        """Write k and v [batch, num_kv_heads, 1, head_dim] and attend from q of the same shape."""
        out: Tensor = decode_attention(
            q[:, :, 0],
            self._for_sinks(layer, q)[:, :, 0],
            k[:, :, 0],
            v[:, :, 0],
            *self.buffers[layer],
            self.slots,
            self.positions,
            self.layouts[self.geometry_of[layer]],
            scale,
            softcap or 0.0,
            sink_logits,
        )
        self.written_layers.append(layer)
        return out[:, :, None]

    def _for_sinks(self, layer: int, q: Tensor) -> Tensor:
        geometry, encoding = self.geometry_of[layer], self.encodings[layer]
        key = (geometry, id(encoding), q.dtype)
        if key not in self._shifts:
            self._shifts[key] = encoding.shift(self.sink_shifts[geometry][:, None], like=q)
        shift = self._shifts[key]
        return q if shift is None else shift.queries(q)
