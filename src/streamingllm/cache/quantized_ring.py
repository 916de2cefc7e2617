"""A ring of eight-bit rows; the sinks are exact and have buffers of their own."""

from __future__ import annotations

import torch
from torch import Tensor

from streamingllm.attention.plan import WindowPlan
from streamingllm.attention.step_plan import RingBuffers
from streamingllm.cache.geometry import RingGeometry
from streamingllm.cache.ring import RingLayer, Side
from streamingllm.kernels.rows import SCALE_BYTES, decode_rows, encode_rows


class QuantizedRingLayer(RingLayer):
    """Hold a window of int8 rows, each with a scale of its own, and n exact sinks.

    `k_cache` and `v_cache` are [batch, num_kv_heads, m, head_dim + 4], int8; see `kernels.rows`.
    A token is rounded when it arrives, before anything attends to it. So logits do not depend on
    how a stream is split. A sink is exact once it has left the window.
    """

    k_sinks: Tensor
    v_sinks: Tensor
    _names = (*RingLayer._names, "k_sinks", "v_sinks")

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate the buffers for keys and values [batch, num_kv_heads, seq, head_dim]."""
        geometry = self.geometry

        @torch.inference_mode(False)  # so that they can be written in and out of inference mode
        def allocate(like: Tensor, entries: int, *, exact: bool = False) -> Tensor:
            if exact:
                return like.new_zeros((*like.shape[:2], entries, like.shape[-1]))
            width = like.shape[-1] + SCALE_BYTES
            return like.new_zeros((*like.shape[:2], entries, width), dtype=torch.int8)

        self.k_cache = allocate(key_states, geometry.window_size)
        self.v_cache = allocate(value_states, geometry.window_size)
        self.k_undo = allocate(key_states, geometry.undo_size)
        self.v_undo = allocate(value_states, geometry.undo_size)
        self.k_sinks = allocate(key_states, geometry.num_sink_tokens, exact=True)
        self.v_sinks = allocate(value_states, geometry.num_sink_tokens, exact=True)
        self.is_initialized = True

    def _used_entries(self, num_seen_tokens: int) -> dict[str, int]:
        n, m, u = self.geometry.num_sink_tokens, self.geometry.window_size, self.geometry.undo_size
        used, evicted = min(num_seen_tokens, m), max(0, num_seen_tokens - m)
        return {"cache": used, "undo": min(u, evicted), "sinks": n}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Copy what `used_buffers` returned into the buffers, in place if there are any."""
        if not self.is_initialized:
            self.lazy_initialization(tensors["k_sinks"], tensors["v_sinks"])
        super().load(tensors)

    def _entries_for(self, *geometries: RingGeometry) -> dict[str, int]:
        return {
            "cache": max(geometry.window_size for geometry in geometries),
            "undo": max(geometry.undo_size for geometry in geometries),
            "sinks": max(geometry.num_sink_tokens for geometry in geometries),
        }

    @property
    def ring_buffers(self) -> RingBuffers:
        """The tensors as a decode step takes them."""
        return RingBuffers(*(getattr(self, name) for name in self._names))

    @property
    def nbytes(self) -> int:
        """Bytes of the n + m keys and values."""
        return super().nbytes + self.k_sinks.nbytes + self.v_sinks.nbytes

    @property
    def _sides(self) -> tuple[Side, Side]:
        n, m = self.geometry.num_sink_tokens, self.geometry.window_size
        return (
            Side(self.k_sinks[:, :, :n], self.k_cache[:, :, :m], self.k_undo),
            Side(self.v_sinks[:, :, :n], self.v_cache[:, :, :m], self.v_undo),
        )

    def _encode(self, new: Tensor) -> Tensor:
        return encode_rows(new)

    def _decode(self, rows: Tensor, like: Tensor) -> Tensor:
        return decode_rows(rows).to(like.dtype)

    def _slots(self, plan: WindowPlan, side: Side, like: Tensor, is_key: bool) -> Tensor:
        window = self._decode(side.ring[:, :, : plan.window_positions.shape[1]], like)
        return torch.cat((side.sinks, window), dim=2) if plan.num_sinks else window
