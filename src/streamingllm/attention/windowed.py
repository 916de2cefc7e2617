"""Attention of a chunk by the fused operator, which reads no column that no query sees."""

from __future__ import annotations

import torch
from torch import Tensor

from streamingllm.attention.plan import WindowPlan
from streamingllm.kernels import native
from streamingllm.kernels.operators import windowed_attention
from streamingllm.positions.base import PositionEncoding

_DTYPES = (torch.float32, torch.bfloat16)
_DIM_MULTIPLE, _GREATEST_DIM = 16, 256


def can_attend(q: Tensor, v: Tensor, plan: WindowPlan, encoding: PositionEncoding) -> bool:
    """Return whether the operator can compute this, and faster than plain matrix products."""
    dims = (q.shape[-1], v.shape[-1])
    return (
        q.device.type == "cpu"
        and q.dtype in _DTYPES
        and all(dim % _DIM_MULTIPLE == 0 and dim <= _GREATEST_DIM for dim in dims)
        and plan.chunk.aligned
        and not plan.in_place  # for one token packing the keys costs what the fused loop saves
        and not encoding.has_bias
        and not q.requires_grad
        and native.load()
    )


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    plan: WindowPlan,
    encoding: PositionEncoding,
    *,
    scale: float,
    softcap: float | None,
    sink_logits: Tensor | None,
) -> Tensor:
    """Attend from each query to the sinks and its window; see `reference.attend`."""
    out: Tensor = windowed_attention(
        q,
        plan.shift_queries(q, encoding),
        k,
        v,
        plan.sinks_outside[0],
        plan.window_lengths[0],
        plan.num_sinks,
        scale,
        softcap or 0.0,
        sink_logits,
    )
    return out
