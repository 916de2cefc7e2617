"""BLOOM: ALiBi in units of the scaled score."""

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


class BloomAdapter(AttentionAdapter):
    """Stream `BloomForCausalLM`."""

    def encodings(self, model: PreTrainedModel, cache_size: int) -> tuple[AlibiEncoding, ...]:
        """Return ALiBi with the slopes that the model computes."""
        decoder: Any = model.get_decoder()
        two_tokens = torch.ones((1, 2), dtype=torch.int64)
        bias = decoder.build_alibi_tensor(two_tokens, decoder.num_heads, torch.float32)
        return (AlibiEncoding(bias[:, 0, 1] - bias[:, 0, 0]),) * len(decoder.h)

    def attention_modules(self, decoder: Any) -> Iterable[nn.Module]:
        """Return the attention modules of a decoder, layer by layer."""
        return [block.self_attention for block in decoder.h]

    def attend(
        self,
        module: Any,
        plan: ForwardPlan,
        hidden_states: Tensor,
        residual: Tensor,
        *,
        layer_past: Any,
        **kwargs: Any,
    ) -> tuple[Tensor, None]:
        """Do what `BloomAttention.forward` does, seeing what `plan` says."""
        q, k, v = module._reshape(module.query_key_value(hidden_states))
        k, v = layer_past.update(k, v, module.layer_idx)
        out, _ = stream_attention(module, q, k, v, plan, scaling=module.inv_norm_factor)
        return residual + module.dense(out.flatten(2)), None
