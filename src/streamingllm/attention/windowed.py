"""Attention of a chunk by the fused operator, which reads no column that no query sees."""

from __future__ import annotations

from torch import Tensor

from streamingllm.attention.plan import WindowPlan
from streamingllm.kernels.limits import Heads, windowed_unsupported_reason
from streamingllm.kernels.operators import windowed_attention
from streamingllm.positions.base import PositionEncoding


def can_attend(q: Tensor, v: Tensor, plan: WindowPlan, encoding: PositionEncoding) -> bool:
    """Return whether the operator can compute this, and faster than plain matrix products."""
    return (
        plan.chunk.aligned
        and not plan.in_place  # for one token packing the keys costs what the fused loop saves
        and not encoding.has_bias
        and not q.requires_grad
        and _unsupported_reason(q, v) is None
    )


def _unsupported_reason(q: Tensor, v: Tensor) -> str | None:
    queries, keys, values = (Heads(x.shape[1], x.shape[-1]) for x in (q, v, v))
    keys = keys._replace(dim=queries.dim)
    return windowed_unsupported_reason(queries, keys, values, q.dtype, q.device)


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
