"""Attention of a chunk on a GPU: flash attention along a band; the sinks have own queries."""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from streamingllm.errors import InputError
from streamingllm.kernels.triton.launch import (
    check,
    check_heads,
    check_numbers,
    check_score,
    in_triton,
    operand_dtype,
    power_of_two,
    rows_per_tile,
)
from streamingllm.kernels.triton.windowed_kernel import attend_chunk

# The largest whose registers do not spill on an A100 or H100.
_QUERY_TILE_BYTES, _COLUMN_TILE_BYTES = 16_384, 8_192
_MOST_ROWS = 64


def windowed_attention(
    q: Tensor,
    q_for_sinks: Tensor,
    k: Tensor,
    v: Tensor,
    sinks_seen: Tensor,
    window_lengths: Tensor,
    num_sinks: int,
    scale: float,
    softcap: float,
    sink_logits: Tensor | None,
) -> Tensor:
    """Do what `reference.windowed_attention` does; columns no query of a tile sees are not read.

    Products are taken in the dtype of queries and keys, sums in float32.

    Raises:
        InputError: shapes, types or devices are not what the kernel takes.
    """
    for name, x in (("q", q), ("k", k), ("v", v)):
        if x.ndim != 4:
            raise InputError(f"{name} is {list(x.shape)}; it must be [batch, heads, tokens, dim]")
    batch, num_heads, seq, key_dim = q.shape
    num_kv_heads, num_columns, value_dim = k.shape[1], k.shape[2], v.shape[3]
    check_heads(num_heads, num_kv_heads, key_dim, value_dim)
    check("q", q, (batch, num_heads, seq, key_dim), q)
    check("q_for_sinks", q_for_sinks, (batch, num_heads, seq, key_dim), q)
    check("k", k, (batch, num_kv_heads, num_columns, key_dim), q)
    check("v", v, (batch, num_kv_heads, num_columns, value_dim), q)
    check_numbers("sinks_seen", sinks_seen, (seq,), q)
    check_numbers("window_lengths", window_lengths, (seq,), q)
    check_score(softcap, sink_logits, num_heads, q)
    if not 0 <= num_sinks <= num_columns - seq:
        raise InputError(f"num_sinks={num_sinks}; it must be from 0 to {num_columns - seq}")
    dtype = operand_dtype(q, q_for_sinks, k, v)
    block_k, block_v = power_of_two(key_dim), power_of_two(value_dim)
    widest = max(block_k, block_v)
    block_q = min(_MOST_ROWS, power_of_two(seq), rows_per_tile(widest, dtype, _QUERY_TILE_BYTES))
    block_n = min(_MOST_ROWS, rows_per_tile(widest, dtype, _COLUMN_TILE_BYTES))
    out = q.new_empty((batch, seq, num_heads, value_dim)).transpose(1, 2)
    if out.numel() == 0:
        return out
    with torch.cuda.device_of(q):  # kernels go to the current device
        attend_chunk[(batch * num_heads, triton.cdiv(seq, block_q))](
            q.contiguous(),
            q_for_sinks.contiguous(),
            k.contiguous(),
            v.contiguous(),
            sinks_seen.contiguous(),
            window_lengths.contiguous(),
            out if sink_logits is None else sink_logits.contiguous(),
            out,
            seq,
            num_sinks,
            num_columns,
            scale,
            NUM_HEADS=num_heads,
            GROUP_SIZE=num_heads // num_kv_heads,
            KEY_DIM=key_dim,
            VALUE_DIM=value_dim,
            HAS_SINK_LOGITS=sink_logits is not None,
            OPERAND=in_triton(dtype),
            SOFTCAP=softcap,
            BLOCK_Q=block_q,
            BLOCK_N=block_n,
            BLOCK_K=block_k,
            BLOCK_V=block_v,
            num_warps=4,
            num_stages=2,
        )
    return out
