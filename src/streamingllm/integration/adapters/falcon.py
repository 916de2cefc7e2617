"""Falcon: rotary or ALiBi, multi-query or grouped key/value heads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from streamingllm.attention.forward_plan import ForwardPlan
from streamingllm.integration.adapters.base import AttentionAdapter
from streamingllm.integration.register import stream_attention
from streamingllm.positions.alibi import AlibiEncoding
from streamingllm.positions.base import PositionEncoding
from streamingllm.positions.rope import RopeEncoding
from streamingllm.positions.tables import RotaryTable


class FalconAdapter(AttentionAdapter):
    """Stream `FalconForCausalLM`.

    The cache holds one copy of each key/value head, where transformers repeats those of the new
    decoder architecture for every query head.
    """

    def encodings(self, model: PreTrainedModel, cache_size: int) -> tuple[PositionEncoding, ...]:
        """Return rotary frequencies, or ALiBi with the slopes that the model computes.

        Deviation: transformers rounds slope x position to bfloat16. Here slope x distance is not
        rounded, because distances in a stream are not differences of the same positions.
        """
        decoder: Any = model.get_decoder()
        encoding: PositionEncoding
        if decoder.use_alibi:
            scale = decoder.h[0].self_attention.inv_norm_factor
            encoding = AlibiEncoding(_slopes(decoder.num_heads) * scale)
        else:
            table = RotaryTable(decoder.rotary_emb, layer_type=None, columns="concatenated")
            encoding = RopeEncoding(*table.frequencies(cache_size))
        return (encoding,) * len(decoder.h)

    def attention_modules(self, decoder: Any) -> Iterable[nn.Module]:
        """Return the attention modules of a decoder, layer by layer."""
        return [block.self_attention for block in decoder.h]

    def attend(
        self,
        module: Any,
        plan: ForwardPlan,
        hidden_states: Tensor,
        *,
        layer_past: Any,
        **kwargs: Any,
    ) -> tuple[Tensor, None]:
        """Do what `FalconAttention.forward` does, seeing what `plan` says."""
        qkv = module.query_key_value(hidden_states)
        # Per key/value head: its group of queries, its key, its value.
        groups = qkv.unflatten(-1, (module.num_kv_heads, -1, module.head_dim)).transpose(1, 2)
        q = groups[:, :, :, :-2].transpose(2, 3).flatten(1, 2)
        q, k = plan.place(module.layer_idx, q, groups[:, :, :, -2])
        k, v = layer_past.update(k, groups[:, :, :, -1], module.layer_idx)
        out, _ = stream_attention(module, q, k, v, plan, scaling=module.inv_norm_factor)
        return module.dense(out.flatten(2)), None


def _slopes(num_heads: int) -> Tensor:
    # Not at the top: whoever streams another family need not wait for Falcon's module.
    from transformers.models.falcon.modeling_falcon import build_alibi_tensor

    two_tokens = torch.ones((1, 2), dtype=torch.int64)
    bias = build_alibi_tensor(two_tokens, num_heads, torch.float32)
    return bias[:, 0, 1] - bias[:, 0, 0]
