"""The operators `torch.ops.streamingllm.*`: their signatures, known to compilers and exporters.

Implementations are picked by torch's own dispatcher: C++ for CPU tensors once `native.load()` has
succeeded, Triton for CUDA tensors, else the plain PyTorch of `reference`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from streamingllm.kernels import reference
from streamingllm.kernels.blocks import FORMATS, TILE_ROWS
from streamingllm.kernels.rows import SCALE_BYTES

_LIBRARY = torch.library.Library("streamingllm", "DEF")  # kept: operators go when it does

_SCHEMAS = {
    "decode_attention": (
        "(Tensor q, Tensor q_for_sinks, Tensor? k, Tensor? v, Tensor(a!) k_cache, "
        "Tensor(b!) v_cache, Tensor(c!)? k_undo, Tensor(d!)? v_undo, Tensor? k_sinks, "
        "Tensor? v_sinks, Tensor slots, Tensor positions, Tensor layout, float scale, "
        "float softcap, Tensor? sink_logits) -> Tensor"
    ),
    "windowed_attention": (
        "(Tensor q, Tensor q_for_sinks, Tensor k, Tensor v, Tensor sinks_seen, "
        "Tensor window_lengths, int num_sinks, float scale, float softcap, "
        "Tensor? sink_logits) -> Tensor"
    ),
    "quantized_linear": "(Tensor x, Tensor codes, Tensor scales, Tensor? minimums) -> Tensor",
    "block_linear": "(Tensor x, Tensor blocks, int format, int out_features) -> Tensor",
    "block_rows": (
        "(Tensor ids, Tensor blocks, int format, int out_features, int in_features) -> Tensor"
    ),
    "pack_blocks": "(Tensor rows, int format, int in_features, Tensor? order) -> Tensor",
    "linear": "(Tensor x, Tensor weight) -> Tensor",
    "token_nll": "(Tensor logits, Tensor targets) -> Tensor",
    "argmax": "(Tensor logits) -> Tensor",
    "rms_norm": "(Tensor x, Tensor weight, float epsilon) -> Tensor",
    "swish_gate": "(Tensor gate, Tensor x) -> Tensor",
    "rotate": "(Tensor x, Tensor cosines, Tensor sines) -> Tensor",
    "rotary_table": "(Tensor positions, Tensor inv_freq, float scaling) -> (Tensor, Tensor)",
}


def _like_queries(q: Tensor, q_for_sinks: Tensor, k: Any, v: Any, *rest: Any) -> Tensor:
    v_cache: Tensor = rest[1]
    stored = v_cache.shape[-1] - (SCALE_BYTES if v_cache.dtype is torch.int8 else 0)
    return q.new_empty((*q.shape[:-1], stored))


def _like_windows(q: Tensor, q_for_sinks: Tensor, k: Tensor, v: Tensor, *rest: Any) -> Tensor:
    batch, num_heads, seq, _ = q.shape
    return q.new_empty((batch, seq, num_heads, v.shape[-1])).transpose(1, 2)


def _like_tiles(x: Tensor, codes: Tensor, scales: Tensor, minimums: Tensor | None) -> Tensor:
    return x.new_empty((*x.shape[:-1], scales.shape[0] * scales.shape[2]))


def _like_block_rows(x: Tensor, blocks: Tensor, format: int, out_features: int) -> Tensor:
    return x.new_empty((*x.shape[:-1], out_features))


def _like_embeddings(
    ids: Tensor, blocks: Tensor, format: int, out_features: int, in_features: int
) -> Tensor:
    return ids.new_empty((*ids.shape, in_features), dtype=torch.float32)


def _like_blocks(rows: Tensor, format: int, in_features: int, order: Tensor | None) -> Tensor:
    num_tiles = -(-rows.shape[0] // TILE_ROWS)
    return rows.new_empty((num_tiles, sum(FORMATS[format].regions(in_features))))


def _like_rows(x: Tensor, weight: Tensor) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0]))


def _like_targets(logits: Tensor, targets: Tensor) -> Tensor:
    return logits.new_empty(targets.shape, dtype=torch.promote_types(logits.dtype, torch.float32))


def _like_choices(logits: Tensor) -> Tensor:
    return logits.new_empty(logits.shape[:-1], dtype=torch.int64)


def _like_first(x: Tensor, *rest: Any) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _like_angles(positions: Tensor, inv_freq: Tensor, scaling: float) -> tuple[Tensor, Tensor]:
    shape = (*positions.shape, inv_freq.shape[0])
    return (
        positions.new_empty(shape, dtype=torch.float32),
        positions.new_empty(shape, dtype=torch.float32),
    )


_SHAPES: dict[str, Callable[..., Any]] = {
    "decode_attention": _like_queries,
    "windowed_attention": _like_windows,
    "quantized_linear": _like_tiles,
    "block_linear": _like_block_rows,
    "block_rows": _like_embeddings,
    "pack_blocks": _like_blocks,
    "linear": _like_rows,
    "token_nll": _like_targets,
    "argmax": _like_choices,
    "rms_norm": _like_first,
    "swish_gate": _like_first,
    "rotate": _like_first,
    "rotary_table": _like_angles,
}

for _name, _schema in _SCHEMAS.items():
    _LIBRARY.define(_name + _schema)
    _LIBRARY.impl(_name, getattr(reference, _name), "CompositeExplicitAutograd")
    torch.library.register_fake(f"streamingllm::{_name}", _SHAPES[_name], lib=_LIBRARY)

decode_attention = torch.ops.streamingllm.decode_attention.default
windowed_attention = torch.ops.streamingllm.windowed_attention.default
quantized_linear = torch.ops.streamingllm.quantized_linear.default
block_linear = torch.ops.streamingllm.block_linear.default
block_rows = torch.ops.streamingllm.block_rows.default
pack_blocks = torch.ops.streamingllm.pack_blocks.default
linear = torch.ops.streamingllm.linear.default
token_nll = torch.ops.streamingllm.token_nll.default
argmax = torch.ops.streamingllm.argmax.default
rms_norm = torch.ops.streamingllm.rms_norm.default
swish_gate = torch.ops.streamingllm.swish_gate.default
rotate = torch.ops.streamingllm.rotate.default
rotary_table = torch.ops.streamingllm.rotary_table.default

# Those of a decode step.
DECODING = (decode_attention, quantized_linear, block_linear, block_rows, linear, rotary_table)
