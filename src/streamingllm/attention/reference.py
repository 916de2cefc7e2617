"""Attention with sinks and a window as plain arithmetic: the truth that fast paths must equal."""

from __future__ import annotations

import torch
from torch import Tensor

from streamingllm.attention.plan import WindowPlan
from streamingllm.positions.base import PositionEncoding


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    plan: WindowPlan,
    encoding: PositionEncoding,
    *,
    scale: float,
    softcap: float | None = None,
    sink_logits: Tensor | None = None,
) -> Tensor:
    """Attend from each query to the sinks and its window.

    Args:
        q: queries, [batch, num_heads, seq, head_dim], rotated at their stream positions.
        k: keys as `RingLayer.update` returned them, [batch, num_kv_heads, columns, head_dim].
        v: values, [batch, num_kv_heads, columns, value_dim].
        plan: the stream positions of queries and columns.
        encoding: moves queries to the cache positions where the sinks see them.
        scale: factor of the scores.
        softcap: scores pass through softcap * tanh(score / softcap), as in Gemma 2.
        sink_logits: a learned logit per head that takes part in the softmax, [num_heads].

    Returns:
        [batch, num_heads, seq, value_dim].

    Source: Xiao et al. (arXiv 2309.17453), section 3.2 and figure 4.
    """
    m, n = plan.window_size, plan.num_sinks
    query, key = plan.chunk.positions[:, :, None], plan.window_positions[:, None]
    sees_window = (key <= query) & (key > query - m) & (key >= 0)
    if plan.chunk.visible_from is not None:
        sees_window &= key >= plan.chunk.visible_from[:, :, None]
    length = sees_window.sum(-1, keepdim=True)
    sees_sinks = plan.sink_positions[:n] <= query - length
    num_outside = sees_sinks.sum(-1, keepdim=True)
    cache_position = num_outside + length - 1

    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
    move = (cache_position[..., 0] - plan.chunk.model_positions) * (num_outside[..., 0] > 0)
    shift = encoding.shift(move, like=q)
    q_for_sinks = q if shift is None else shift.queries(q)
    to_sinks, to_window = q_for_sinks @ k[:, :, :n].mT, q @ k[:, :, n:].mT
    scores = torch.cat((to_sinks, to_window), dim=-1).to(score_dtype(q)) * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)

    sink_distance = cache_position - torch.arange(n, device=q.device)
    bias = encoding.bias(torch.cat((sink_distance, query - key), dim=-1), scores.dtype)
    if bias is not None:
        scores = scores + bias
    seen = torch.cat((sees_sinks, sees_window), dim=-1)[:, None]
    scores = scores.masked_fill(~seen, torch.finfo(scores.dtype).min / 2)
    if sink_logits is not None:
        learned = sink_logits.to(scores.dtype).view(1, -1, 1, 1)
        scores = torch.cat((scores, learned.expand(*scores.shape[:3], 1)), dim=-1)
    weights = scores.softmax(dim=-1)[..., : k.shape[2]]
    return weights.to(v.dtype) @ v


def score_dtype(q: Tensor) -> torch.dtype:
    """Return the dtype in which scores are kept: float32, or float64 for float64 queries."""
    return torch.float64 if q.dtype == torch.float64 else torch.float32
