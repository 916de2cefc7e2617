"""Attention with sinks and a window on torch's own kernels.

One or a few queries go through two matrix products over grouped heads, which copies nothing. Many
queries go through torch's fused CPU kernel over the window, whose log-sum-exp lets the few sinks,
seen by a query turned to another position, join afterwards.
"""

from __future__ import annotations

import torch
from torch import Tensor

from streamingllm.attention.plan import Block, WindowPlan
from streamingllm.positions.base import PositionEncoding

# Below this many queries the fused kernel's set-up costs more than it saves (docs/performance.md).
FUSED_MIN_QUERIES = 16
_fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


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
    """Attend from each query to the sinks and its window; see `reference.attend`."""
    q_for_sinks = plan.shift_queries(q, encoding)
    outputs = []
    for block in plan.blocks:
        attend_block = _attend_fused if _can_fuse(q, v, block, softcap) else _attend_matmul
        outputs.append(
            attend_block(q, q_for_sinks, k, v, plan, encoding, block, scale, softcap, sink_logits)
        )
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=2)


def _can_fuse(q: Tensor, v: Tensor, block: Block, softcap: float | None) -> bool:
    enough = block.queries.stop - block.queries.start >= FUSED_MIN_QUERIES
    same_heads = q.shape[-1] == v.shape[-1]
    # On bfloat16 the plain products are faster than the fused kernel's own.
    exact = q.dtype in (torch.float32, torch.float64)
    return enough and same_heads and exact and softcap is None and q.device.type == "cpu"


def _attend_matmul(
    q: Tensor,
    q_for_sinks: Tensor,
    k: Tensor,
    v: Tensor,
    plan: WindowPlan,
    encoding: PositionEncoding,
    block: Block,
    scale: float,
    softcap: float | None,
    sink_logits: Tensor | None,
) -> Tensor:
    n, heads = plan.num_sinks, q.shape[1]
    window = slice(n + block.keys.start, n + block.keys.stop)
    scores = _grouped_scores(q[:, :, block.queries], k[:, :, window])
    if n:
        to_sinks = _grouped_scores(q_for_sinks[:, :, block.queries], k[:, :, :n])
        scores = torch.cat((to_sinks, scores), dim=-1)
    scores = scores.to(_score_dtype(q)) * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    bias = encoding.bias(plan.distances(block), like=q)
    if bias is not None:
        scores = scores + bias
    if block.mask is not None:
        scores = scores.masked_fill(~block.mask, torch.finfo(scores.dtype).min / 2)
    if sink_logits is not None:
        learned = sink_logits.to(scores.dtype).view(1, heads, 1, 1)
        scores = torch.cat((scores, learned.expand(*scores.shape[:3], 1)), dim=-1)
    weights = scores.softmax(dim=-1).to(v.dtype)
    out = _grouped_product(weights[..., n : n + window.stop - window.start], v[:, :, window])
    return out + _grouped_product(weights[..., :n], v[:, :, :n]) if n else out


def _attend_fused(
    q: Tensor,
    q_for_sinks: Tensor,
    k: Tensor,
    v: Tensor,
    plan: WindowPlan,
    encoding: PositionEncoding,
    block: Block,
    scale: float,
    softcap: float | None,
    sink_logits: Tensor | None,
) -> Tensor:
    n = plan.num_sinks
    window = slice(n + block.keys.start, n + block.keys.stop)
    bias = _additive_mask(plan, encoding, block, q)
    to_window = None if bias is None else bias[..., n:]
    out, log_sum = _fused(
        q[:, :, block.queries], k[:, :, window], v[:, :, window], attn_mask=to_window, scale=scale
    )
    log_sum = log_sum[..., None].to(q.dtype)
    if n:
        scores = _grouped_scores(q_for_sinks[:, :, block.queries], k[:, :, :n]) * scale
        if bias is not None:
            scores = scores + bias[..., :n]
        total = torch.logaddexp(log_sum, scores.logsumexp(dim=-1, keepdim=True))
        of_sinks = _grouped_product((scores - total).exp(), v[:, :, :n])
        out = out * (log_sum - total).exp() + of_sinks
        log_sum = total
    if sink_logits is not None:
        learned = sink_logits.to(q.dtype).view(1, -1, 1, 1)
        out = out * torch.sigmoid(log_sum - learned)
    return out


def _additive_mask(
    plan: WindowPlan, encoding: PositionEncoding, block: Block, q: Tensor
) -> Tensor | None:
    """Mask and bias as one tensor to add, [rows, 1 or num_heads, queries, columns]."""
    bias = encoding.bias(plan.distances(block), like=q)
    if block.mask is None:
        return None if bias is None else bias.to(q.dtype)
    lowest = torch.finfo(q.dtype).min / 2
    if bias is None:
        zero = torch.zeros((), dtype=q.dtype, device=q.device)
        return torch.where(block.mask, zero, lowest)
    return bias.to(q.dtype).masked_fill(~block.mask, lowest)


def _grouped_scores(q: Tensor, k: Tensor) -> Tensor:
    """Return q @ k^T, [batch, num_heads, queries, keys], without repeating k for its group."""
    batch, heads, queries, _ = q.shape
    grouped = q.reshape(batch, k.shape[1], -1, q.shape[-1])
    return (grouped @ k.transpose(-1, -2)).view(batch, heads, queries, -1)


def _grouped_product(weights: Tensor, v: Tensor) -> Tensor:
    """Return weights @ v, [batch, num_heads, queries, value_dim], without repeating v."""
    batch, heads, queries, columns = weights.shape
    grouped = weights.reshape(batch, v.shape[1], -1, columns)
    return (grouped @ v).view(batch, heads, queries, -1)


def _score_dtype(q: Tensor) -> torch.dtype:
    return torch.float64 if q.dtype == torch.float64 else torch.float32
