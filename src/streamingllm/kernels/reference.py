"""Every operator as plain PyTorch: the truth that kernels must equal, and the fallback.

Tensors' layouts are stated here, once, for all implementations.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from streamingllm.kernels.linear_reference import block_linear as block_linear
from streamingllm.kernels.linear_reference import block_rows as block_rows
from streamingllm.kernels.linear_reference import linear as linear
from streamingllm.kernels.linear_reference import pack_blocks as pack_blocks
from streamingllm.kernels.linear_reference import quantized_linear as quantized_linear
from streamingllm.kernels.rows import decode_rows, encode_rows

# Logits of so many rows stay in a processor's cache between the passes that a softmax makes.
_ROWS_AT_ONCE = 16


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
    """Put one token per stream into its ring, then attend from it to the sinks and the window.

    Args:
        q: queries rotated at their stream positions, [batch, num_heads, head_dim].
        q_for_sinks: the same queries rotated where the sinks see them, of the same shape.
        k: the tokens' keys, [batch, num_kv_heads, head_dim]; None if they are in the ring already.
        v: their values, [batch, num_kv_heads, value_dim]; None if k is None.
        k_cache: [slots, num_kv_heads, entries, head_dim]. A slot with n sinks and a window of m
            holds sink i at entry i. It holds stream position t at entry n + t mod m. Entries past
            n + m are not used. Quantised: int8, [slots, num_kv_heads, entries, head_dim + 4],
            stream position t at entry t mod m, no sinks; see `rows.encode_rows`.
        v_cache: the values in the same layout, value_dim wide.
        k_undo: takes what the ring overwrites, stream position p at p mod u,
            [slots, num_kv_heads, u, width of k_cache]; None to forget it.
        v_undo: the values in the same layout; None if k_undo is None.
        k_sinks: the sinks of a quantised cache, [slots, num_kv_heads, sink_entries, head_dim],
            in the dtype of q; None if the cache itself has them.
        v_sinks: the values in the same layout; None if k_sinks is None.
        slots: slot of each token, int64, [batch]; tokens of one slot are written and attend one
            after the other.
        positions: stream position of each token, int64, [batch].
        layout: int64, [4, batch]: each slot's number of sinks n and window size m, then how many
            sinks and window tokens the query sees. It sees the first sinks and the last tokens,
            itself included. These tokens are at most m and at most t + 1.
        scale: factor of the scores.
        softcap: scores pass through softcap * tanh(score / softcap); 0 for none.
        sink_logits: a learned logit per head that takes part in the softmax, [num_heads]; or None.

    Returns:
        [batch, num_heads, value_dim], in the dtype of q.

    Source: Xiao et al. (arXiv 2309.17453), section 3.2.
    """
    outputs = []
    for b, (slot, t) in enumerate(zip(slots.tolist(), positions.tolist(), strict=True)):
        n, m, num_visible_sinks, window_length = layout[:, b].tolist()
        first_entry = n if k_sinks is None else 0
        if k is not None and v is not None:
            _write(k[b], k_cache[slot], None if k_undo is None else k_undo[slot], t, m, first_entry)
            _write(v[b], v_cache[slot], None if v_undo is None else v_undo[slot], t, m, first_entry)
        visible = torch.arange(t - window_length + 1, t + 1, device=q.device) % m + first_entry
        keys = _columns(k_cache[slot], k_sinks, slot, num_visible_sinks, visible)
        values = _columns(v_cache[slot], v_sinks, slot, num_visible_sinks, visible)
        outputs.append(
            _attend_one(
                q[b], q_for_sinks[b], keys, values, num_visible_sinks, scale, softcap, sink_logits
            )
        )
    return torch.stack(outputs).to(q.dtype)


def _write(
    new: Tensor, cache: Tensor, undo: Tensor | None, t: int, window_size: int, first_entry: int
) -> None:
    """Write one token [heads, dim] over the oldest entry of a slot's ring."""
    entry = first_entry + t % window_size
    if undo is not None and undo.shape[1] and t >= window_size:
        undo[:, (t - window_size) % undo.shape[1]] = cache[:, entry]
    cache[:, entry] = encode_rows(new) if cache.dtype is torch.int8 else new


def _columns(
    cache: Tensor, sinks: Tensor | None, slot: int, num_visible_sinks: int, visible: Tensor
) -> Tensor:
    """Return what a query sees of a slot, sinks first, [heads, columns, dim]."""
    window = cache[:, visible]
    if sinks is None:
        return torch.cat((cache[:, :num_visible_sinks], window), dim=1).to(_wide(cache))
    return torch.cat((sinks[slot, :, :num_visible_sinks].float(), decode_rows(window)), dim=1)


