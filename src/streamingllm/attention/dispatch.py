"""Attention with sinks and a window: by our own operator where there is one, else by torch's.

Of what is left to torch, one or a few queries, and any number in half precision, go through plain
matrix products over grouped heads. Many queries in full precision go through torch's fused CPU
kernel over the window. Its log-sum-exp lets the few sinks join afterwards, which see a query turned
to another position.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from streamingllm.attention import windowed
from streamingllm.attention.plan import WindowPlan
from streamingllm.attention.reference import score_dtype
from streamingllm.positions.base import PositionEncoding

# Figures for these are in docs/performance.md: below so many queries the fused kernel's set-up
# costs more than it saves, and plain products are fastest while a block's scores fit the L2 cache.
FUSED_MIN_QUERIES = 16
FUSED_BLOCK_QUERIES = 256
PLAIN_BLOCK_QUERIES = 64
_flash_attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


@dataclass(frozen=True)
class _ScoreRule:
    """Rule that turns scores into weights; see `reference.attend`."""

    scale: float
    softcap: float | None
    sink_logits: Tensor | None

    def learned_sinks(self, dtype: torch.dtype) -> Tensor | None:
        """Return the learned logits, [1, num_heads, 1, 1]."""
        return None if self.sink_logits is None else self.sink_logits.to(dtype).view(1, -1, 1, 1)


@dataclass(frozen=True)
class _Operands:
    """Hold the operands of one block of queries.

    `q` and `q_for_sinks` are [batch, num_heads, queries, head_dim]; `k` and `v` hold the columns
    [sinks | window], [batch, num_kv_heads, columns, head_dim]; `added` is their mask and bias.
    """

    q: Tensor
    q_for_sinks: Tensor
    k: Tensor
    v: Tensor
    num_sinks: int
    added: Tensor | None


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
    if windowed.can_attend(q, v, plan, encoding):
        return windowed.attend(
            q, k, v, plan, encoding, scale=scale, softcap=softcap, sink_logits=sink_logits
        )
    n = plan.num_sinks
    q_for_sinks = plan.shift_queries(q, encoding)
    rule = _ScoreRule(scale, softcap, sink_logits)
    fused = _can_fuse(q, v, rule)
    dtype = q.dtype if fused or _is_plain(rule, encoding) else score_dtype(q)
    compute = _attend_fused if fused else _attend_plain
    outputs = []
    for block in plan.blocks(FUSED_BLOCK_QUERIES if fused else PLAIN_BLOCK_QUERIES):
        operands = _Operands(
            q[:, :, block.queries],
            q_for_sinks[:, :, block.queries],
            _columns(k, n, block.keys),
            _columns(v, n, block.keys),
            n,
            plan.additive_mask(block, encoding, dtype),
        )
        outputs.append(compute(operands, rule, dtype))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=2)


def _columns(x: Tensor, num_sinks: int, window: slice) -> Tensor:
    """Return the sinks and a run of the window in one piece; a copy only where one is between."""
    if num_sinks == 0 or window.start == 0:
        return x[:, :, window.start : num_sinks + window.stop]
    recent = x[:, :, num_sinks + window.start : num_sinks + window.stop]
    return torch.cat((x[:, :, :num_sinks], recent), dim=2)


def _can_fuse(q: Tensor, v: Tensor, rule: _ScoreRule) -> bool:
    """Return whether torch's fused CPU kernel can compute windows faster than plain products."""
    # On bfloat16 plain products over small blocks are faster than the fused kernel's own.
    gains = q.shape[2] >= FUSED_MIN_QUERIES and q.dtype in (torch.float32, torch.float64)
    same_size = q.shape[-1] == v.shape[-1]
    return gains and same_size and rule.softcap is None and q.device.type == "cpu"


def _is_plain(rule: _ScoreRule, encoding: PositionEncoding) -> bool:
    """Return whether scores go straight into the softmax, which computes in float32 anyway."""
    return rule.softcap is None and rule.sink_logits is None and not encoding.has_bias


def _attend_plain(x: _Operands, rule: _ScoreRule, dtype: torch.dtype) -> Tensor:
    n, num_columns = x.num_sinks, x.k.shape[2]
    scores = _grouped_scores(x.q * rule.scale, x.k)
    if n:
        # The few columns of the sinks again, by queries that stand where the sinks see them.
        scores[..., :n] = _grouped_scores(x.q_for_sinks * rule.scale, x.k[:, :, :n])
    scores = scores.to(dtype)
    if rule.softcap is not None:
        scores = rule.softcap * torch.tanh(scores / rule.softcap)
    if x.added is not None:
        scores += x.added
    learned = rule.learned_sinks(dtype)
    if learned is not None:
        scores = torch.cat((scores, learned.expand(*scores.shape[:3], 1)), dim=-1)
    weights = scores.softmax(dim=-1).to(x.v.dtype)
    return _grouped_product(weights[..., :num_columns], x.v)


def _attend_fused(x: _Operands, rule: _ScoreRule, dtype: torch.dtype) -> Tensor:
    n = x.num_sinks
    to_window = None if x.added is None else x.added[..., n:]
    out: Tensor
    out, log_sum = _flash_attention(
        x.q, x.k[:, :, n:], x.v[:, :, n:], attn_mask=to_window, scale=rule.scale
    )
    log_sum = log_sum[..., None].to(dtype)
    if n:
        scores = _grouped_scores(x.q_for_sinks, x.k[:, :, :n]) * rule.scale
        if x.added is not None:
            scores = scores + x.added[..., :n]
        total = torch.logaddexp(log_sum, scores.logsumexp(dim=-1, keepdim=True))
        of_sinks = _grouped_product((scores - total).exp(), x.v[:, :, :n])
        out = out * (log_sum - total).exp() + of_sinks
        log_sum = total
    learned = rule.learned_sinks(dtype)
    return out if learned is None else out * (log_sum - learned).sigmoid()


def _grouped_scores(q: Tensor, k: Tensor) -> Tensor:
    """Return q @ k^T, [batch, num_heads, queries, keys], without repeating k for its group."""
    batch, heads, queries, _ = q.shape
    grouped = q.reshape(batch, k.shape[1], -1, q.shape[-1])
    return (grouped @ k.mT).view(batch, heads, queries, -1)


def _grouped_product(weights: Tensor, v: Tensor) -> Tensor:
    """Return weights @ v, [batch, num_heads, queries, value_dim], without repeating v."""
    batch, heads, queries, columns = weights.shape
    grouped = weights.reshape(batch, v.shape[1], -1, columns)
    return (grouped @ v).view(batch, heads, queries, -1)
