"""The plan of a decode step: one token per stream, written and attended to by one operator."""

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


@dataclass(frozen=True)
class StepPlan(ForwardPlan):
    """What the layers of a decode step need; all of it tensors, so that a compiler can follow.

    Args:
        buffers: of each layer.
        rows: which stream of the buffers each of the batch is, int64, [batch].
        positions: stream position of each token, int64, [batch].
        geometry_of: for each layer, which entry of the next two is its own.
        sink_positions: int64, [n], per geometry.
        sink_shifts: how far queries move to where the sinks see them, int64, [batch], per geometry.
    """

    buffers: tuple[RingBuffers, ...] = ()
    rows: Tensor = field(default_factory=lambda: torch.empty(0))
    positions: Tensor = field(default_factory=lambda: torch.empty(0))
    geometry_of: tuple[int, ...] = ()
    sink_positions: tuple[Tensor, ...] = ()
    sink_shifts: tuple[Tensor, ...] = ()
    _turns: dict[tuple[int, int, torch.dtype], Shift | None] = field(default_factory=dict)

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
        """Write k and v [batch, num_kv_heads, 1, head_dim] and attend from q, likewise."""
        buffers = self.buffers[layer]
        out: Tensor = decode_attention(
            q[:, :, 0],
            self._for_sinks(layer, q)[:, :, 0],
            k[:, :, 0],
            v[:, :, 0],
            *buffers,
            self.rows,
            self.positions,
            self.sink_positions[self.geometry_of[layer]],
            scale,
            softcap or 0.0,
            sink_logits,
        )
        return out[:, :, None]

    def _for_sinks(self, layer: int, q: Tensor) -> Tensor:
        geometry, encoding = self.geometry_of[layer], self.encodings[layer]
        key = (geometry, id(encoding), q.dtype)
        if key not in self._turns:
            self._turns[key] = encoding.shift(self.sink_shifts[geometry][:, None], like=q)
        turn = self._turns[key]
        return q if turn is None else turn.queries(q)
