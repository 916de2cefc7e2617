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
        k, v: what `RingLayer.update` returned, [batch, num_kv_heads, columns, head_dim].
        plan: which columns each query sees.
        encoding: moves queries to the cache positions where the sinks see them.
        scale: factor of the scores.
        softcap: scores pass through softcap * tanh(score / softcap), as in Gemma 2.
        sink_logits: a learned logit per head that takes part in the softmax, [num_heads].

    Returns:
        [batch, num_heads, seq, value_dim].

    Source: Xiao et al. (arXiv 2309.17453), section 3.2 and figure 4.
    """
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
    n = plan.num_sinks
    q_for_sinks = plan.shift_queries(q, encoding)
    outputs = []
    for block in plan.blocks:
        rows = block.queries
        k_window, v_window = k[:, :, n:][:, :, block.keys], v[:, :, n:][:, :, block.keys]
        to_sinks = q_for_sinks[:, :, rows] @ k[:, :, :n].transpose(-1, -2)
        to_window = q[:, :, rows] @ k_window.transpose(-1, -2)
        scores = torch.cat((to_sinks, to_window), dim=-1).to(_score_dtype(q)) * scale
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        bias = encoding.bias(plan.distances(block), like=q)
        if bias is not None:
            scores = scores + bias
        if block.mask is not None:
            scores = scores.masked_fill(~block.mask, torch.finfo(scores.dtype).min / 2)
        if sink_logits is not None:
            learned = sink_logits.to(scores.dtype).view(1, -1, 1, 1)
            scores = torch.cat((scores, learned.expand(*scores.shape[:3], 1)), dim=-1)
        weights = scores.softmax(dim=-1).to(v.dtype)[..., : n + k_window.shape[2]]
        outputs.append(weights @ torch.cat((v[:, :, :n], v_window), dim=2))
    return torch.cat(outputs, dim=2)


def _score_dtype(q: Tensor) -> torch.dtype:
    return torch.float64 if q.dtype == torch.float64 else torch.float32