def _attend_one(
    q: Tensor,
    q_for_sinks: Tensor,
    keys: Tensor,
    values: Tensor,
    num_sinks: int,
    scale: float,
    softcap: float,
    sink_logits: Tensor | None,
) -> Tensor:
    groups = q.shape[0] // keys.shape[0]
    keys, values = keys.repeat_interleave(groups, dim=0), values.repeat_interleave(groups, dim=0)
    to_sinks = keys[:, :num_sinks] @ q_for_sinks.to(keys.dtype)[:, :, None]
    to_window = keys[:, num_sinks:] @ q.to(keys.dtype)[:, :, None]
    scores = torch.cat((to_sinks, to_window), dim=1)[:, :, 0] * scale
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    if sink_logits is not None:
        scores = torch.cat((scores, sink_logits.to(scores.dtype)[:, None]), dim=1)
    weights = scores.softmax(dim=-1)[:, : keys.shape[1]]
    return (weights[:, None] @ values)[:, 0]


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
    """Attend from a chunk of consecutive tokens to the sinks and to each one's window.

    Args:
        q: queries rotated at their stream positions, [batch, num_heads, seq, head_dim].
        q_for_sinks: the same queries rotated where the sinks see them, of the same shape.
        k: [batch, num_kv_heads, num_sinks + old + seq, head_dim]: the sinks, the window's tokens of
            earlier passes in order, the tokens of this pass.
        v: the values in the same layout, value_dim wide.
        sinks_seen: how many of the sinks each query sees, the first ones, int64, [seq].
        window_lengths: tokens of the window that each query sees, itself included, int64, [seq], 1
            to old + i + 1. Query i sees window columns old + i - length + 1 to old + i.
        num_sinks: columns that hold sinks.
        scale: factor of the scores.
        softcap: see `decode_attention`.
        sink_logits: see `decode_attention`.

    Returns:
        [batch, num_heads, seq, value_dim], each token's heads side by side in memory.

    Source: Xiao et al. (arXiv 2309.17453), section 3.2 and figure 4.
    """
    seq, dtype = q.shape[2], _wide(q)
    groups = q.shape[1] // k.shape[1]
    keys = k.to(dtype).repeat_interleave(groups, dim=1)
    values = v.to(dtype).repeat_interleave(groups, dim=1)
    to_sinks = q_for_sinks.to(dtype) @ keys[:, :, :num_sinks].mT
    to_window = q.to(dtype) @ keys[:, :, num_sinks:].mT
    scores = torch.cat((to_sinks, to_window), dim=-1) * scale
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    query = torch.arange(seq, device=q.device)[:, None] + (k.shape[2] - num_sinks - seq)
    column = torch.arange(k.shape[2] - num_sinks, device=q.device)
    in_window = (column <= query) & (column > query - window_lengths[:, None])
    sees_sink = torch.arange(num_sinks, device=q.device) < sinks_seen[:, None]
    scores = scores.masked_fill(~torch.cat((sees_sink, in_window), dim=-1), float("-inf"))
    if sink_logits is not None:
        learned = sink_logits.to(dtype).view(1, -1, 1, 1).expand(*scores.shape[:3], 1)
        scores = torch.cat((scores, learned), dim=-1)
    weights = scores.softmax(dim=-1)[..., : k.shape[2]]
    out = (weights @ values).to(q.dtype)
    return out.transpose(1, 2).contiguous().transpose(1, 2)


def token_nll(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the negative log-likelihood of each target, in nats.

    Args:
        logits: [seq, vocab].
        targets: int64, [seq].

    Returns:
        [seq], computed in float32, or in float64 where the logits are.
    """
    dtype = torch.promote_types(logits.dtype, torch.float32)
    pairs = zip(logits.split(_ROWS_AT_ONCE), targets.split(_ROWS_AT_ONCE), strict=True)
    return torch.cat([F.cross_entropy(z.to(dtype), t, reduction="none") for z, t in pairs])


def argmax(logits: Tensor) -> Tensor:
    """Return where each row [batch, vocab] has its greatest value, int64, [batch].

    The first of equals; torch's own argmax takes many times as long in bfloat16.
    """
    return logits.max(dim=-1).indices


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """Divide rows by the root of their mean square, round them, multiply with a weight.

    Args:
        x: [..., dim].
        weight: [dim], of the dtype of x.
        epsilon: added to the mean square.

    Returns:
        [..., dim], in the dtype of x.

    Source: Zhang and Sennrich, "Root Mean Square Layer Normalization" (arXiv 1910.07467).
    """
    wide = x.to(_wide(x))
    scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + epsilon)
    return (weight * (wide * scale).to(x.dtype)).contiguous()


def swish_gate(gate: Tensor, x: Tensor) -> Tensor:
    """Return swish(gate) * x, both [..., dim] (Shazeer, "GLU Variants Improve Transformer")."""
    return (F.silu(gate) * x).contiguous()


def rotate(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Turn the pairs (i, i + pairs) of each head, rounding wherever tensors do.

    Args:
        x: [..., seq, 2 * pairs].
        cosines: of the angles, in the dtype of x, broadcast against [..., seq, pairs].
        sines: of the same angles, in the same shape and dtype.

    Returns:
        what x is, in the dtype of x.

    Source: Su et al., "RoFormer" (arXiv 2104.09864), equation 34, with the pairs of GPT-NeoX.
    """
    first, second = x.chunk(2, dim=-1)
    turned = (first * cosines - second * sines, second * cosines + first * sines)
    return torch.cat(turned, dim=-1).contiguous()


def rotary_table(positions: Tensor, inv_freq: Tensor, scaling: float) -> tuple[Tensor, Tensor]:
    """Return cosines and sines of the angles positions x inv_freq, times `scaling`.

    Args:
        positions: int64, of any shape.
        inv_freq: radians per position, float64, [pairs].
        scaling: factor of both tables.

    Returns:
        two of [*positions.shape, pairs], float32; angles are float64.
    """
    angles = positions.double()[..., None] * inv_freq.double()
    return (angles.cos() * scaling).float(), (angles.sin() * scaling).float()


def _wide(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype is torch.float64 else torch.float32
