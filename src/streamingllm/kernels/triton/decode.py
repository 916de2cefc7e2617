"""Decode attention on a GPU: flash-decoding over the sinks and the ring.

Source: Dao et al., "Flash-Decoding for long-context inference",
https://crfm.stanford.edu/2023/10/12/flashdecoding.html; the sinks make the first span longer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from streamingllm.errors import InputError
from streamingllm.kernels.rows import SCALE_BYTES
from streamingllm.kernels.triton.decode_kernels import attend_spans, merge_spans
from streamingllm.kernels.triton.launch import (
    check,
    check_dtype,
    check_heads,
    check_numbers,
    check_score,
    in_triton,
    num_processors,
    operand_dtype,
    power_of_two,
    rows_per_tile,
    split_columns,
)
from streamingllm.kernels.triton.write_kernel import write_tokens

# Tiles of this size leave registers and shared memory for four programs on an A100 or H100.
_TILE_BYTES = 16_384


@dataclass(frozen=True)
class _Side:
    """The keys, or the values, of all slots; `sinks` is the cache itself unless it is quantised."""

    cache: Tensor
    sinks: Tensor
    undo: Tensor

    @classmethod
    def of(cls, name: str, cache: Tensor, sinks: Tensor | None, undo: Tensor | None) -> _Side:
        for part, x in (("cache", cache), ("sinks", sinks), ("undo", undo)):
            if x is not None and x.ndim != 4:
                raise InputError(
                    f"{name}_{part} is {list(x.shape)}; "
                    "it must be [slots, num_kv_heads, entries, width]"
                )
        if (sinks is None) == (cache.dtype is torch.int8):
            place = "in" if sinks is None else "beside"
            raise InputError(
                f"the cache is {cache.dtype} and has its sinks {place} it; "
                "an int8 cache has them beside it, any other in it"
            )
        undo = cache[:, :, :0] if undo is None else undo
        return cls(cache, cache if sinks is None else sinks, undo)

    @property
    def is_quantized(self) -> bool:
        return self.cache.dtype is torch.int8

    @property
    def width(self) -> int:
        return self.cache.shape[3]

    @property
    def dim(self) -> int:
        return self.width - SCALE_BYTES if self.is_quantized else self.width

    @property
    def scales(self) -> Tensor:
        """The bytes of a quantised cache as float32; else the cache, to stand in for them."""
        return self.cache.view(torch.float32) if self.is_quantized else self.cache

    def check(self, name: str, like: Tensor) -> None:
        """Raise InputError unless kernels can walk through the buffers."""
        slots, heads = self.cache.shape[:2]
        if self.is_quantized and self.dim % SCALE_BYTES:
            raise InputError(f"{name} is {self.dim} wide; a quantised cache takes multiples of 4")
        check(f"{name}_sinks", self.sinks, (slots, heads, self.sinks.shape[2], self.dim), like)
        check(f"{name}_undo", self.undo, (slots, heads, self.undo.shape[2], self.width), like)
        check_dtype(f"{name}_undo", self.undo, self.cache.dtype)
        for part, x in (("cache", self.cache), ("sinks", self.sinks), ("undo", self.undo)):
            if x.numel() and (x.stride(3) != 1 or x.stride(2) != x.shape[3]):
                raise InputError(f"{name}_{part} has strides {x.stride()}; rows must lie together")


@dataclass(frozen=True)
class _Tokens:
    """Slot, position and layout of each token of a step; only the device reads them."""

    slots: Tensor
    positions: Tensor
    layout: Tensor

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.slots.contiguous(), self.positions.contiguous(), self.layout.contiguous()

    @property
    def batch(self) -> int:
        return len(self.slots)


def decode_attention(
    q: Tensor,
    q_for_sinks: Tensor,
    k: Tensor | None,
    v: Tensor | None,
    k_cache: Tensor,
    v_cache: Tensor,
    k_undo: Tensor | None,
    v_undo: Tensor | None,
    k_sinks: Tensor | None,
    v_sinks: Tensor | None,
    slots: Tensor,
    positions: Tensor,
    layout: Tensor,
    scale: float,
    softcap: float,
    sink_logits: Tensor | None,
) -> Tensor:
    """Do what `reference.decode_attention` does, in three launches whose shapes are the tensors'.

    Products are taken in the dtype of queries and cache, sums in float32. Slots, positions and
    layout are checked on the device: the result of a token that does not fit the buffers is nan,
    and it writes nothing. Two tokens that write to one slot do not fit.

    Raises:
        InputError: shapes, strides, types or devices are not what kernels take.
    """
    keys = _Side.of("k", k_cache, k_sinks, k_undo)
    values = _Side.of("v", v_cache, v_sinks, v_undo)
    tokens = _Tokens(slots, positions, layout)
    _check(q, q_for_sinks, keys, values, tokens)
    check_score(softcap, sink_logits, q.shape[1], q)
    if (k is None) != (v is None):
        raise InputError("one of k and v is None; pass both or neither")
    if not tokens.batch:
        return q.new_empty((0, q.shape[1], values.dim))
    with torch.cuda.device_of(q):  # kernels go to the current device
        if k is not None and v is not None:
            _write(k, v, keys, values, tokens)
        spans = _attend(q, q_for_sinks, keys, values, tokens, k is not None, scale, softcap)
        return _merge(q, *spans, sink_logits)


def _check(q: Tensor, q_for_sinks: Tensor, keys: _Side, values: _Side, tokens: _Tokens) -> None:
    if q.ndim != 3:
        raise InputError(f"q is {list(q.shape)}; it must be [batch, num_heads, head_dim]")
    batch, num_heads, num_kv_heads = *q.shape[:2], keys.cache.shape[1]
    check_heads(num_heads, num_kv_heads, keys.dim, values.dim)
    check("q", q, (batch, num_heads, keys.dim), q)
    check("q_for_sinks", q_for_sinks, (batch, num_heads, keys.dim), q)
    check("k_cache", keys.cache, keys.cache.shape, q)
    check("v_cache", values.cache, (*keys.cache.shape[:3], values.width), q)
    check_dtype("v_cache", values.cache, keys.cache.dtype)
    keys.check("k", q)
    values.check("v", q)
    check("v_sinks", values.sinks, (*keys.sinks.shape[:3], values.dim), q)
    check("v_undo", values.undo, (*keys.undo.shape[:3], values.width), q)
    check_numbers("slots", tokens.slots, (batch,), q)
    check_numbers("positions", tokens.positions, (batch,), q)
    check_numbers("layout", tokens.layout, (4, batch), q)


def _write(k: Tensor, v: Tensor, keys: _Side, values: _Side, tokens: _Tokens) -> None:
    num_slots, num_kv_heads, entries = keys.cache.shape[:3]
    check("k", k, (tokens.batch, num_kv_heads, keys.dim), keys.cache)
    check("v", v, (tokens.batch, num_kv_heads, values.dim), keys.cache)
    write_tokens[(tokens.batch * num_kv_heads,)](
        k.contiguous(),
        v.contiguous(),
        *_place(keys.cache),
        *_place(values.cache),
        keys.scales,
        values.scales,
        *_place(keys.undo),
        *_place(values.undo),
        *tokens.tensors,
        tokens.batch,
        num_slots,
        entries,
        keys.sinks.shape[2],
        keys.undo.shape[2],
        NUM_KV_HEADS=num_kv_heads,
        KEY_DIM=keys.dim,
        VALUE_DIM=values.dim,
        KEY_WIDTH=keys.width,
        VALUE_WIDTH=values.width,
        QUANTIZED=keys.is_quantized,
        BLOCK_B=power_of_two(tokens.batch),
        BLOCK_K=power_of_two(keys.width),
        BLOCK_V=power_of_two(values.width),
        num_warps=1,
        enable_fp_fusion=False,  # codes are rounded as the reference rounds them
    )


def _attend(
    q: Tensor,
    q_for_sinks: Tensor,
    keys: _Side,
    values: _Side,
    tokens: _Tokens,
    writes: bool,
    scale: float,
    softcap: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return of each span the highest score, the sum of weights and the weighted values."""
    batch, num_heads = q.shape[:2]
    num_slots, num_kv_heads, entries = keys.cache.shape[:3]
    sink_entries, groups = keys.sinks.shape[2], batch * num_kv_heads
    dtype = operand_dtype(q, q_for_sinks, keys.cache, values.cache, keys.sinks, values.sinks)
    block_k, block_v = power_of_two(keys.dim), power_of_two(values.dim)
    block_n = min(128, rows_per_tile(max(block_k, block_v), dtype, _TILE_BYTES))
    num_columns = entries + (sink_entries if keys.is_quantized else 0)
    span, num_spans = split_columns(num_columns, block_n, groups, num_processors(q.device))
    shape = (groups, num_spans, num_heads // num_kv_heads)
    highest, total = (q.new_empty(shape, dtype=torch.float32) for _ in range(2))
    out = q.new_empty((*shape, values.dim), dtype=torch.float32)
    attend_spans[(groups, num_spans)](
        q.contiguous(),
        q_for_sinks.contiguous(),
        *_place(keys.sinks),
        *_place(values.sinks),
        *_place(keys.cache),
        *_place(values.cache),
        keys.scales,
        values.scales,
        *tokens.tensors,
        highest,
        total,
        out,
        batch,
        num_slots,
        entries,
        sink_entries,
        span,
        scale,
        NUM_KV_HEADS=num_kv_heads,
        GROUP_SIZE=shape[2],
        KEY_DIM=keys.dim,
        VALUE_DIM=values.dim,
        KEY_WIDTH=keys.width,
        VALUE_WIDTH=values.width,
        QUANTIZED=keys.is_quantized,
        WRITES=writes,
        OPERAND=in_triton(dtype),
        SOFTCAP=softcap,
        BLOCK_B=power_of_two(batch),
        BLOCK_Q=power_of_two(shape[2]),
        BLOCK_N=block_n,
        BLOCK_K=block_k,
        BLOCK_V=block_v,
        num_warps=4,
        num_stages=2,
    )
    return highest, total, out


def _merge(
    q: Tensor, highest: Tensor, total: Tensor, span_out: Tensor, sink_logits: Tensor | None
) -> Tensor:
    batch, num_heads = q.shape[:2]
    _, num_spans, group_size, value_dim = span_out.shape
    out = q.new_empty((batch, num_heads, value_dim))
    merge_spans[(batch * num_heads,)](
        highest,
        total,
        span_out,
        out if sink_logits is None else sink_logits.contiguous(),
        out,
        num_spans,
        NUM_HEADS=num_heads,
        GROUP_SIZE=group_size,
        VALUE_DIM=value_dim,
        HAS_SINK_LOGITS=sink_logits is not None,
        BLOCK_S=power_of_two(num_spans),
        BLOCK_V=power_of_two(value_dim),
        num_warps=4,
    )
    return out


def _place(x: Tensor) -> tuple[Tensor, int, int]:
    """Return a buffer and how far apart its slots and heads lie."""
    return x, x.stride(0), x.stride(1)
